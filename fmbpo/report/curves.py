"""Pictures of curves as PNG files: learning, pretraining, and the cells of a study together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from fmbpo.compare.record import Series
from fmbpo.report.canvas import (
    BLUE,
    COLOURS,
    DASHES,
    GREEN,
    GREY,
    PURPLE,
    RED,
    SKY,
    Heading,
    new_figure,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


@attrs.frozen
class TaskCurves:
    """A panel of learning curves: returns by seed, and reference returns (None: unknown)."""

    seeds: Mapping[str, Series]
    random: float | None = None
    planner: float | None = None
    pwm: float | None = None


@attrs.frozen
class HorizonErrors:
    """A panel of held-out errors by horizon (agent steps): each line by its name in ``_ERRORS``.

    The copy baseline predicts ``z[t+1] = z[t]``, the task's mean the same value at all steps.
    "before" is the world model's error before it learned beside the policies.
    """

    measure: str
    horizons: Sequence[int]
    lines: Mapping[str, Sequence[float]]


@attrs.frozen
class CellCurves:
    """A panel of a study: a curve per seed of each cell, and the real quantity (empty: unknown)."""

    cells: Mapping[str, Mapping[str, Series]]
    real: Series = ()


_LEVELS = {
    "planner (true simulator)": ("planner", GREEN, (0, (5, 2))),
    "PWM, published": ("pwm", PURPLE, (0, (5, 1.5, 1, 1.5))),
    "random": ("random", GREY, (0, (1, 1.5))),
}
_ERRORS = {
    "world model": ("o-", BLUE, 2.0),
    "before": ("^-.", SKY, 1.5),
    "copy baseline": ("s--", RED, 1.5),
    "task's mean": (":", GREY, 1.5),
}


def learning_curves(path: Path, heading: Heading, tasks: Mapping[str, TaskCurves]) -> None:
    """One panel per task: return against iteration, a thin line per seed and their mean.

    Raises ``ValueError`` without tasks, ``UserError`` if ``path`` cannot be written.
    """
    if not tasks:
        raise ValueError("no task to draw")
    columns = min(len(tasks), 3 if len(tasks) <= 9 else 5)
    figure, axes = new_figure(heading, len(tasks), columns)
    lines: dict[str, Line2D] = {}
    for place, (axis, (name, curves)) in enumerate(zip(axes, tasks.items(), strict=True)):
        _draw_task(axis, curves, lines)
        axis.set_title(name)
        if place % columns == 0:
            axis.set_ylabel("return")
        if place + columns >= len(tasks):
            axis.set_xlabel("iteration")
    order = [name for name in ("mean of seeds", "one seed", *_LEVELS) if name in lines]
    save(figure, path, {name: lines[name] for name in order})


def pretraining_curves(
    path: Path,
    heading: Heading,
    losses: Mapping[str, Series],
    errors: Sequence[HorizonErrors],
) -> None:
    """The training losses in the first panel, then held-out errors by horizon, one panel each.

    Raises ``ValueError`` with nothing to draw, ``UserError`` if ``path`` cannot be written.
    """
    panels = bool(losses) + len(errors)
    if not panels:
        raise ValueError("nothing to draw")
    figure, axes = new_figure(heading, panels, min(panels, 3), width=4.4, height=3.4, legend=False)
    if losses:
        _draw_losses(axes[0], losses)
    for axis, error in zip(axes[bool(losses) :], errors, strict=True):
        for name, (style, colour, width) in _ERRORS.items():
            if name in error.lines:
                y = error.lines[name]
                axis.plot(error.horizons, y, style, color=colour, lw=width, label=name)
        axis.set_xscale("log", base=2)
        axis.set_xticks(error.horizons, [str(h) for h in error.horizons])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_title(error.measure)
        axis.set_xlabel("horizon (agent steps)")
        axis.set_ylabel("held-out error")
        axis.legend(frameon=False)
    save(figure, path)


def study_curves(
    path: Path, heading: Heading, panels: Mapping[str, CellCurves], *, columns: int
) -> None:
    """One panel per title: every cell's mean over seeds, and its seeds as thin lines.

    Raises ``ValueError`` without panels, ``UserError`` if ``path`` cannot be written.
    """
    if not panels:
        raise ValueError("nothing to draw")
    figure, axes = new_figure(heading, len(panels), columns, width=4.2)
    lines: dict[str, Line2D] = {}
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        for place, (name, seeds) in enumerate(panel.cells.items()):
            colour, dash = _colour_and_dash(place)
            for series in seeds.values() if len(seeds) > 1 else ():
                axis.plot(*columns_of(series), color=colour, lw=0.8, ls=dash, alpha=0.5)
            if seeds:
                mean = columns_of(mean_series(list(seeds.values())))
                line = axis.plot(*mean, color=colour, lw=2.2, ls=dash)
                lines.setdefault(name, line[0])
        if panel.real:
            line = axis.plot(*columns_of(panel.real), color=GREY, lw=1.4, ls=":")
            lines.setdefault("real reward", line[0])
        axis.axhline(0.0, color="#B0B0B0", lw=0.8)
        axis.set_title(title, fontsize=10.5)
        axis.set_xlabel("iteration")
    save(figure, path, lines)


def _draw_task(axis: Axes, curves: TaskCurves, lines: dict[str, Line2D]) -> None:
    # A curve of one evaluation would be invisible as a line.
    marker = "o" if all(len(series) < 3 for series in curves.seeds.values()) else None
    alone = len(curves.seeds) == 1
    for series in curves.seeds.values():
        colour, width = (BLUE, 2.0) if alone else (SKY, 0.9)
        line = axis.plot(*columns_of(series), marker=marker, color=colour, lw=width)
        lines.setdefault("one seed", line[0])
    if not alone:
        mean = columns_of(mean_series(list(curves.seeds.values())))
        line = axis.plot(*mean, color=BLUE, lw=2.2, marker=marker)
        lines.setdefault("mean of seeds", line[0])
    top = [y for series in curves.seeds.values() for _, y in series if math.isfinite(y)]
    for name, (attribute, colour, dash) in _LEVELS.items():
        level = getattr(curves, attribute)
        if level is not None:
            lines.setdefault(name, axis.axhline(level, color=colour, lw=1.4, ls=dash))
            top.append(level)
    # Returns are not negative in these tasks; a common floor keeps panels comparable.
    highest = max(top, default=0.0)
    axis.set_ylim(min(0.0, *top) if top else 0.0, 1.08 * highest if highest > 0 else 1.0)


def _draw_losses(axis: Axes, losses: Mapping[str, Series]) -> None:
    for place, (name, series) in enumerate(losses.items()):
        colour, dash = _colour_and_dash(place)
        axis.plot(*columns_of(series), color=colour, ls=dash, lw=1.6, label=name)
    values = [value for series in losses.values() for _, value in series if math.isfinite(value)]
    if values and min(values) > 0 and max(values) > 10 * min(values):
        axis.set_yscale("log")
    axis.set_title("training losses")
    axis.set_xlabel("iteration")
    axis.legend(frameon=False)


def _colour_and_dash(place: int) -> tuple[str, str]:
    turn, which = divmod(place, len(COLOURS))
    return COLOURS[which], DASHES[turn % len(DASHES)]


def mean_series(seeds: Sequence[Series]) -> Series:
    """The mean over seeds at the iterations that all of them have reached."""
    tables = [dict(series) for series in seeds]
    shared = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    return [(x, statistics.fmean(table[x] for table in tables)) for x in shared]


def columns_of(series: Series) -> tuple[list[int], list[float]]:
    """Iterations and values."""
    return [x for x, _ in series], [y for _, y in series]
