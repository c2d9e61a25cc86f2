"""The actor's gradients by cell: how noisy they are, and how steep the steps they pass through."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from statistics import fmean

import attrs

from fmbpo.base.metrics import ESNR, GRADIENTS
from fmbpo.base.text import NONE
from fmbpo.compare.comparison import Cell, Effect, Estimate, Section, Series
from fmbpo.reporting.curves import mean_series
from fmbpo.reporting.pages import figures
from fmbpo.reporting.pages.content import (
    LEVEL,
    Block,
    Column,
    Field,
    Picture,
    Table,
    significant,
    words,
)
from fmbpo.reporting.pages.svg import Looks

_TEXT = (
    "Measured beside training. The signal-to-noise ratio of the actor's gradient is over "
    "mini-batches: near 0, a gradient is noise. The others are Frobenius norms of the Jacobians of "
    "the first imagined step (root mean squares over the starts): two of the world model, of the "
    "next latent with respect to latent and action, and one of the policy, of the action with "
    "respect to the latent. They compare models with latents of one width; for the identity, the "
    "first is the root of the width. A line or number is the mean over a replicate's policies."
)


def gradients(section: Section, name: str, style: Looks) -> Block | None:
    """A table of all measures, and a figure of each; None if no run has measured them."""
    found = {metric: _by_cell(section, metric) for metric in GRADIENTS}
    measured = [cell for cell in section.cells if any(cell in cells for cells in found.values())]
    if not measured:
        return None

    def column(metric: str) -> Column[Cell]:
        group = "" if metric == ESNR else "Jacobian"
        return Column(
            GRADIENTS[metric], lambda cell: _field(found[metric].get(cell, [])), group=group
        )

    columns: list[Column[Cell]] = [words("cell", str)]
    columns += [column(metric) for metric, cells in found.items() if cells]
    notes = [
        "Means over the measurements and the replicates; under them the lowest and the highest "
        "replicate."
    ]
    tables = [Table("The actor's gradients, means over training", columns, measured, notes)]
    tables += _ratios(section)
    pictures = [
        _picture(f"{name}-gradients-{number}", metric, cells, style)
        for number, (metric, cells) in enumerate(found.items(), 1)
        if any(len(series) > 1 for each in cells.values() for series in each)
    ]
    return Block(title="Gradients", text=[_TEXT], tables=tables, pictures=pictures)


def _ratios(section: Section) -> list[Table]:
    """The measures' ratios between levels; no table without any."""
    found: dict[str, dict[str, Effect]] = {}
    for metric, effects in section.gradients.items():
        for one in effects:
            found.setdefault(one.name, {})[metric] = one

    def column(metric: str) -> Column[str]:
        def field(contrast: str) -> Field:
            one = found[contrast].get(metric)
            return Field.estimate(_exponential(one.difference) if one else None, 2)

        return Column(GRADIENTS[metric], field, group="" if metric == ESNR else "Jacobian")

    notes = [
        "Of the level named first to the other: geometric means over replicates; an interaction is "
        f"a ratio of ratios. In brackets: {LEVEL} intervals, each for itself. Exploratory."
    ]
    columns: list[Column[str]] = [words("effect", str), *map(column, section.gradients)]
    return [Table("Ratios of these means", columns, found, notes)] if found else []


def _exponential(logarithm: Estimate) -> Estimate:
    value, low, high = attrs.astuple(logarithm)
    return Estimate(exp(value), *(None if end is None else exp(end) for end in (low, high)))


def _by_cell(section: Section, metric: str) -> dict[Cell, list[Series]]:
    """The series of a cell's replicates."""
    found: dict[Cell, list[Series]] = {}
    for record in section.records:
        if series := record.gradients.get(metric):
            found.setdefault(record.cell, []).extend(series.values())
    return found


def _field(replicates: Sequence[Series]) -> Field:
    if not replicates:
        return Field(NONE)
    means = [fmean(value for _, value in series) for series in replicates]
    note = f"{significant(min(means))} to {significant(max(means))}" if len(means) > 1 else ""
    return Field(significant(fmean(means)), fmean(means), note)


def _picture(name: str, metric: str, cells: dict[Cell, list[Series]], style: Looks) -> Picture:
    title = GRADIENTS[metric] if metric == ESNR else f"Jacobian: {GRADIENTS[metric]}"
    quantity = title if metric == ESNR else "root mean square"
    svg = figures.curves(name, title, cells, style, quantity)
    means = {cell: mean_series(each) for cell, each in cells.items()}
    columns: list[Column[tuple[Cell, int, float]]] = [
        words("cell", lambda row: str(row[0])),
        Column("iteration", lambda row: Field(f"{row[1]:,}", row[1])),
        Column(quantity, lambda row: Field.rough(row[2])),
    ]
    table = Table(title, columns, [(cell, *at) for cell, mean in means.items() for at in mean])
    ends = "; ".join(f"{cell} {significant(mean[-1][1])}" for cell, mean in means.items() if mean)
    return Picture(name, title, f"At the end: {ends}.", svg, table)
