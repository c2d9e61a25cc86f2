"""The first screen of a section: its facts, answers, caveats, contrasts and returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fmbpo.base.text import NONE, counted
from fmbpo.compare.comparison import (
    OVERALL,
    UNIT,
    CellResult,
    Effect,
    Estimate,
    Record,
    Registered,
    Score,
    Section,
)
from fmbpo.reporting.pages import dots
from fmbpo.reporting.pages.answers import answers, main_contrasts, registered_answers
from fmbpo.reporting.pages.caveats import caveats
from fmbpo.reporting.pages.content import (
    LEVEL,
    Column,
    Field,
    First,
    Picture,
    Table,
    words,
)
from fmbpo.reporting.pages.svg import Looks, styles

_MOST_ROWS = 24
"""With more rows, the forest shows single tasks side by side."""
_PUBLISHED = {"PWM, published": "pwm", "TD-MPC2, published": "tdmpc2"}


def first_screen(
    section: Section, name: str, style: Looks, studies: Sequence[Registered] = ()
) -> First:
    """``name`` begins the names of its figures; ``style``: the looks of the cells.

    ``studies``: the registered ones that it answers.
    """
    effects = main_contrasts(section)
    margin = max((study.margin for study in studies), default=0.0)
    pictures = [_contrasts(effects, name, margin)] if effects else []
    if section.results:
        pictures.append(_returns(section, name, style))
    return First(
        facts=_facts(section),
        registered=registered_answers(section, studies),
        answers=answers(section, studies),
        pictures=pictures,
        caveats=caveats(section, studies),
    )


def collapsed(effects: Mapping[str, Sequence[Effect]]) -> bool:
    """Whether the forest shows single tasks side by side, so that each contrast needs its own."""
    several = any(len(found) > 1 for found in effects.values())
    return several and sum(len(found) + 1 for found in effects.values()) > _MOST_ROWS


def _facts(section: Section) -> str:
    """The basis in short, and the numbers of tasks, policies and world models."""
    policies = sum(len(result.seeds) for result in section.results if result.task != OVERALL)
    models = sum(section.world_models.values())
    within = "" if 0 in section.world_models.values() else f" in {counted(models, 'world model')}"
    tasks = {result.task for result in section.results} - {OVERALL}
    size = f"{counted(len(tasks), 'task')} · {policies} policies{within}"
    return f"{section.title} · {size}"


def _contrasts(effects: Mapping[str, Sequence[Effect]], name: str, margin: float) -> Picture:
    key, title = f"{name}-contrasts", "Differences in return"
    if len({effect.task for found in effects.values() for effect in found} - {OVERALL}) == 1:
        # The only task is all tasks.
        effects = {at: [e for e in found if e.task != OVERALL] for at, found in effects.items()}
    strip = collapsed(effects)
    svg = dots.forest(key, title, effects, styles(effects), strip=strip, margin=margin)
    single = any(effect.task != OVERALL for found in effects.values() for effect in found)
    holm = ", on single tasks after Holm's correction" if single else ""
    caption = (
        f"Right of 0, the level named first is ahead. Bars: {LEVEL} intervals. Filled: a verdict"
        f"{holm}."
    )
    if margin:
        caption += f" Band: the margin of equivalence, ±{UNIT * margin:g}."
    return Picture(key, title, caption, svg, numbers(title, effects))


def numbers(title: str, effects: Mapping[str, Sequence[Effect]]) -> Table:
    """The numbers of a forest."""
    rows = [(name, effect) for name, found in effects.items() for effect in found]

    def estimate(row: tuple[str, Effect]) -> Estimate:
        return dots.in_returns(row[1].difference, row[1].task)

    columns: list[Column[tuple[str, Effect]]] = [
        words("contrast", lambda row: row[0]),
        words("task", lambda row: row[1].task or dots.ALL_TASKS),
        Column("difference", lambda row: Field.number(estimate(row).value, 1)),
        Column("low", lambda row: Field.number(estimate(row).low, 1)),
        Column("high", lambda row: Field.number(estimate(row).high, 1)),
        words("verdict", lambda row: row[1].verdict),
    ]
    return Table(f"{title}, of {UNIT:.0f}", columns, rows)


def _returns(section: Section, name: str, style: Looks) -> Picture:
    tasks: dict[str, list[CellResult]] = {}
    for result in sorted(section.results, key=lambda result: result.task != OVERALL):
        tasks.setdefault(result.task, []).append(result)
    if len(tasks) == 2:  # the only task is all tasks
        tasks.pop(OVERALL, None)
    key, title = f"{name}-returns", "Returns by task"
    svg = dots.returns(key, title, tasks, _references(section, tasks), style)
    caption = f"World model × policy. Means with {LEVEL} intervals; faint dots are single policies."
    return Picture(key, title, caption, svg, _policies_table(section))


def _references(
    section: Section, tasks: Mapping[str, Sequence[CellResult]]
) -> dict[str, dict[str, float]]:
    """Other returns by name and task; over all tasks if all are known."""
    found = {}
    for name, by_task in section.references.items():
        found[name] = {task: by_task[task] for task in tasks if task in by_task}
        if section.tasks and set(section.tasks) <= by_task.keys():
            over = sum(by_task[task] for task in section.tasks) / len(section.tasks)
            found[name][OVERALL] = over
    for name, field in _PUBLISHED.items():
        levels = {task: getattr(results[0], field) for task, results in tasks.items()}
        found[name] = {
            task: level * (UNIT if task == OVERALL else 1.0)
            for task, level in levels.items()
            if level is not None
        }
    return {name: levels for name, levels in found.items() if levels}


def _policies_table(section: Section) -> Table:
    """The final return of every policy."""
    found = [(record, *policy) for record in section.records for policy in record.policies]
    columns: list[Column[tuple[Record, str, str, Score]]] = [
        words("task", lambda row: row[1]),
        words("cell", lambda row: str(row[0].cell)),
        words("policy", lambda row: row[2]),
        Column("mean return", lambda row: Field.number(row[3].mean, 1)),
        Column("episodes", lambda row: Field.number(row[3].episodes, 0)),
        words("run", lambda row: row[0].name),
    ]
    unknown = any(score.episodes is None for *_, score in found)
    notes = [f"{NONE}: the source does not give the number of episodes."] if unknown else []
    return Table("Every policy's return", columns, found, notes)
