"""Returns and effects as readers see them: tables, forest plots, profiles, verdicts in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from fmbpo.base.text import NONE
from fmbpo.compare.comparison import (
    NO_VERDICT,
    OVERALL,
    UNDECIDED,
    Cell,
    CellResult,
    Effect,
    Estimate,
    Profile,
    Record,
    Score,
    Section,
)
from fmbpo.reporting.pages import figures
from fmbpo.reporting.pages.content import (
    LEVEL,
    Block,
    Column,
    Field,
    Picture,
    T,
    Table,
    Tone,
    Verdict,
    decimal,
    interval,
    words,
)

_PUBLISHED = {"PWM": "pwm", "TD-MPC2": "tdmpc2"}
_BRACKETS = f"IQM: interquartile mean over policies. In brackets: {LEVEL} intervals."
_OPEN = (UNDECIDED, NO_VERDICT)


def returns(section: Section, name: str, style: figures.Looks) -> Block | None:
    """Tables and figures of the returns, and performance profiles; None without returns."""
    tasks: dict[str, list[CellResult]] = {}
    for result in section.results:
        tasks.setdefault(result.task, []).append(result)
    overall = tasks.pop(OVERALL, [])
    if not tasks:
        return None
    tables = [_overall_table(section, overall)] if overall else []
    tables.append(_task_table(section, tasks))
    title = "Returns by task"
    svg = figures.returns(f"{name}-returns", title, tasks, style)
    caption = f"Means with {LEVEL} intervals; the small dots are seeds."
    pictures = [Picture(f"{name}-returns", title, caption, svg, _seeds_table(section))]
    if section.profiles:
        pictures.append(_profiles(section.profiles, f"{name}-profiles", style))
    return Block(title="Returns", tables=tables, pictures=pictures)


def _overall_table(section: Section, results: Sequence[CellResult]) -> Table:
    """Cells in rows; all returns divided by 1000."""
    columns: list[Column[CellResult]] = [
        words("cell", lambda result: str(result.cell)),
        Column("mean", lambda result: Field.estimate(result.mean, 3)),
        Column("IQM", lambda result: Field.estimate(result.iqm, 3)),
        Column("seeds", lambda result: Field.number(len(result.seeds), 0)),
        *(_published(title, lambda result: result, 3) for title in _PUBLISHED),
    ]
    number = len(section.tasks)
    title = f"Returns divided by 1000, over {number} task{'' if number == 1 else 's'}"
    return Table(title, columns, results, [_BRACKETS])


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
    notes = [_BRACKETS, _seeds(tasks)]
    if any(task not in section.tasks for task in tasks):
        notes.append("†: not in every cell, so excluded from numbers over all tasks.")
    return Table("Returns by task", columns, tasks, notes)


def _seeds_table(section: Section) -> Table:
    """The final return of every policy."""
    found = [(record, *policy) for record in section.records for policy in record.policies]
    columns: list[Column[tuple[Record, str, str, Score]]] = [
        words("task", lambda row: row[1]),
        words("cell", lambda row: str(row[0].cell)),
        words("seed", lambda row: row[2]),
        Column("mean return", lambda row: Field.number(row[3].mean, 1)),
        Column("episodes", lambda row: Field.number(row[3].episodes, 0)),
        words("run", lambda row: row[0].name),
    ]
    unknown = any(score.episodes is None for *_, score in found)
    notes = [f"{NONE}: the source does not give the number of episodes."] if unknown else []
    return Table("Every seed's return", columns, found, notes)


def _profiles(found: Sequence[Profile], name: str, style: figures.Looks) -> Picture:
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


def _seeds(tasks: Mapping[str, Sequence[CellResult]]) -> str:
    """The number of seeds, and the cells and tasks that have fewer."""
    counts = {
        (task, result.cell): len(result.seeds) for task, found in tasks.items() for result in found
    }
    most = max(counts.values())
    fewer = [f"{n} in {cell} on {task}" for (task, cell), n in counts.items() if n != most]
    text = f"Seeds: {most}"
    return f"{text}, but {'; '.join(fewer)}." if fewer else f"{text} in every cell and task."


def effects(section: Section, name: str) -> Block | None:
    """Tables over all tasks and by task, and a forest plot for each effect; None without any."""
    by_name = _by_name(section)
    if not by_name:
        return None
    overall = [effect for effect in section.effects if effect.task == OVERALL]
    single = [effect for effect in section.effects if effect.task != OVERALL]
    tables, pictures = [], []
    if overall:
        title = "Effects over all tasks, returns divided by 1000"
        tables.append(_effect_table(title, overall, 3, "p"))
    if single:
        tables.append(_effect_table("Effects by task, in returns", single, 1, "p (Holm)"))
    for number, (one, style) in enumerate(figures.styles(by_name).items(), 1):
        # The row over all tasks is on top.
        found = sorted(by_name[one], key=lambda effect: effect.task != OVERALL)
        key = f"{name}-effect-{number}"
        shown = {effect.task: _per_thousand(effect) for effect in found}
        decided = [effect.task for effect in found if effect.verdict not in _OPEN]
        svg = figures.forest(key, one, shown, style, decided)
        pictures.append(Picture(key, one, _sentence(found), svg, _numbers(one, shown)))
    text = [
        "A difference above 0 favours the level named first. A verdict follows from p: below 0.05, "
        "one level is ahead; otherwise there is no decision. On single tasks, p has Holm's "
        f"correction for the number of tasks. Each {LEVEL} interval stands for itself, so it may "
        "exclude 0 without a verdict. The tasks are fixed: a verdict over all tasks is about these "
        "tasks. P(better) is the probability that the level named first is better on a task and "
        "replicate drawn at random; 0.5 means no difference."
    ]
    return Block(title="Effects", text=text, tables=tables, pictures=pictures)


def verdicts(section: Section) -> list[Verdict]:
    """Every effect in words: over all tasks, and the number of tasks with each verdict."""
    verdicts = []
    for name, found in _by_name(section).items():
        over = next((effect for effect in found if effect.task == OVERALL), None)
        by_task = _by_task(found)
        if over is None:
            verdicts.append(Verdict(name, "", "", "", "", by_task))
            continue
        number = f"{decimal(over.difference.value, 3)} {interval(over.difference, 3)}".rstrip()
        tone = _tone(over.verdict)
        verdicts.append(Verdict(name, over.verdict, over.note, tone, number, by_task))
    return verdicts


def _by_name(section: Section) -> dict[str, list[Effect]]:
    found: dict[str, list[Effect]] = {}
    for effect in section.effects:
        found.setdefault(effect.name, []).append(effect)
    return found


def _tone(verdict: str) -> Tone:
    return "open" if verdict in _OPEN else "decided"


def _effect_table(title: str, effects: Sequence[Effect], digits: int, p: str) -> Table:
    """``p``: the title of the column of p values."""
    columns: list[Column[Effect]] = [
        words("effect", lambda effect: effect.name),
        words("task", lambda effect: effect.task or figures.ALL_TASKS),
        Column("difference", lambda effect: Field.estimate(effect.difference, digits)),
        Column(p, lambda effect: _p_value(effect.p)),
        Column("P(better)", lambda effect: Field.estimate(effect.improvement, 2)),
        words("paired", lambda effect: "yes" if effect.paired else "no"),
        Column(
            "verdict",
            lambda e: Field(e.verdict, note=e.note, tone=_tone(e.verdict)),
            numeric=False,
        ),
    ]
    notes = [f"In brackets: {LEVEL} intervals. Paired: within the same world models."]
    if any(effect.improvement is None for effect in effects):
        notes.append(f"{NONE}: an interaction has no such probability.")
    return Table(title, columns, effects, notes)


def _p_value(p: float | None) -> Field:
    return Field("<0.001", p) if p is not None and p < 0.0005 else Field.number(p, 3)


def _per_thousand(effect: Effect) -> Estimate:
    """The difference of returns / 1000, so that tasks and their mean share an axis."""
    unit = 1.0 if effect.task == OVERALL else 1000.0
    found = effect.difference
    low, high = (None if end is None else end / unit for end in (found.low, found.high))
    return Estimate(found.value / unit, low, high)


def _numbers(title: str, differences: Mapping[str, Estimate]) -> Table:
    """The numbers of a forest plot."""
    columns: list[Column[tuple[str, Estimate]]] = [
        words("task", lambda row: row[0] or figures.ALL_TASKS),
        Column("difference / 1000", lambda row: Field.number(row[1].value, 3)),
        Column("low", lambda row: Field.number(row[1].low, 3)),
        Column("high", lambda row: Field.number(row[1].high, 3)),
    ]
    return Table(f"{title}: differences divided by 1000", columns, differences.items())


def _sentence(effects: Sequence[Effect]) -> str:
    parts = [f"{effect.verdict} over all tasks" for effect in effects if effect.task == OVERALL]
    return f"{'; '.join(filter(None, [*parts, _by_task(effects)]))}."


def _by_task(effects: Sequence[Effect]) -> str:
    """``by task: flow ahead on 2, no decision on 28``; empty without effects by task."""
    counts = Counter(effect.verdict for effect in effects if effect.task != OVERALL)
    parts = [f"{word} on {n}" for word, n in counts.most_common()]
    return f"by task: {', '.join(parts)}" if parts else ""
