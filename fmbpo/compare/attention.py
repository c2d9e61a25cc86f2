"""Warnings that precede the numbers of a comparison."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from fmbpo.compare.comparison import OVERALL, SMALL_SCALES, Cell, Record, Section
from fmbpo.compare.contrasts import Declared
from fmbpo.compare.floor import SHARE, at_floor
from fmbpo.runs.findings import by_gate

_SHOWN = 8
"""The number of differing settings or equal policies that are named; the others are counted."""


def in_section(section: Section) -> list[str]:
    """Notes on one section; the most serious first."""
    notes = (_mixed, _identical, _floor, _health, _settings, _world_models, _missing, _seeds,
             _episodes, _replication)  # fmt: skip
    return [line for note in notes for line in note(section)]


def across_sections(sections: Sequence[Section], declared: Declared) -> list[str]:
    """Notes on all sections together, and on declared contrasts that none of them has."""
    lines = []
    for name, (factor, a, b) in declared.items():
        here = [{getattr(cell, factor) for cell in section.cells} for section in sections]
        if not any({a, b} <= levels for levels in here):
            absent = ", ".join(sorted({a, b} - set().union(*here))) or "both in one section"
            lines.append(f"The declared contrast {name!r} ({a} - {b}) has no runs of {absent}.")
    if len(sections) > 1:
        lines.append("The sections have different bases: nothing is ranked between them.")
        budgets = dict.fromkeys(b.budget for section in sections for b in section.bases)
        if len(budgets) > 1:
            lines.append(f"Budgets differ between sections: {' | '.join(budgets)}.")
    phases = dict.fromkeys(r.phase for s in sections for r in s.records if r.phase)
    if len(phases) > 1:
        lines.append(f"Runs of several phases of the study: {', '.join(phases)}.")
    return lines


def _mixed(section: Section) -> Iterator[str]:
    for field in section.mixed:
        values = dict.fromkeys(getattr(basis, field) for basis in section.bases)
        yield f"These runs are compared although they differ in {field}: {' | '.join(values)}."


def _identical(section: Section) -> Iterator[str]:
    """Equal returns in every episode, unless all of them are the same number, such as 1000."""
    seen: dict[tuple[object, ...], tuple[Record, str]] = {}
    found = []
    for record in section.records:
        for task, seed, score in record.policies:
            place = f"{record.cell} ({task}, seed {seed})"
            other, first = seen.setdefault((task, score.returns), (record, place))
            # Within one run, a health gate reports this.
            if other is not record and len(set(score.returns)) > 1:
                found.append(f"{first} and {place}")
    if found:
        yield f"Identical returns in every episode: {_first(found)}."


def _floor(section: Section) -> Iterator[str]:
    if found := at_floor(section.results, section.references):
        yield (
            "No cell learns these tasks, so differences hardly show there: "
            f"{', '.join(found)} (all means are less than {SHARE:.0%} of the way from the random "
            "policy's return to the planner's)."
        )


def _health(section: Section) -> Iterator[str]:
    for record in section.records:
        for line in by_gate(record.health):
            yield f"{record.name}: {line}."


def _settings(section: Section) -> Iterator[str]:
    """Settings that differ although no factor of the section explains it."""
    known = [record for record in section.records if record.settings]
    found = []
    for key in dict.fromkeys(key for record in known for key in record.settings):
        shared = _is_shared(key, known)
        groups: dict[str, dict[str, None]] = {}
        for record in known:
            level = "" if shared else _level(record, key)
            groups.setdefault(level, {})[json.dumps(record.settings.get(key))] = None
        found += [f"{key}: {' | '.join(values)}" for values in groups.values() if len(values) > 1]
    if found:
        yield f"Runs differ beyond the factors: {_first(found)}."


def _first(found: Sequence[str]) -> str:
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{'; '.join(found[:_SHOWN])}{more}"


def _is_shared(key: str, records: Sequence[Record]) -> bool:
    """Whether a setting must be the same at all levels.

    As between the cells of a study (``fmbpo.config.factors``), a setting may differ only if some
    plugin lacks it. A plugin's version may always differ.
    """
    if key.startswith("versions."):
        return False
    return key.startswith("pretrain.") or all(key in record.settings for record in records)


def _level(record: Record, key: str) -> str:
    """The level that the setting belongs to; empty if it belongs to none."""
    if key.startswith(("world_model", "versions.world_model")):
        return record.cell.world_model
    return record.cell.policy if key.startswith(("policy.", "versions.policy")) else ""


def _world_models(section: Section) -> Iterator[str]:
    """Single world models that stand for their kind; policies that met other world models."""
    met: dict[str, dict[Cell, set[str]]] = {}
    for record in section.records:
        cells = met.setdefault(record.cell.world_model, {})
        models = {score.world_model for *_, score in record.policies}
        cells[record.cell] = cells.get(record.cell, set()) | models
    for kind, cells in met.items():
        found = set().union(*cells.values())
        if "" in found:
            continue
        if len(found) == 1:
            yield (
                f"One world model of {kind} for all its policies: no verdict on world models or "
                "interactions, and verdicts on policies hold in this one world model."
            )
        elif any(models != found for models in cells.values()):
            numbers = ", ".join(f"{cell} {len(models)}" for cell, models in cells.items())
            yield (
                f"The policies in {kind} did not all meet the same world models ({numbers} of "
                f"{len(found)}), so they are not compared within world models everywhere."
            )


def _missing(section: Section) -> Iterator[str]:
    have = {(r.cell, r.task): set(r.seeds) for r in section.results if r.task != OVERALL}
    tasks = dict.fromkeys(task for _, task in have)
    for cell in section.cells:
        absent = [task for task in tasks if (cell, task) not in have]
        if absent:
            yield f"{cell} has no {', '.join(absent)}: excluded from numbers over all tasks."
        for task in tasks:
            all_seeds = set().union(*(have[c, t] for c, t in have if t == task))
            missing = all_seeds - have.get((cell, task), all_seeds)
            if missing:
                named = sorted(missing, key=lambda seed: (len(seed), seed))
                yield f"{cell} lacks seeds of {task}: {', '.join(named)}."


def _seeds(section: Section) -> Iterator[str]:
    single = dict.fromkeys(
        str(r.cell) for r in section.results if r.task != OVERALL and len(r.seeds) == 1
    )
    if single:
        yield f"One seed on a task, so no interval: {', '.join(single)}."


def _episodes(section: Section) -> Iterator[str]:
    found: dict[int, dict[str, None]] = {}
    for record in section.records:
        for *_, score in record.policies:
            found.setdefault(score.episodes or 0, {})[record.name] = None
    unknown = found.pop(0, {})
    if len(found) > 1:
        parts = [f"{number} in {', '.join(names)}" for number, names in sorted(found.items())]
        yield f"Unequal numbers of episodes: {'; '.join(parts)}."
    if unknown:
        yield f"Imported without the number of episodes: {', '.join(unknown)}."


def _replication(section: Section) -> Iterator[str]:
    if all(basis.scale in SMALL_SCALES for basis in section.bases):
        return
    found: dict[Cell, list[str]] = {}
    for r in section.results:
        if r.task != OVERALL and r.pwm is not None and r.mean.value < r.pwm / 2:
            numbers = f"{r.mean.value:.1f} against {r.pwm:.1f}, TD-MPC2: {r.tdmpc2:.1f}"
            found.setdefault(r.cell, []).append(f"{r.task} ({numbers})")
    for cell, tasks in found.items():
        places = ", ".join(tasks)
        yield f"{cell}: less than half of PWM's published return on {places}: failed replication?"
