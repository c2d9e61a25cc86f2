"""What is said of training: learning curves, cost, the world models' errors, videos."""

from __future__ import annotations

import base64
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from fmbpo.compare.record import Cell, Record, Series
from fmbpo.compare.result import Section
from fmbpo.report.curves import mean_series
from fmbpo.report.pages import figures
from fmbpo.report.pages.content import Block, Column, Field, Picture, Table, Video, significant
from fmbpo.report.pages.drawing import Style
from fmbpo.report.table import NONE

LARGEST_VIDEO = 20 * 2**20
"""Bytes of a video that the page still takes in."""
_FORMATS = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".gif": "image/gif",
    ".webp": "image/webp",
}


def curves(section: Section, name: str, style: Mapping[Cell, Style]) -> Block | None:
    """A figure for each task; None where no run has curves."""
    known = [task for record in section.records for task in record.scores]
    pictures: list[Picture] = []
    for task in dict.fromkeys([*section.tasks, *known]):
        cells = {cell: _series(section.records, cell, task) for cell in section.cells}
        cells = {cell: found for cell, found in cells.items() if found}
        if cells:
            key = f"{name}-curve-{len(pictures) + 1}"
            svg = figures.curves(key, f"Learning curve: {task}", cells, style)
            pictures.append(Picture(key, task, _ends(cells), svg, _curve_table(task, cells)))
    if not pictures:
        return None
    text = [
        "Returns of the evaluations during training. Thick lines are means over seeds, at "
        "iterations that all seeds have reached; thin lines are seeds."
    ]
    without = [str(cell) for cell in section.cells if not _has_curves(section.records, cell)]
    if without:
        text.append(f"No curves are recorded for {', '.join(without)}.")
    return Block(title="Learning curves", text=text, pictures=pictures)


def costs(section: Section) -> Block | None:
    """Training's cost by cell; None where none is recorded."""
    columns = [
        Column("cell", numeric=False),
        *map(Column, ("PFLOP", "hours", "return per PFLOP", "return per hour")),
        Column("hardware", numeric=False),
    ]
    numbers = ("petaflops", "hours", "return_per_petaflop", "return_per_hour")
    rows = [
        [
            Field(str(cost.cell)),
            *(Field.rough(getattr(cost, number)) for number in numbers),
            Field(cost.hardware or NONE),
        ]
        for cost in section.costs
        if any(getattr(cost, number) is not None for number in numbers)
    ]
    if not rows:
        return None
    notes = [
        f"{NONE}: not recorded. Hours are comparable on the same hardware only. The pretraining of "
        "a world model counts once in a cell, in however many runs it was used."
    ]
    if len({_work(section.records, cost.cell) for cost in section.costs}) > 1:
        notes.append(
            "Cells differ in tasks or seeds: a cell's cost, and its return for it, are of its own."
        )
    title = "Cost of training, all tasks and seeds of a cell"
    return Block(title="Cost", tables=[Table(title, columns, rows, notes)])


def _work(records: Sequence[Record], cell: Cell) -> frozenset[tuple[str, str]]:
    """Every (task, seed) of a cell."""
    mine = [record.scores for record in records if record.cell == cell]
    return frozenset((task, seed) for tasks in mine for task, by in tasks.items() for seed in by)


def model_errors(section: Section, name: str, style: Mapping[str, Style]) -> Block | None:
    """The world models' errors by horizon; None where none is recorded."""
    errors = {kind: dict(sorted(found.items())) for kind, found in section.model_errors.items()}
    errors = {kind: found for kind, found in errors.items() if found}
    if not errors:
        return None
    columns = [Column("horizon"), *(Column(kind) for kind in errors)]
    horizons = sorted({horizon for found in errors.values() for horizon in found})
    rows = [
        [Field(str(h), h), *(Field.rough(found.get(h)) for found in errors.values())]
        for h in horizons
    ]
    title = "Error of the world models by horizon"
    data = Table("Held-out error of observations, in standard deviations", columns, rows)
    last = "; ".join(
        f"{kind} {significant(found[max(found)])} at {max(found)} steps"
        for kind, found in errors.items()
    )
    svg = figures.model_errors(f"{name}-errors", title, errors, style)
    picture = Picture(f"{name}-errors", title, f"{last}.", svg, data)
    return Block(title="World models", pictures=[picture])


def videos(section: Section) -> Block | None:
    """The recorded episodes, taken into the page; None where there are none."""
    found = [
        _video(f"{record.cell}, {task}, seed {seed}", Path(file))
        for record in section.records
        for (task, seed), file in record.videos.items()
    ]
    return Block(title="Videos", videos=found) if found else None


def _video(title: str, file: Path) -> Video:
    kind = _FORMATS.get(file.suffix.lower())
    if kind is None:
        return Video(title, str(file), problem="not shown: no format that a page can show")
    try:
        size = file.stat().st_size
        if size > LARGEST_VIDEO:
            limit = LARGEST_VIDEO // 2**20
            return Video(title, str(file), problem=f"not shown: larger than {limit} MiB")
        content = file.read_bytes()
    except OSError as error:
        return Video(title, str(file), problem=f"not shown: {error.strerror}")
    uri = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return Video(title, str(file), uri, moving_image=kind.startswith("image/"))


def _has_curves(records: Sequence[Record], cell: Cell) -> bool:
    return any(record.curves for record in records if record.cell == cell)


def _series(records: Sequence[Record], cell: Cell, task: str) -> list[Series]:
    """The curves of all seeds of a cell on a task; empty ones are left out."""
    found = [record.curves.get(task, {}) for record in records if record.cell == cell]
    return [series for seeds in found for series in seeds.values() if series]


def _curve_table(task: str, cells: Mapping[Cell, Sequence[Series]]) -> Table:
    """Means over seeds, and under them the lowest and highest seed."""
    seeds = {cell: [dict(one) for one in found] for cell, found in cells.items()}
    means = {cell: dict(mean_series(list(found))) for cell, found in cells.items()}
    rows = []
    for x in sorted({x for found in means.values() for x in found}):
        row = [Field(f"{x:,.0f}", x)]
        for cell, found in means.items():
            values = [table[int(x)] for table in seeds[cell]] if x in found else []
            note = f"{min(values):.1f} to {max(values):.1f}" if len(values) > 1 else ""
            row.append(Field(f"{found[x]:.1f}", found[x], note) if values else Field(NONE))
        rows.append(row)
    columns = [Column("iteration"), *(Column(str(cell)) for cell in cells)]
    notes = ["Mean over seeds; under it the lowest and the highest seed."]
    return Table(f"Returns during training: {task}", columns, rows, notes)


def _ends(cells: Mapping[Cell, Sequence[Series]]) -> str:
    """The last evaluation of each cell, in a sentence."""
    parts = []
    for cell, found in cells.items():
        last = [value for value in (series[-1][1] for series in found) if math.isfinite(value)]
        if last:
            parts.append(f"{cell} {statistics.fmean(last):.1f}")
    return f"At the end: {'; '.join(parts)}." if parts else ""
