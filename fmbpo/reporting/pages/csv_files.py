"""The numbers as CSV files, unrounded; each row names the runs behind it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import attrs

from fmbpo.base.files import display
from fmbpo.compare.comparison import (
    CLONED,
    OVERALL,
    PLANNER,
    RANDOM,
    CellResult,
    Comparison,
    Effect,
    Estimate,
    Hypothesis,
    Record,
    Registered,
    Score,
    Section,
)
from fmbpo.reporting.pages.content import clean
from fmbpo.runs.summary import RealityCheck

ALL_TASKS = "(all)"
"""The entry in the column ``task`` of a number over all tasks."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NO_EFFECT = Effect(
    name="", kind="policy", task="", difference=Estimate(0.0), improvement=None, paired=False,
    verdict="",
)  # fmt: skip

Row: TypeAlias = Mapping[str, str | float | None]


def csv_files(comparison: Comparison) -> dict[str, str]:
    """The files' contents by name. A missing number is an empty field; several runs, or several
    values of a basis, are joined by ``"; "``. Hypotheses have a file if any are registered."""
    sections = comparison.sections
    seeds = [_seed(s, record, *found) for s in sections for record in s.records
             for found in record.policies]  # fmt: skip
    results = [_result(section, result) for section in sections for result in section.results]
    effects = [_effect(section, effect) for section in sections for effect in section.effects]
    hypotheses = [
        _hypothesis(study, one) for study in comparison.registered for one in study.hypotheses
    ]
    return {
        **({"hypotheses.csv": _text(hypotheses[0], hypotheses)} if hypotheses else {}),
        "results.csv": _text(results[0], results),
        "effects.csv": _text(_effect(sections[0], _NO_EFFECT), effects),  # may have no row
        "seeds.csv": _text(seeds[0], seeds),
    }


def csv_text(text: object) -> str:
    """Text for a CSV file; ``'`` in front if a spreadsheet would run it as a formula."""
    words = clean(text)
    return f"'{words}" if words.startswith(_FORMULA) else words


def _result(section: Section, result: CellResult) -> Row:
    records = [record for record in section.records if record.cell == result.cell]
    return {
        "section": section.title,
        **attrs.asdict(result.cell),
        **_task(result.task),
        "seeds": len(result.seeds),
        "policies": result.policies,
        "world_models": result.world_models,
        **_estimate("mean", result.mean),
        **_estimate("iqm", result.iqm),
        "pwm": result.pwm,
        "tdmpc2": result.tdmpc2,
        **_references(section, result.task),
        **_runs([r for r in records if result.task == OVERALL or result.task in r.scores]),
    }


def _references(section: Section, task: str) -> Row:
    """The returns of planner, random policy and behaviour cloning on a task, empty over all."""
    names = PLANNER, RANDOM, CLONED
    return {name: section.references.get(name, {}).get(task) for name in names}


def _effect(section: Section, effect: Effect) -> Row:
    return {
        "section": section.title,
        "effect": effect.name,
        "kind": effect.kind,
        **_task(effect.task),
        **_estimate("difference", effect.difference),
        "standard_error": effect.error,
        "degrees_of_freedom": effect.freedom,
        "p": effect.p,
        **_estimate("improvement", effect.improvement),
        "paired": "yes" if effect.paired else "no",
        "verdict": effect.verdict,
        "scope": effect.scope,
        "reason": effect.reason,
        **_runs(section.records),
    }


def _hypothesis(study: Registered, one: Hypothesis) -> Row:
    return {
        "study": study.study,
        "hypothesis": one.name,
        "contrast": one.contrast,
        "expected": one.expected,
        "margin": study.margin,
        **_estimate("difference", one.effect.difference),
        "standard_error": one.effect.error,
        "degrees_of_freedom": one.effect.freedom,
        "p_difference": one.p_difference,
        "p_equivalence": one.p_equivalence,
        "outcome": one.outcome,
        "scope": one.effect.scope,
        "reason": one.effect.reason,
        **_estimate("development", one.development.difference if one.development else None),
    }


def _seed(section: Section, record: Record, task: str, seed: str, score: Score) -> Row:
    runs = _runs([record])
    return {
        "section": section.title,
        "run": runs.pop("runs"),
        **attrs.asdict(record.cell),
        "task": task,
        "seed": seed,
        "trained_in": score.world_model,
        "mean": score.mean,
        "episodes": score.episodes,
        "stochastic_mean": score.stochastic,
        "action_noise": score.action_noise,
        **_reality(score.reality),
        "returns": " ".join(repr(float(value)) for value in score.returns),
        "experiment": record.experiment,
        "phase": record.phase,
        **runs,
        "source": display(record.source),
    }


def _reality(found: RealityCheck | None) -> Row:
    gaps = {name: getattr(found, name, None) for name in ("episode", "horizon")}
    return {
        **{
            f"{name}_{field}": getattr(gap, field, None)
            for name, gap in gaps.items()
            for field in ("imagined", "real", "rms")
        },
        "disagreement": found.disagreement if found else None,
        "rank_correlation": found.rank_correlation if found else None,
    }


def _task(task: str) -> Row:
    return {"task": task or ALL_TASKS, "unit": "return" if task else "return / 1000"}


def _estimate(name: str, estimate: Estimate | None) -> Row:
    ends = attrs.astuple(estimate) if estimate else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def _runs(records: Sequence[Record]) -> dict[str, str]:
    """The runs behind a row, with their bases, checkpoints and hardware."""
    rows = [
        {
            "runs": record.name,
            **attrs.asdict(record.basis),
            "checkpoint": record.checkpoint,
            "hardware": record.hardware,
        }
        for record in records
    ]
    return {
        key: "; ".join(dict.fromkeys(filter(None, (str(row[key]) for row in rows))))
        for key in rows[0]
    }


def _text(head: Iterable[str], rows: Iterable[Row]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow([csv_text(x) if isinstance(x, str) else x for x in row.values()])
    return stream.getvalue()
