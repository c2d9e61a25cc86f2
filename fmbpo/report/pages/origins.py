"""What is said of where the numbers come from: basis, health of runs, provenance."""

from __future__ import annotations

import attrs

from fmbpo.compare.record import Basis
from fmbpo.compare.result import Section
from fmbpo.report.pages.content import Block, Column, Field, Table
from fmbpo.report.table import NONE

BASIS = tuple(field.name for field in attrs.fields(Basis))
"""The parts of a basis, in order."""


def basis(section: Section) -> Table:
    """What all runs of the section share; where several bases were mixed, each in a column."""
    many = len(section.bases) > 1
    heads = [f"basis {n}" for n in range(1, len(section.bases) + 1)] if many else ["all runs"]
    columns = [Column(""), *(Column(head, numeric=False) for head in heads)]
    columns[0] = Column("", numeric=False)
    rows = []
    for name in BASIS:
        values = [str(getattr(one, name)) for one in section.bases]
        differ = len(set(values)) > 1
        title = Field(name, note="differs" if differ else "", tone="warning" if differ else "")
        rows.append([title, *(Field(value or NONE) for value in values)])
    return Table("What the numbers rest on", columns, rows, sortable=False)


def health(section: Section) -> Block:
    """The failed gates of every run."""
    titles = ("run", "where", "gate", "message", "detail")
    columns = [*(Column(title, numeric=False) for title in titles), Column("since iteration")]
    rows = [
        [
            Field(record.name),
            Field(finding.where or "the run"),
            Field(finding.gate, tone="warning"),
            Field(finding.message),
            Field(finding.detail or NONE),
            Field.number(finding.since, 0),
        ]
        for record in section.records
        for finding in record.health
    ]
    if not rows:
        return Block(title="Health", text=["No failed health gate is recorded for these runs."])
    failed = sum(bool(record.health) for record in section.records)
    text = [f"Gates failed in {failed} of {len(section.records)} runs."]
    return Block(title="Health", text=text, tables=[Table("Failed gates", columns, rows)])


def provenance(section: Section) -> Block:
    """Every run, and everything its numbers rest on."""
    titles = (
        "run", "cell", "experiment", "phase", *BASIS, "checkpoint", "hardware", "source",
    )  # fmt: skip
    rows = [
        [
            Field(text or NONE)
            for text in (
                record.name,
                str(record.cell),
                record.experiment,
                record.phase,
                *(str(getattr(record.basis, name)) for name in BASIS),
                record.checkpoint,
                record.hardware,
                record.source,
            )
        ]
        for record in section.records
    ]
    columns = [Column(title, numeric=False) for title in titles]
    return Block(title="Provenance", tables=[Table("Runs", columns, rows)])
