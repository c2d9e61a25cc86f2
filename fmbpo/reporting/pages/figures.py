"""The report's figures with lines: performance profiles, learning curves, errors of world models.

Each function returns an ``svg`` element with the id ``name`` (``svg``); ``style``: the look of each
cell or world model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fmbpo.compare.comparison import Cell, Profile, Progress, Series
from fmbpo.reporting.curves import columns_of, mean_series
from fmbpo.reporting.pages.svg import PAPER, Looks, Style, draw, label, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def profiles(name: str, title: str, found: Sequence[Profile], style: Looks) -> str:
    """The share of runs above each score, with its band."""

    def paint(figure: Figure, axes: Axes) -> None:
        for profile in found:
            look, x = style[profile.cell], list(profile.thresholds)
            axes.fill_between(
                x, list(profile.low), list(profile.high), color=look.colour, alpha=0.13, lw=0
            )
            _line(axes, x, profile.share, look, str(profile.cell), markevery=max(1, len(x) // 8))
        axes.set_ylim(-0.02, 1.02)
        _frame(figure, axes, "score τ (return / 1000)", "share of runs above τ")

    words = "The share of each cell's runs with a score above each threshold, with 95 % bands."
    return draw(name, title, words, 3.9, paint)


def curves(
    name: str,
    title: str,
    cells: Mapping[Cell, Sequence[Series]],
    style: Looks,
    quantity: str = "return",
) -> str:
    """A quantity against iteration: every seed a thin line, their mean a thick one."""

    def paint(figure: Figure, axes: Axes) -> None:
        top = [0.0]
        for cell, seeds in cells.items():
            look = style[cell]
            for series in seeds if len(seeds) > 1 else ():
                axes.plot(*columns_of(series), color=look.colour, lw=0.8, alpha=0.45)
            x, y = columns_of(mean_series(seeds))
            _line(axes, x, y, look, str(cell), markevery=max(1, len(x) // 6))
            top += [v for series in seeds for _, v in series if math.isfinite(v)]
        axes.set_ylim(min(0.0, *top) * 1.05, max(top) * 1.06 or 1.0)
        axes.locator_params(axis="x", nbins=5)
        _frame(figure, axes, "iteration", quantity)

    words = (
        f"The {quantity} against the iteration of training: a thin line for each seed, "
        "a thick one for their mean."
    )
    return draw(name, title, words, 3.6, paint)


def operations(name: str, title: str, found: Sequence[Progress], style: Looks) -> str:
    """Mean return over all tasks against operations: a line for each cell, with its interval."""

    def paint(figure: Figure, axes: Axes) -> None:
        top = [0.0]
        for one in found:
            look, x = style[one.cell], [petaflops for petaflops, _ in one.points]
            y = [estimate.value for _, estimate in one.points]
            low, high = ([getattr(e, end) for _, e in one.points] for end in ("low", "high"))
            if None not in low:
                axes.fill_between(x, low, high, color=look.colour, alpha=0.13, lw=0)
            _line(axes, x, y, look, str(one.cell), markevery=max(1, len(x) // 6))
            top += y
        # With few seeds an interval can be wider than all returns.
        axes.set_ylim(min(0.0, *top) - 0.02, max(top) * 1.25 or 1.0)
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=5)
        _frame(figure, axes, "operations of training (PFLOP)", "mean return / 1000")

    words = (
        "The mean return over all tasks against the floating-point operations of training, with "
        "95 % intervals. A line begins at the operations of its pretraining."
    )
    return draw(name, title, words, 3.6, paint)


def model_errors(
    name: str, title: str, errors: Mapping[str, Mapping[int, float]], style: Mapping[str, Style]
) -> str:
    """The held-out error of each kind of world model by horizon."""

    def paint(figure: Figure, axes: Axes) -> None:
        for kind, found in errors.items():
            _line(axes, list(found), list(found.values()), style[kind], kind, ms=6.5)
        ticks = sorted({horizon for found in errors.values() for horizon in found})
        if len(ticks) > 1 and ticks[0] > 0:
            axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        _frame(figure, axes, "horizon (agent steps)", "error (standard deviations)")

    words = "The held-out error of predicted observations against the horizon of prediction."
    return draw(name, title, words, 3.6, paint)


def _line(
    axes: Axes, x: Sequence[float], y: Sequence[float], look: Style, name: str, **more: Any
) -> None:
    """A line with markers, named in the legend; ``more``: matplotlib's properties of lines."""
    axes.plot(
        x, y, color=look.colour, ls=look.dash, lw=2, marker=look.marker, mec=PAPER, mew=0.6,
        label=label(name, 40), **{"ms": 5, **more},
    )  # fmt: skip


def _frame(figure: Figure, axes: Axes, x: str, y: str) -> None:
    """Name both axes, the vertical one above its end; add a grid and the legend."""
    axes.set_xlabel(x)
    axes.set_title(y, loc="left", fontsize=12, pad=8)
    axes.grid()
    legend(figure, axes)
