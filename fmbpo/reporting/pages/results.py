"""Returns, failures and effects as tables, with performance profiles and plots by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fmbpo.base.text import NONE, counted
from fmbpo.compare.comparison import (
    OVERALL,
    Cell,
    CellResult,
    Effect,
    Estimate,
    Failures,
    Profile,
    Section,
)
from fmbpo.compare.failures import SHARE
from fmbpo.reporting.pages import dots, figures, final
from fmbpo.reporting.pages.answers import by_heading, main_contrasts
from fmbpo.reporting.pages.content import (
    LEVEL,
    Block,
    Column,
    Field,
    Picture,
    T,
    Table,
    percent,
    words,
)
from fmbpo.reporting.pages.first_screen import collapsed, numbers
from fmbpo.reporting.pages.svg import Looks, styles

_PUBLISHED = {"PWM": "pwm", "TD-MPC2": "tdmpc2"}
_BRACKETS = f"IQM: interquartile mean over policies. In brackets: {LEVEL} intervals"


def returns(section: Section, name: str, style: Looks) -> Block | None:
    """Tables of returns and failures, and performance profiles; None without returns."""
    tasks: dict[str, list[CellResult]] = {}
    for result in section.results:
        tasks.setdefault(result.task, []).append(result)
    overall = tasks.pop(OVERALL, [])
    if not tasks:
        return None
    tables = [_overall_table(section, overall)] if overall else []
    tables += [_task_table(section, tasks), *final.baselines(section), *final.noise(section)]
    if section.failures:
        tables.append(_failure_table(section.failures))
    pictures = [_profiles(section.profiles, f"{name}-profiles", style)] if section.profiles else []
    return Block(title="Returns", tables=tables, pictures=pictures)


def _overall_table(section: Section, results: Sequence[CellResult]) -> Table:
    """Cells in rows; all returns divided by 1000."""
    columns: list[Column[CellResult]] = [
        words("cell", lambda result: str(result.cell)),
        Column("mean", lambda result: Field.estimate(result.mean, 3)),
        Column("IQM", lambda result: Field.estimate(result.iqm, 3)),
        Column("policies", lambda result: Field.number(result.policies, 0)),
        Column("world models", lambda result: Field.number(result.world_models or None, 0)),
        *(_published(title, lambda result: result, 3) for title in _PUBLISHED),
    ]
    title = f"Returns divided by 1000, over {counted(len(section.tasks), 'task')}"
    return Table(title, columns, results, [_intervals(results)])


def _intervals(results: Sequence[CellResult]) -> str:
    """The meaning of the brackets: the unit that the intervals are over."""
    units = {"policies" if result.world_models < 2 else "world models" for result in results}
    where = {result.world_models for result in results}
    notes = {0: "each with its own world model", 1: "in one world model"}
    held = " or ".join(notes[number] for number in sorted(where) if number in notes)
    over = f"{_BRACKETS} over {' or '.join(sorted(units))}"
    return f"{over}{f' ({held})' if held else ''}."


def _published(title: str, result: Callable[[T], CellResult], digits: int) -> Column[T]:
    level = _PUBLISHED[title]
    return Column(
        title, lambda item: Field.number(getattr(result(item), level), digits), group="published"
    )


def _task_table(section: Section, tasks: Mapping[str, Sequence[CellResult]]) -> Table:
    """Tasks in rows, each cell's mean and interquartile mean in columns."""
    at = {(task, result.cell): result for task, found in tasks.items() for result in found}

    def estimate(cell: Cell, title: str) -> Column[str]:
        def field(task: str) -> Field:
            return Field.estimate(getattr(at.get((task, cell)), title.lower(), None), 1)

        return Column(title, field, group=str(cell))

    columns = [
        words("task", lambda task: task if task in section.tasks else f"{task} †"),
        *(estimate(cell, title) for cell in section.cells for title in ("mean", "IQM")),
        *(_published(title, lambda task: tasks[task][0], 1) for title in _PUBLISHED),
    ]
    notes = [_intervals(list(at.values())), _numbers(tasks)]
    if any(task not in section.tasks for task in tasks):
        notes.append("†: not in every cell, so excluded from numbers over all tasks.")
    return Table("Returns by task", columns, tasks, notes)


def _numbers(tasks: Mapping[str, Sequence[CellResult]]) -> str:
    """The policies and world models of a cell on a task, and the cells that have other numbers."""
    counts: dict[str, list[str]] = {}
    for task, found in tasks.items():
        for result in found:
            counts.setdefault(_number(result), []).append(f"{result.cell} on {task}")
    usual = max(counts, key=lambda text: len(counts[text]))
    others = [f"{text} for {', '.join(places)}" for text, places in counts.items() if text != usual]
    but = f"; but {'; '.join(others)}" if others else ""
    return f"In each cell and task: {usual}{but}."


def _number(result: CellResult) -> str:
    policies = f"{result.policies} polic{'y' if result.policies == 1 else 'ies'}"
    if result.world_models == 0:
        return f"{policies} with {'its' if result.policies == 1 else 'their'} own world model"
    return f"{policies} in {counted(result.world_models, 'world model')}"


def _failure_table(failures: Sequence[Failures]) -> Table:
    """Cells in rows; the tasks with failed policies."""

    def places(found: Failures) -> str:
        return ", ".join(f"{task} {number}" for task, number in found.by_task.items())

    columns: list[Column[Failures]] = [
        words("cell", lambda found: str(found.cell)),
        Column("failed", lambda found: Field.number(found.failed, 0)),
        Column("policies", lambda found: Field.number(found.policies, 0)),
        Column("share", lambda found: _share(found.rate)),
        words("failed on", places),
    ]
    notes = [
        f"A policy fails if its return is below {percent(SHARE)} of the planner's. In brackets: "
        f"exact (Clopper-Pearson) {LEVEL} intervals, as if policies that share a world model were "
        "independent."
    ]
    return Table("Failed policies", columns, failures, notes)


def _share(rate: Estimate) -> Field:
    low, high = (percent(end or 0.0, 1) for end in (rate.low, rate.high))
    return Field(percent(rate.value, 1), rate.value, f"[{low}, {high}]")


def _profiles(found: Sequence[Profile], name: str, style: Looks) -> Picture:
    """Performance profiles, with their numbers."""

    def column(one: Profile) -> Column[int]:
        points = list(map(Estimate, one.share, one.low, one.high))
        return Column(str(one.cell), lambda place: Field.estimate(points[place], 3))

    scores = found[0].thresholds  # the same for all
    score = Column[int]("score τ", lambda place: Field(f"{scores[place]:g}", scores[place]))
    title = "Performance profiles"
    columns = [score, *map(column, found)]
    data = Table("Share of runs with a score above τ", columns, range(len(scores)))
    svg = figures.profiles(name, title, found, style)
    caption = (
        "A run is one task and policy. A cell whose line is above another everywhere is better, "
        "whichever score matters."
    )
    return Picture(name, title, caption, svg, data)


def effects(section: Section, name: str) -> Block | None:
    """Tables over all tasks and by task, and a forest for each effect that has none yet."""
    found = by_heading(section.effects)
    if not found:
        return None
    overall = [effect for effect in section.effects if effect.task == OVERALL]
    single = [effect for effect in section.effects if effect.task != OVERALL]
    tables, pictures = [], []
    if overall:
        title = "Effects over all tasks, returns divided by 1000"
        tables.append(_effect_table(title, overall, 3, "p"))
    if single:
        tables.append(_effect_table("Effects by task, in returns", single, 1, "p (Holm)"))
    looks = styles(found)
    hidden = found if collapsed(main_contrasts(section)) else {}
    for number, (one, of) in enumerate(hidden.items(), 1):
        key, shown = f"{name}-effect-{number}", {one: of}
        svg = dots.forest(key, one, shown, looks, strip=False)
        pictures.append(Picture(key, one, "", svg, numbers(one, shown)))
    text = [
        "A difference above 0 favours the level named first. A verdict follows from p: below 0.05, "
        "one level is ahead; otherwise it is undecided. On single tasks, p has Holm's "
        f"correction for the number of tasks. Each {LEVEL} interval stands for itself, so it may "
        "exclude 0 without a verdict. The tasks are fixed: a verdict over all tasks is about these "
        "tasks. P(better) is the probability that the level named first is better on a task and "
        "replicate drawn at random; 0.5 means no difference."
    ]
    return Block(title="Effects", text=text, tables=tables, pictures=pictures)


def _effect_table(title: str, effects: Sequence[Effect], digits: int, p: str) -> Table:
    """``p``: the title of the column of p values."""
    columns: list[Column[Effect]] = [
        words("effect", lambda effect: effect.name),
        words("task", lambda effect: effect.task or dots.ALL_TASKS),
        Column("difference", lambda effect: Field.estimate(effect.difference, digits)),
        Column(p, lambda effect: _p_value(effect.p)),
        Column("P(better)", lambda effect: Field.estimate(effect.improvement, 2)),
        words("paired", lambda effect: "yes" if effect.paired else "no"),
        Column(
            "verdict",
            lambda e: Field(
                e.verdict, note=e.note, tone="open" if e.verdict in dots.OPEN else "decided"
            ),
            numeric=False,
        ),
    ]
    notes = [f"In brackets: {LEVEL} intervals. Paired: within the same world models."]
    if any(effect.improvement is None for effect in effects):
        notes.append(f"{NONE}: an interaction has no such probability.")
    return Table(title, columns, effects, notes)


def _p_value(p: float | None) -> Field:
    return Field("<0.001", p) if p is not None and p < 0.0005 else Field.number(p, 3)
