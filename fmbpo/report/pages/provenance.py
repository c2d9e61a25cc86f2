"""Where the numbers come from: the basis of the runs, their health, their provenance."""

from __future__ import annotations

from operator import attrgetter

import attrs

from fmbpo.compare.comparison import Basis, Record, Section
from fmbpo.report.pages.content import Block, Column, Field, Table, words
from fmbpo.runs.findings import Finding

_BASIS = tuple(field.name for field in attrs.fields(Basis))


def basis(section: Section) -> Table:
    """What all runs of the section share; if bases were mixed, each has a column."""

    def name(field: str) -> Field:
        differs = len({getattr(one, field) for one in section.bases}) > 1
        return Field(field, note="differs", tone="warning") if differs else Field(field)

    def column(number: int, one: Basis) -> Column[str]:
        title = f"basis {number}" if len(section.bases) > 1 else "all runs"
        return words(title, lambda field: str(getattr(one, field)))

    columns = [column(number, one) for number, one in enumerate(section.bases, 1)]
    title, columns = "What the numbers rest on", [Column("", name, numeric=False), *columns]
    return Table.of(title, columns, _BASIS, sortable=False)


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
    return Block(title="Health", text=text, tables=[Table.of("Failed gates", columns, found)])


def provenance(section: Section) -> Block:
    """Every run, with everything that its numbers rest on."""
    paths = ("name", "cell", "experiment", "phase", *(f"basis.{name}" for name in _BASIS),
             "checkpoint", "hardware", "source")  # fmt: skip

    def column(path: str) -> Column[Record]:
        title = "run" if path == "name" else path.removeprefix("basis.")
        return words(title, lambda record: str(attrgetter(path)(record)))

    table = Table.of("Runs", [column(path) for path in paths], section.records)
    return Block(title="Provenance", tables=[table])
