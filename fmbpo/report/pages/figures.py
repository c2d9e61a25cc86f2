"""The report's figures: returns, effects, performance profiles, curves, model errors.

Each function returns an ``svg`` element; ``name`` is its id on the page, ``style`` the look of each
cell or world model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fmbpo.compare.comparison import OVERALL, CellResult, Estimate, Profile
from fmbpo.compare.record import Cell, Series
from fmbpo.report.curves import columns_of, mean_series
from fmbpo.report.pages.svg import (
    INK,
    MUTED,
    PAPER,
    Style,
    draw,
    frame,
    label,
    legend,
    line,
    rows,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ALL_TASKS = "all tasks"
"""The name of the row over all tasks."""
MOST_RETURN, RETURN_EDGE = 1000.0, 40.0
"""The largest possible return, and how far an axis of returns extends beyond it."""
_LEVELS = (("PWM, published", "pwm", "-"), ("TD-MPC2, published", "tdmpc2", (0, (2, 1.4))))


def returns(
    name: str,
    title: str,
    tasks: Mapping[str, Sequence[CellResult]],
    style: Mapping[Cell, Style],
) -> str:
    """A band for each task: the mean and interval of each cell, its seeds, published returns."""

    def paint(figure: Figure, axes: Axes) -> None:
        seen: set[str] = set()

        def once(words: str) -> str:
            # A leading underscore keeps a line out of the legend.
            found = "_" if words in seen else words
            seen.add(words)
            return found

        rows(axes, list(tasks))
        for row, found in enumerate(tasks.values()):
            for place, result in enumerate(found):
                y = row + 0.62 * ((place + 0.5) / len(found) - 0.5)
                look = style[result.cell]
                axes.plot(
                    result.values, [y] * len(result.values), "o",
                    ms=3.2, color=look.colour, alpha=0.45, mew=0,
                )  # fmt: skip
                _point(axes, result.mean, y, look.colour, look.marker, 6.0)
                axes.plot(
                    [], [], look.marker, color=look.colour, ms=6, mec=PAPER, mew=0.6,
                    label=once(label(str(result.cell), 40)),
                )  # fmt: skip
            for words, field, dash in _LEVELS:
                levels = {getattr(result, field) for result in found} - {None}
                for level in levels:
                    axes.plot(
                        [level, level], [row - 0.36, row + 0.36], color=INK, ls=dash, lw=1.3,
                        label=once(words), zorder=1.5,
                    )  # fmt: skip
        for between in range(1, len(tasks)):
            axes.axhline(between - 0.5, color=MUTED, lw=0.4, ls=(0, (1, 3)))
        low, high = axes.get_xlim()
        axes.set_xlim(max(min(0.0, low), -RETURN_EDGE), min(high, MOST_RETURN + RETURN_EDGE))
        axes.set_xlabel("return")
        legend(figure, axes)

    most = max(map(len, tasks.values()))
    row = 0.2 + 0.19 * most if len(tasks) <= 8 else 0.12 + 0.12 * most
    words = (
        "The mean return of each cell on each task with its 95 % interval; small dots are seeds. "
        "Published returns of PWM and TD-MPC2 are marked if they are known. An interval that "
        "reaches the edge extends beyond it: with few seeds it can be wider than 0 to 1000."
    )
    return draw(name, title, words, 1.2 + len(tasks) * row, paint)


def forest(name: str, title: str, differences: Mapping[str, Estimate], style: Style) -> str:
    """Differences of returns / 1000 with their intervals by task; ``OVERALL`` is all tasks."""

    def paint(figure: Figure, axes: Axes) -> None:
        rows(axes, [task or ALL_TASKS for task in differences])
        axes.axvline(0.0, color=INK, lw=0.9)
        for row, (task, found) in enumerate(differences.items()):
            marker, size = ("o", 6.5) if task else ("D", 8.0)
            _point(axes, found, row, style.colour, marker, size, hollow=not _decided(found))
            if task == OVERALL and len(differences) > 1:
                axes.axhline(row + 0.5, color=MUTED, lw=0.6)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -0.02), max(high, 0.02))
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("difference in return / 1000")

    words = (
        "Differences with 95 % intervals, over all tasks (diamond) and for each task. "
        "Filled if the interval excludes 0."
    )
    return draw(name, title, words, 0.85 + 0.31 * len(differences), paint)


def profiles(name: str, title: str, found: Sequence[Profile], style: Mapping[Cell, Style]) -> str:
    """The share of runs above each score, with its band."""

    def paint(figure: Figure, axes: Axes) -> None:
        for profile in found:
            look, x = style[profile.cell], list(profile.thresholds)
            axes.fill_between(
                x, list(profile.low), list(profile.high), color=look.colour, alpha=0.13, lw=0
            )
            line(axes, x, profile.share, look, str(profile.cell), every=max(1, len(x) // 8))
        axes.set_ylim(-0.02, 1.02)
        frame(figure, axes, "score τ (return / 1000)", "share of runs above τ")

    words = "The share of each cell's runs with a score above each threshold, with 95 % bands."
    return draw(name, title, words, 3.9, paint)


def curves(
    name: str,
    title: str,
    cells: Mapping[Cell, Sequence[Series]],
    style: Mapping[Cell, Style],
) -> str:
    """Return against iteration: every seed a thin line, their mean a thick one."""

    def paint(figure: Figure, axes: Axes) -> None:
        top = [0.0]
        for cell, seeds in cells.items():
            look = style[cell]
            for series in seeds if len(seeds) > 1 else ():
                axes.plot(*columns_of(series), color=look.colour, lw=0.8, alpha=0.45)
            x, y = columns_of(mean_series(seeds))
            line(axes, x, y, look, str(cell), every=max(1, len(x) // 6))
            top += [v for series in seeds for _, v in series if math.isfinite(v)]
        axes.set_ylim(min(0.0, *top) * 1.05, max(top) * 1.06 or 1.0)
        axes.locator_params(axis="x", nbins=5)
        frame(figure, axes, "iteration", "return")

    words = (
        "Return in evaluation against the iteration of training: a thin line for each seed, "
        "a thick one for their mean."
    )
    return draw(name, title, words, 3.6, paint)


def model_errors(
    name: str, title: str, errors: Mapping[str, Mapping[int, float]], style: Mapping[str, Style]
) -> str:
    """The held-out error of each kind of world model by horizon."""

    def paint(figure: Figure, axes: Axes) -> None:
        for kind, found in errors.items():
            line(axes, list(found), list(found.values()), style[kind], kind, size=6.5)
        ticks = sorted({horizon for found in errors.values() for horizon in found})
        if len(ticks) > 1 and ticks[0] > 0:
            axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        frame(figure, axes, "horizon (agent steps)", "error (standard deviations)")

    words = "The held-out error of predicted observations against the horizon of prediction."
    return draw(name, title, words, 3.6, paint)


def _decided(found: Estimate) -> bool:
    """Whether the interval excludes 0."""
    return found.low is not None and found.high is not None and not found.low <= 0 <= found.high


def _point(
    axes: Axes,
    found: Estimate,
    y: float,
    colour: str,
    marker: str,
    size: float,
    *,
    hollow: bool = False,
) -> None:
    """A number and its interval at height ``y``."""
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [y, y], "-", color=colour, lw=1.8)
    edge, face = (colour, PAPER) if hollow else (PAPER, colour)
    width = 1.6 if hollow else 0.6
    axes.plot(found.value, y, marker, color=face, mec=edge, mew=width, ms=size, zorder=3)
