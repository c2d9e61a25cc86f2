"""The numbers as CSV files, unrounded, each row with what it rests on."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from fmbpo.compare.record import Cell, Record
from fmbpo.compare.result import OVERALL, Comparison, Estimate, Section
from fmbpo.report.pages.origins import BASIS
from fmbpo.report.pages.text import csv_text

ALL_TASKS = "(all)"
"""What stands in the column ``task`` of what is over all tasks."""
_ORIGIN = ("runs", *BASIS, "checkpoint", "hardware")


def csv_files(comparison: Comparison) -> dict[str, str]:
    """Content by file name. Without a number a field is empty; several runs, or several values
    of a basis, are joined by ``"; "``."""
    return {
        "results.csv": _results(comparison),
        "effects.csv": _effects(comparison),
        "seeds.csv": _seeds(comparison),
    }


def _results(comparison: Comparison) -> str:
    head = [
        "section", "world_model", "policy", "task", "unit", "seeds", *_ends("mean"), *_ends("iqm"),
        "pwm", "tdmpc2", *_ORIGIN,
    ]  # fmt: skip
    rows = [
        [
            section.title,
            result.cell.world_model,
            result.cell.policy,
            *_task(result.task),
            len(result.seeds),
            *_numbers(result.mean),
            *_numbers(result.iqm),
            result.pwm,
            result.tdmpc2,
            *_origin(_of_cell(section, result.cell, result.task)),
        ]
        for section in comparison.sections
        for result in section.results
    ]
    return _text(head, rows)


def _effects(comparison: Comparison) -> str:
    head = [
        "section", "effect", "kind", "task", "unit", *_ends("difference"), *_ends("improvement"),
        "paired", "verdict", *_ORIGIN,
    ]  # fmt: skip
    rows = [
        [
            section.title,
            effect.name,
            effect.kind,
            *_task(effect.task),
            *_numbers(effect.difference),
            *_numbers(effect.improvement),
            "yes" if effect.paired else "no",
            effect.verdict,
            *_origin(section.records),
        ]
        for section in comparison.sections
        for effect in section.effects
    ]
    return _text(head, rows)


def _seeds(comparison: Comparison) -> str:
    head = [
        "section", "run", "world_model", "policy", "task", "seed", "mean", "episodes", "returns",
        "experiment", "phase", *_ORIGIN[1:], "source",
    ]  # fmt: skip
    rows = [
        [
            section.title,
            record.name,
            record.cell.world_model,
            record.cell.policy,
            task,
            seed,
            score.mean,
            score.episodes,
            " ".join(map(repr, map(float, score.returns))),
            record.experiment,
            record.phase,
            *_origin([record])[1:],
            record.source,
        ]
        for section in comparison.sections
        for record in section.records
        for task, seeds in record.scores.items()
        for seed, score in seeds.items()
    ]
    return _text(head, rows)


def _ends(name: str) -> list[str]:
    return [name, f"{name}_low", f"{name}_high"]


def _numbers(estimate: Estimate | None) -> list[float | None]:
    return [estimate.value, estimate.low, estimate.high] if estimate else [None] * 3


def _task(task: str) -> list[str]:
    """Task and unit."""
    return [ALL_TASKS, "return / 1000"] if task == OVERALL else [task, "return"]


def _of_cell(section: Section, cell: Cell, task: str) -> list[Record]:
    """The runs that a result rests on."""
    records = [record for record in section.records if record.cell == cell]
    return [record for record in records if task == OVERALL or task in record.scores]


def _origin(records: Sequence[Record]) -> list[str]:
    """As ``_ORIGIN`` names it."""
    return [
        _join(record.name for record in records),
        *(_join(str(getattr(record.basis, name)) for record in records) for name in BASIS),
        _join(record.checkpoint for record in records),
        _join(record.hardware for record in records),
    ]


def _join(words: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, words)))


def _text(head: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow([csv_text(x) if isinstance(x, str) else x for x in row])
    return stream.getvalue()
