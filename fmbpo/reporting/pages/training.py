"""Runs as readers see them: their basis, curves, cost, model errors, health, videos, provenance."""

from __future__ import annotations

import base64
import math
import statistics
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path

import attrs

from fmbpo.base.files import display
from fmbpo.base.text import NONE
from fmbpo.compare.comparison import Basis, Cell, Cost, Estimate, Record, Section, Series
from fmbpo.compare.reading import VIDEOS
from fmbpo.reporting.curves import mean_series
from fmbpo.reporting.pages import figures
from fmbpo.reporting.pages.content import (
    Block,
    Column,
    Field,
    Picture,
    Table,
    Video,
    decimal,
    significant,
    words,
)
from fmbpo.reporting.pages.svg import Looks, Style
from fmbpo.runs.findings import Finding

_BASIS = tuple(field.name for field in attrs.fields(Basis))
LARGEST_VIDEO = 20 * 2**20
"""The size in bytes of the largest video that the page holds."""


def curves(section: Section, name: str, style: Looks) -> Block | None:
    """A figure for each task; None if no run has curves."""
    known = [task for record in section.records for task in record.scores]
    pictures: list[Picture] = []
    for task in dict.fromkeys([*section.tasks, *known]):
        found = {cell: _series(section.records, cell, task) for cell in section.cells}
        if cells := {cell: series for cell, series in found.items() if series}:
            key = f"{name}-curve-{len(pictures) + 1}"
            svg = figures.curves(key, f"Learning curve: {task}", cells, style)
            pictures.append(Picture(key, task, _ends(cells), svg, _curve_table(task, cells)))
    if not pictures:
        return None
    text = [
        "Returns of the evaluations during training. Thick lines are means over policies, "
        "at iterations that all of them have reached; thin lines are policies."
    ]
    drawn = {record.cell for record in section.records if record.curves}
    without = [str(cell) for cell in section.cells if cell not in drawn]
    if without:
        text.append(f"No curves are recorded for {', '.join(without)}.")
    return Block(title="Learning curves", text=text, pictures=pictures)


def costs(section: Section, name: str, style: Looks) -> Block | None:
    """The cost of training by cell, and returns against it; None if none is recorded."""

    def evaluations(title: str, place: int) -> Column[Cost]:
        def field(cost: Cost) -> Field:
            return Field.number(cost.evaluations[place] if cost.evaluations else None, 0)

        return Column(title, field, group="network evaluations per step")

    columns: list[Column[Cost]] = [
        words("cell", lambda cost: str(cost.cell)),
        Column("PFLOP", lambda cost: Field.rough(cost.petaflops)),
        Column("hours", lambda cost: Field.rough(cost.hours)),
        evaluations("world model", 0),
        evaluations("policy", 1),
        words("hardware", lambda cost: cost.hardware),
    ]
    recorded = [c for c in section.costs if c.petaflops is not None or c.hours is not None]
    if not recorded:
        return None
    notes = [
        f"{NONE}: not recorded. Compare hours on the same hardware only. The pretraining of a "
        "world model counts once per cell, however many of the cell's runs used it."
    ]
    work = {
        frozenset((t, s) for r in section.records if r.cell == cost.cell for t, s, _ in r.policies)
        for cost in section.costs
    }
    if len(work) > 1:
        notes.append(
            "Cells differ in tasks or seeds: the cost of each cell covers its own tasks and seeds."
        )
    title = "Cost of training, all tasks and seeds of a cell"
    table = Table(title, columns, recorded, notes)
    return Block(title="Cost", tables=[table], pictures=_progress(section, name, style))


def _progress(section: Section, name: str, style: Looks) -> list[Picture]:
    """A figure of returns against operations; none if no cell has curves and a recorded cost."""
    if not section.progress:
        return []
    key, title = f"{name}-operations", "Return against operations"
    rows = [(found.cell, *point) for found in section.progress for point in found.points]
    columns: list[Column[tuple[Cell, float, Estimate]]] = [
        words("cell", lambda row: str(row[0])),
        Column("PFLOP", lambda row: Field.rough(row[1])),
        Column("return / 1000", lambda row: Field.estimate(row[2], 3)),
    ]
    ends = "; ".join(
        f"{found.cell} {decimal(found.points[-1][1].value, 3)} "
        f"at {significant(found.points[-1][0])} PFLOP"
        for found in section.progress
    )
    svg = figures.operations(key, title, section.progress, style)
    return [Picture(key, title, f"At the end: {ends}.", svg, Table(title, columns, rows))]


def model_errors(section: Section, name: str, style: Mapping[str, Style]) -> Block | None:
    """The world models' errors by horizon; None if none is recorded."""
    errors = {kind: dict(sorted(by.items())) for kind, by in section.model_errors.items() if by}
    if not errors:
        return None

    def column(kind: str) -> Column[int]:
        return Column(kind, lambda horizon: Field.rough(errors[kind].get(horizon)))

    columns = [Column[int]("horizon", lambda h: Field(str(h), h)), *map(column, errors)]
    horizons = sorted({horizon for found in errors.values() for horizon in found})
    title = "Error of the world models by horizon"
    data = Table("Held-out error of observations, in standard deviations", columns, horizons)
    last = "; ".join(
        f"{kind} {significant(found[max(found)])} at {max(found)} steps"
        for kind, found in errors.items()
    )
    svg = figures.model_errors(f"{name}-errors", title, errors, style)
    picture = Picture(f"{name}-errors", title, f"{last}.", svg, data)
    return Block(title="World models", pictures=[picture])


def videos(section: Section) -> Block | None:
    """The recorded episodes, embedded in the page; None if there are none."""
    found = [
        _video(f"{record.cell}, {task}, seed {seed}", Path(file))
        for record in section.records
        for (task, seed), file in record.videos.items()
    ]
    return Block(title="Videos", videos=found) if found else None


def _video(title: str, file: Path) -> Video:
    kind = VIDEOS[file.suffix.lower()]
    uri = problem = ""
    try:
        if file.stat().st_size > LARGEST_VIDEO:
            problem = f"not shown: larger than {LARGEST_VIDEO // 2**20} MiB"
        else:
            uri = f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
    except OSError as error:
        problem = f"not shown: {error.strerror}"
    return Video(title, display(file), uri, kind.startswith("image/"), problem)


def _series(records: Sequence[Record], cell: Cell, task: str) -> list[Series]:
    """The curves of all seeds of a cell on a task, without empty ones."""
    found = [record.curves.get(task, {}) for record in records if record.cell == cell]
    return [series for seeds in found for series in seeds.values() if series]


def _curve_table(task: str, cells: Mapping[Cell, Sequence[Series]]) -> Table:
    """Means over seeds, and under them the lowest and highest seed."""
    means = {cell: dict(mean_series(found)) for cell, found in cells.items()}

    def column(cell: Cell) -> Column[int]:
        def field(iteration: int) -> Field:
            if iteration not in means[cell]:
                return Field(NONE)
            mean = means[cell][iteration]
            values = [value for series in cells[cell] for x, value in series if x == iteration]
            note = f"{min(values):.1f} to {max(values):.1f}" if len(values) > 1 else ""
            return Field(f"{mean:.1f}", mean, note)

        return Column(str(cell), field)

    columns = [Column[int]("iteration", lambda x: Field(f"{x:,.0f}", x)), *map(column, cells)]
    iterations = sorted({x for found in means.values() for x in found})
    notes = ["Mean over seeds; under it the lowest and the highest seed."]
    return Table(f"Returns during training: {task}", columns, iterations, notes)


def _ends(cells: Mapping[Cell, Sequence[Series]]) -> str:
    """The last evaluation of each cell, in a sentence."""
    parts = []
    for cell, found in cells.items():
        last = [value for value in (series[-1][1] for series in found) if math.isfinite(value)]
        if last:
            parts.append(f"{cell} {statistics.fmean(last):.1f}")
    return f"At the end: {'; '.join(parts)}." if parts else ""


def basis(section: Section) -> Table:
    """The basis that all runs of the section share; if bases were mixed, each has a column."""

    def name(field: str) -> Field:
        differs = len({getattr(one, field) for one in section.bases}) > 1
        return Field(field, note="differs", tone="warning") if differs else Field(field)

    def column(number: int, one: Basis) -> Column[str]:
        title = f"basis {number}" if len(section.bases) > 1 else "all runs"
        return words(title, lambda field: str(getattr(one, field)))

    columns = [column(number, one) for number, one in enumerate(section.bases, 1)]
    columns = [Column("", name, numeric=False), *columns]
    return Table("Basis of the numbers", columns, _BASIS, sortable=False)


def health(section: Section) -> Block:
    """The failed gates of every run."""
    found = [(record, finding) for record in section.records for finding in record.health]
    if not found:
        return Block(title="Health", text=["No failed health gate is recorded for these runs."])
    columns: list[Column[tuple[Record, Finding]]] = [
        words("run", lambda row: row[0].name),
        words("where", lambda row: row[1].where or "the run"),
        Column("gate", lambda row: Field(row[1].gate, tone="warning"), numeric=False),
        words("message", lambda row: row[1].message),
        words("detail", lambda row: row[1].detail),
        Column("since iteration", lambda row: Field.number(row[1].since, 0)),
    ]
    failed = sum(bool(record.health) for record in section.records)
    text = [f"Gates failed in {failed} of {len(section.records)} runs."]
    return Block(title="Health", text=text, tables=[Table("Failed gates", columns, found)])


def provenance(section: Section) -> Block:
    """Every run, with the basis and the origin of its numbers."""
    paths = ("name", "cell", "experiment", "phase", *(f"basis.{name}" for name in _BASIS),
             "checkpoint", "hardware", "source")  # fmt: skip

    def column(path: str) -> Column[Record]:
        title = "run" if path == "name" else path.removeprefix("basis.")
        of, text = attrgetter(path), display if path == "source" else str
        return words(title, lambda record: text(of(record)))

    table = Table("Runs", [column(path) for path in paths], section.records)
    return Block(title="Provenance", tables=[table])
