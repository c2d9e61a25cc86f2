"""What is said of returns: by task, over all tasks, of every seed, and how they spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fmbpo.compare.record import Cell
from fmbpo.compare.result import OVERALL, CellResult, Profile, Section
from fmbpo.report.pages import figures
from fmbpo.report.pages.content import LEVEL, Block, Column, Field, Picture, Table
from fmbpo.report.pages.drawing import Style
from fmbpo.report.table import NONE

_PUBLISHED = ("PWM", "TD-MPC2")
_BRACKETS = f"IQM: interquartile mean over seeds. In brackets: {LEVEL} intervals."


def returns(section: Section, name: str, style: Mapping[Cell, Style]) -> Block | None:
    """Tables over all tasks and by task; the returns and the performance profiles drawn; None
    where there are no returns."""
    tasks = by_task(section)
    overall = [result for result in section.results if result.task == OVERALL]
    tables, pictures = [], []
    if overall:
        tables.append(overall_table(section, overall))
    if tasks:
        tables.append(task_table(section, tasks))
        title = "Returns by task"
        svg = figures.returns(f"{name}-returns", title, tasks, style)
        words = f"Means with {LEVEL} intervals; the small dots are seeds."
        pictures.append(Picture(f"{name}-returns", title, words, svg, seeds_table(section)))
    if section.profiles:
        pictures.append(_profiles(section.profiles, f"{name}-profiles", style))
    if not tables and not pictures:
        return None
    return Block(title="Returns", tables=tables, pictures=pictures)


def by_task(section: Section) -> dict[str, list[CellResult]]:
    """The results of each task, in the section's order; those over all tasks are not in it."""
    found: dict[str, list[CellResult]] = {}
    for result in section.results:
        if result.task != OVERALL:
            found.setdefault(result.task, []).append(result)
    return found


def overall_table(section: Section, results: Sequence[CellResult]) -> Table:
    """Cells in rows; everything divided by 1000."""
    columns = [
        Column("cell", numeric=False),
        *(Column(title) for title in ("mean", "IQM", "seeds")),
        *(Column(title, group="published") for title in _PUBLISHED),
    ]
    rows = [
        [
            Field(str(result.cell)),
            Field.estimate(result.mean, 3),
            Field.estimate(result.iqm, 3),
            Field.number(len(result.seeds), 0),
            *(Field.number(level, 3) for level in (result.pwm, result.tdmpc2)),
        ]
        for result in results
    ]
    over = f"over {len(section.tasks)} tasks" if len(section.tasks) != 1 else "over 1 task"
    return Table(f"Returns divided by 1000, {over}", columns, rows, [_BRACKETS])


def task_table(section: Section, tasks: Mapping[str, Sequence[CellResult]]) -> Table:
    """Tasks in rows, each cell's mean and interquartile mean in columns."""
    columns = [Column("task", numeric=False)]
    for cell in section.cells:
        columns += [Column(title, group=str(cell)) for title in ("mean", "IQM")]
    columns += [Column(title, group="published") for title in _PUBLISHED]
    rows = []
    for task, results in tasks.items():
        found = {result.cell: result for result in results}
        row = [Field(task if task in section.tasks else f"{task} †")]
        for cell in section.cells:
            result = found.get(cell)
            row.append(Field.estimate(result.mean if result else None, 1))
            row.append(Field.estimate(result.iqm if result else None, 1))
        row += [Field.number(_first(results, name), 1) for name in ("pwm", "tdmpc2")]
        rows.append(row)
    notes = [_BRACKETS, _seeds(tasks)]
    if any(task not in section.tasks for task in tasks):
        notes.append("†: not in every cell, and so not in what is over all tasks.")
    return Table("Returns by task", columns, rows, notes)


def seeds_table(section: Section) -> Table:
    """The final return of every policy."""
    columns = [
        *(Column(title, numeric=False) for title in ("task", "cell", "seed")),
        *(Column(title) for title in ("mean return", "episodes")),
        Column("run", numeric=False),
    ]
    rows = [
        [
            Field(task),
            Field(str(record.cell)),
            Field(seed),
            Field.number(score.mean, 1),
            Field.number(score.episodes, 0),
            Field(record.name),
        ]
        for record in section.records
        for task, seeds in record.scores.items()
        for seed, score in seeds.items()
    ]
    notes = [f"{NONE}: the source does not say how many episodes the mean is over."]
    missing = any(
        score.episodes is None
        for record in section.records
        for seeds in record.scores.values()
        for score in seeds.values()
    )
    return Table("Every seed's return", columns, rows, notes if missing else ())


def _profiles(found: Sequence[Profile], name: str, style: Mapping[Cell, Style]) -> Picture:
    """Performance profiles, with their numbers."""
    columns = [Column("score τ"), *(Column(str(profile.cell)) for profile in found)]
    tables = [
        {x: (s, lo, hi) for x, s, lo, hi in zip(p.thresholds, p.share, p.low, p.high, strict=True)}
        for p in found
    ]
    rows = []
    for x in sorted({x for table in tables for x in table}):
        row = [Field(f"{x:g}", x)]
        for table in tables:
            share = table.get(x)
            row.append(
                Field(f"{share[0]:.3f}", share[0], f"[{share[1]:.3f}, {share[2]:.3f}]")
                if share
                else Field(NONE)
            )
        rows.append(row)
    title = "Performance profiles"
    data = Table("Share of runs with a score above τ", columns, rows)
    svg = figures.profiles(name, title, found, style)
    words = (
        "A run is one task and seed. A line that is above another one everywhere is better "
        "whatever score matters."
    )
    return Picture(name, title, words, svg, data)


def _first(results: Sequence[CellResult], name: str) -> float | None:
    levels: list[float | None] = [getattr(result, name) for result in results]
    return next((level for level in levels if level is not None), None)


def _seeds(tasks: Mapping[str, Sequence[CellResult]]) -> str:
    """How many seeds there are, and where there are not as many as elsewhere."""
    counts = {
        (task, result.cell): len(result.seeds) for task, found in tasks.items() for result in found
    }
    most = max(counts.values())
    fewer = [f"{n} in {cell} on {task}" for (task, cell), n in counts.items() if n != most]
    text = f"Seeds: {most}"
    return f"{text}, but {'; '.join(fewer)}." if fewer else f"{text} in every cell and task."
