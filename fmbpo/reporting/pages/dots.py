"""The report's first figures: contrasts as a forest, and returns by task, as dots with intervals.

Each function returns an ``svg`` element with the id ``name`` (``svg``). Both draw returns, those of
MT30 from 0 to 1000, also over all tasks, so that tasks and their mean share an axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from fmbpo.compare.comparison import (
    NO_VERDICT,
    OVERALL,
    UNDECIDED,
    UNIT,
    CellResult,
    Effect,
    Estimate,
)
from fmbpo.reporting.pages.svg import GRID, INK, MUTED, PAPER, Looks, Style, draw, label, legend
from fmbpo.tasks.mt30 import SUITE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ALL_TASKS = "all tasks"
"""The name of the row over all tasks."""
SINGLE_TASKS = "single tasks"
"""The name of the row that has every single task's difference."""
OPEN = (UNDECIDED, NO_VERDICT)
"""The verdicts that name no level."""
_MANY = 8
"""With more tasks, their rows are low."""
_EDGE = 40.0
"""How far an axis of returns extends beyond the possible ones."""
_BEYOND = 1.25
"""How far an axis of differences extends beyond the largest one."""
_MARKS = (
    (INK, "-"),
    (MUTED, (0, (1, 1))),
    (INK, (0, (3, 1))),
    (INK, (0, (3, 1, 1, 1))),
    (MUTED, "-"),
    (MUTED, "-"),
)
"""Colour and dash of each reference's mark."""

References = Mapping[str, Mapping[str, float]]
"""Name -> task -> return."""


def bounded(tasks: Iterable[str]) -> bool:
    """Whether the returns of these tasks are from 0 to 1000, as those of MT30 are."""
    return all(task in SUITE for task in tasks if task != OVERALL)


def in_returns(estimate: Estimate, task: str) -> Estimate:
    """The number and its interval as returns."""
    unit = UNIT if task == OVERALL else 1.0
    low, high = (None if end is None else end * unit for end in (estimate.low, estimate.high))
    return Estimate(estimate.value * unit, low, high)


def returns(
    name: str,
    title: str,
    tasks: Mapping[str, Sequence[CellResult]],
    references: References,
    style: Looks,
) -> str:
    """A row for each task: the mean and interval of each cell, its seeds, and the references."""

    def paint(figure: Figure, axes: Axes) -> None:
        _rows(axes, [(row, task or ALL_TASKS) for row, task in enumerate(tasks)])
        for row, (task, found) in enumerate(tasks.items()):
            for place, result in enumerate(found):
                y = row + 0.66 * ((place + 0.5) / len(found) - 0.5)
                look, unit = style[result.cell], UNIT if task == OVERALL else 1.0
                axes.plot(
                    [value * unit for value in result.values], [y] * len(result.values), "o",
                    ms=4.6, color=look.colour, alpha=0.4, mew=0,
                )  # fmt: skip
                _point(axes, in_returns(result.mean, task), y, look, 6.0 if few else 4.5)
                axes.plot(
                    [], [], look.marker, color=look.colour, ms=6, mec=PAPER, mew=0.6,
                    label=label(str(result.cell), 40),
                )  # fmt: skip
            for (words, levels), (colour, dash) in zip(
                references.items(), itertools.cycle(_MARKS), strict=False
            ):
                if task in levels:
                    axes.plot(
                        [levels[task]] * 2, [row - 0.4, row + 0.4], color=colour, ls=dash, lw=1.5,
                        label=words, zorder=1.5,
                    )  # fmt: skip
            if row:
                solid = OVERALL in tasks and row == 1
                axes.axhline(row - 0.5, color=MUTED, lw=0.6, ls="-" if solid else (0, (1, 3)))
        if known:
            low, high = axes.get_xlim()
            axes.set_xlim(max(min(0.0, low), -_EDGE), min(high, UNIT + _EDGE))
        axes.set_xlabel("return (0 to 1000)" if known else "return")
        legend(figure, axes)

    known = bounded(tasks)
    few, most = len(tasks) <= _MANY + 1, max(map(len, tasks.values()))
    row = 0.2 + 0.16 * most if few else 0.1 + 0.06 * most
    description = (
        "The mean return of each cell on each task with its 95 % interval; faint dots are single "
        "seeds. Vertical marks are the returns of others, as far as they are known."
    )
    if known:
        description += (
            " An interval that reaches the edge extends beyond it: with few replicates it can be "
            "wider than 0 to 1000."
        )
    return draw(name, title, description, 1.3 + len(tasks) * row, paint)


def forest(
    name: str,
    title: str,
    effects: Mapping[str, Sequence[Effect]],
    style: Mapping[str, Style],
    *,
    strip: bool,
    margin: float = 0.0,
) -> str:
    """Differences with their intervals, under the heading of each contrast.

    The rows are all tasks and each task, or, as a ``strip``, all tasks and the differences of all
    single tasks side by side. A point is filled if its verdict names a level. ``margin``, of
    returns / ``UNIT``: half the width of a band around 0.
    """
    rows = list(_forest_rows(effects, strip))

    def paint(figure: Figure, axes: Axes) -> None:
        from matplotlib.transforms import blended_transform_factory

        _rows(axes, [(y, row.name) for y, row in enumerate(rows) if row.effects])
        low, high = _range([effect for row in rows for effect in row.effects])
        axes.set_xlim(low, high)
        axes.axvline(0.0, color=INK, lw=0.9)
        if margin:
            axes.axvspan(-margin * UNIT, margin * UNIT, color=GRID, alpha=0.7, lw=0, zorder=0)
        across = blended_transform_factory(figure.transFigure, axes.transData)
        for y, row in enumerate(rows):
            look = style[row.heading]
            if not row.effects:
                axes.text(
                    0.004, y + 0.08, label(row.name, 58), transform=across, weight="bold",
                    va="center", size=11.5, in_layout=False,
                )  # fmt: skip
            for effect in row.effects:
                found, hollow = in_returns(effect.difference, effect.task), effect.verdict in OPEN
                if row.strip:
                    edge, face = look.colour, PAPER if hollow else look.colour
                    axes.plot(found.value, y, "o", color=face, mec=edge, mew=1.0, ms=5)
                    continue
                marker, size = ("o", 5.5) if effect.task else ("D", 7.0)
                _point(axes, found, y, attrs.evolve(look, marker=marker), size, hollow=hollow)
                for end, out, arrow in (
                    (low, found.low is not None and found.low < low, "<"),
                    (high, found.high is not None and found.high > high, ">"),
                ):
                    if out:
                        axes.plot(end, y, arrow, color=look.colour, ms=5, mew=0, clip_on=False)
        axes.locator_params(axis="x", nbins=5)
        known = bounded(effect.task for found in effects.values() for effect in found)
        axes.set_xlabel("difference in return (of 1000)" if known else "difference in return")

    description = (
        "Differences in return with 95 % intervals, over all tasks (diamonds) and on single tasks "
        "(circles). Filled if there is a verdict, on single tasks after Holm's correction. An "
        "arrow marks an interval that extends beyond the figure."
    )
    return draw(name, title, description, 0.62 + 0.225 * len(rows), paint)


@attrs.frozen
class _Row:
    """A row of a forest under its heading; without effects it is the heading."""

    heading: str
    name: str
    effects: Sequence[Effect] = ()
    strip: bool = False


def _forest_rows(effects: Mapping[str, Sequence[Effect]], strip: bool) -> Iterator[_Row]:
    for heading, found in effects.items():
        yield _Row(heading, heading)
        single = [effect for effect in found if effect.task != OVERALL]
        yield from (_Row(heading, ALL_TASKS, [e]) for e in found if e.task == OVERALL)
        if strip and single:
            yield _Row(heading, SINGLE_TASKS, single, strip=True)
        elif not strip:
            yield from (_Row(heading, effect.task, [effect]) for effect in single)


def _range(effects: Sequence[Effect]) -> tuple[float, float]:
    """The ends of the axis: intervals over all tasks fit, those of single tasks need not.

    Otherwise the interval of one noisy task would hide all other differences.
    """
    shown = [(effect.task, in_returns(effect.difference, effect.task)) for effect in effects]
    ends = [x.value * _BEYOND for _, x in shown]
    over = [x for task, x in shown if task == OVERALL] or [x for _, x in shown]
    ends += [end for x in over for end in (x.low, x.high) if end is not None]
    room = 0.06 * max(max(ends, default=0.0) - min(ends, default=0.0), 10.0)
    return min(0.0, *ends) - room, max(0.0, *ends) + room


def _point(
    axes: Axes, found: Estimate, y: float, look: Style, size: float, hollow: bool = False
) -> None:
    """A number and its interval at height ``y``."""
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [y, y], "-", color=look.colour, lw=1.6)
    edge, face, width = (look.colour, PAPER, 1.6) if hollow else (PAPER, look.colour, 0.6)
    axes.plot(found.value, y, look.marker, color=face, mec=edge, mew=width, ms=size, zorder=3)


def _rows(axes: Axes, names: Sequence[tuple[int, str]]) -> None:
    """Name rows down the left side, the first on top, with vertical grid lines."""
    axes.set_yticks([y for y, _ in names], [label(name) for _, name in names])
    axes.set_ylim(max(y for y, _ in names) + 0.6, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
