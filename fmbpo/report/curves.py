"""Learning curves and pretraining curves as PNG files."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

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
    add_legend,
    new_page,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series: TypeAlias = Sequence[tuple[float, float]]
"""(iteration, value) in order."""


@attrs.frozen
class TaskCurves:
    """One panel: a return curve per seed, and the levels to hold it against (None: unknown)."""

    seeds: Mapping[str, Series]
    random: float | None = None
    planner: float | None = None
    pwm: float | None = None


@attrs.frozen
class HorizonErrors:
    """A held-out error by horizon (agent steps), beside two that know no dynamics: ``copy`` is
    that of ``z[t+1] = z[t]``, ``constant`` that of each task's mean."""

    measure: str
    horizons: Sequence[int]
    model: Sequence[float]
    copy: Sequence[float] | None = None
    constant: Sequence[float] | None = None
    before: Sequence[float] | None = None
    """The model's own before it learned on."""


def learning_curves(path: Path, heading: Heading, tasks: Mapping[str, TaskCurves]) -> None:
    """One panel a task: return against iteration, a thin line a seed and their mean.

    Raises ``ValueError`` without tasks, ``UserError`` when ``path`` cannot be written.
    """
    if not tasks:
        raise ValueError("no task to draw")
    columns = min(len(tasks), 3 if len(tasks) <= 9 else 5)
    figure, axes = new_page(heading, len(tasks), columns)
    handles: dict[str, Any] = {}
    for place, (axis, (name, curves)) in enumerate(zip(axes, tasks.items(), strict=True)):
        _draw_task(axis, curves, handles)
        axis.set_title(name)
        if place % columns == 0:
            axis.set_ylabel("return")
        if place + columns >= len(tasks):
            axis.set_xlabel("iteration")
    order = [name for name in ("mean of seeds", "one seed", *_LEVELS) if name in handles]
    add_legend(figure, {name: handles[name] for name in order})
    save(figure, path)


def pretraining_curves(
    path: Path,
    heading: Heading,
    losses: Mapping[str, Series],
    errors: Sequence[HorizonErrors],
) -> None:
    """The training losses in the first panel, then held-out errors by horizon, one panel each.

    Raises ``ValueError`` with nothing to draw, ``UserError`` when ``path`` cannot be written.
    """
    panels = bool(losses) + len(errors)
    if not panels:
        raise ValueError("nothing to draw")
    figure, axes = new_page(heading, panels, min(panels, 3), width=4.4, height=3.4, legend=False)
    if losses:
        _draw_losses(axes[0], losses)
    for axis, error in zip(axes[bool(losses) :], errors, strict=True):
        axis.plot(error.horizons, error.model, "o-", color=BLUE, lw=2, label="world model")
        if error.before is not None:
            axis.plot(error.horizons, error.before, "^-.", color=SKY, lw=1.5, label="before")
        if error.copy is not None:
            axis.plot(error.horizons, error.copy, "s--", color=RED, lw=1.5, label="copy baseline")
        if error.constant is not None:
            axis.plot(error.horizons, error.constant, ":", color=GREY, lw=1.5, label="task's mean")
        axis.set_xscale("log", base=2)
        axis.set_xticks(error.horizons, [str(h) for h in error.horizons])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_title(error.measure)
        axis.set_xlabel("horizon (agent steps)")
        axis.set_ylabel("held-out error")
        axis.legend(frameon=False)
    save(figure, path)


_LEVELS = {
    "planner (true simulator)": ("planner", GREEN, (0, (5, 2))),
    "PWM, published": ("pwm", PURPLE, (0, (5, 1.5, 1, 1.5))),
    "random": ("random", GREY, (0, (1, 1.5))),
}


def _draw_task(axis: Axes, curves: TaskCurves, handles: dict[str, Any]) -> None:
    # A curve of one evaluation would be invisible as a line.
    marker = "o" if all(len(series) < 3 for series in curves.seeds.values()) else None
    alone = len(curves.seeds) == 1
    for series in curves.seeds.values():
        colour, width = (BLUE, 2.0) if alone else (SKY, 0.9)
        line = axis.plot(*columns_of(series), marker=marker, color=colour, lw=width)
        handles.setdefault("one seed", line[0])
    if not alone:
        mean = mean_series(list(curves.seeds.values()))
        line = axis.plot(*columns_of(mean), color=BLUE, lw=2.2, marker=marker)
        handles.setdefault("mean of seeds", line[0])
    top = [y for series in curves.seeds.values() for _, y in series if math.isfinite(y)]
    for name, (attribute, colour, dash) in _LEVELS.items():
        level = getattr(curves, attribute)
        if level is not None:
            handles.setdefault(name, axis.axhline(level, color=colour, lw=1.4, ls=dash))
            top.append(level)
    # Returns are not negative in these tasks; a common floor keeps panels comparable.
    highest = max(top, default=0.0)
    axis.set_ylim(min(0.0, *top) if top else 0.0, 1.08 * highest if highest > 0 else 1.0)


def _draw_losses(axis: Axes, losses: Mapping[str, Series]) -> None:
    for place, (name, series) in enumerate(losses.items()):
        colour, dash = COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]
        axis.plot(*columns_of(series), color=colour, ls=dash, lw=1.6, label=name)
    values = [value for series in losses.values() for _, value in series if math.isfinite(value)]
    if values and min(values) > 0 and max(values) > 10 * min(values):
        axis.set_yscale("log")
    axis.set_title("training losses")
    axis.set_xlabel("iteration")
    axis.legend(frameon=False)


def mean_series(seeds: Sequence[Series]) -> Series:
    """The mean over seeds at those iterations that all of them have reached."""
    tables = [dict(series) for series in seeds]
    shared = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    return [(x, statistics.fmean(table[x] for table in tables)) for x in shared]


def columns_of(series: Series) -> tuple[list[float], list[float]]:
    """Iterations and values."""
    return [x for x, _ in series], [y for _, y in series]
