"""Learning curves and pretraining curves as PNG files."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from fmbpo.runs.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series: TypeAlias = Sequence[tuple[float, float]]
"""(iteration, value) in order."""

# Okabe and Ito's palette, which the colour-blind can tell apart; dashes differ as well.
_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#5A5A5A"
_PURPLE, _SKY = "#CC79A7", "#56B4E9"
_DPI = 130


@attrs.frozen
class Heading:
    """What every picture says about where its numbers come from."""

    experiment: str
    scale: str
    protocol: str
    more: str = ""


@attrs.frozen
class TaskCurves:
    """One panel: a return curve per seed, and the levels to hold it against (None: unknown)."""

    seeds: Mapping[str, Series]
    random: float | None = None
    planner: float | None = None
    pwm: float | None = None


@attrs.frozen
class HorizonErrors:
    """A held-out error by horizon (agent steps); ``copy`` is that of ``z[t+1] = z[t]``."""

    measure: str
    horizons: Sequence[int]
    model: Sequence[float]
    copy: Sequence[float] | None = None


def learning_curves(path: Path, heading: Heading, tasks: Mapping[str, TaskCurves]) -> None:
    """One panel a task: return against iteration, a thin line a seed and their mean.

    Raises ``ValueError`` without tasks, ``UserError`` when ``path`` cannot be written.
    """
    if not tasks:
        raise ValueError("no task to draw")
    columns = min(len(tasks), 3 if len(tasks) <= 9 else 5)
    figure, axes = _page(heading, len(tasks), columns)
    handles: dict[str, Any] = {}
    for place, (axis, (name, curves)) in enumerate(zip(axes, tasks.items(), strict=True)):
        _draw_task(axis, curves, handles)
        axis.set_title(name)
        if place % columns == 0:
            axis.set_ylabel("return")
        if place + columns >= len(tasks):
            axis.set_xlabel("iteration")
    order = [name for name in ("mean of seeds", "one seed", *_LEVELS) if name in handles]
    _legend(figure, {name: handles[name] for name in order})
    _save(figure, path)


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
    figure, axes = _page(heading, panels, min(panels, 3), width=4.4, height=3.4, legend=False)
    if losses:
        _draw_losses(axes[0], losses)
    for axis, error in zip(axes[bool(losses) :], errors, strict=True):
        axis.plot(error.horizons, error.model, "o-", color=_BLUE, lw=2, label="world model")
        if error.copy is not None:
            axis.plot(error.horizons, error.copy, "s--", color=_RED, lw=1.5, label="copy baseline")
        axis.set_xscale("log", base=2)
        axis.set_xticks(error.horizons, [str(h) for h in error.horizons])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_title(error.measure)
        axis.set_xlabel("horizon (agent steps)")
        axis.set_ylabel("held-out error")
        axis.legend(frameon=False)
    _save(figure, path)


_LEVELS = {
    "planner (true simulator)": ("planner", _GREEN, (0, (5, 2))),
    "PWM, published": ("pwm", _PURPLE, (0, (5, 1.5, 1, 1.5))),
    "random": ("random", _GREY, (0, (1, 1.5))),
}


def _draw_task(axis: Axes, curves: TaskCurves, handles: dict[str, Any]) -> None:
    # A curve of one evaluation would be invisible as a line.
    marker = "o" if all(len(series) < 3 for series in curves.seeds.values()) else None
    alone = len(curves.seeds) == 1
    for series in curves.seeds.values():
        colour, width = (_BLUE, 2.0) if alone else (_SKY, 0.9)
        line = axis.plot(*_columns(series), marker=marker, color=colour, lw=width)
        handles.setdefault("one seed", line[0])
    if not alone:
        mean = mean_series(list(curves.seeds.values()))
        line = axis.plot(*_columns(mean), color=_BLUE, lw=2.2, marker=marker)
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
    colours = (_BLUE, _ORANGE, _GREEN, _RED, _PURPLE, _GREY, _SKY)
    dashes = ("-", "--", "-.", ":")
    for place, (name, series) in enumerate(losses.items()):
        dash = dashes[place // len(colours) % len(dashes)]
        axis.plot(
            *_columns(series), color=colours[place % len(colours)], ls=dash, lw=1.6, label=name
        )
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


def _columns(series: Series) -> tuple[list[float], list[float]]:
    return [x for x, _ in series], [y for _, y in series]


def _page(
    heading: Heading,
    panels: int,
    columns: int,
    *,
    width: float = 3.6,
    height: float = 2.7,
    legend: bool = True,
) -> tuple[Figure, list[Axes]]:
    """A figure with ``panels`` axes, the heading and the stamp of the scale; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = math.ceil(panels / columns)
    wide = max(columns * width, 6.4)
    detail = " · ".join(part for part in (f"protocol: {heading.protocol}", heading.more) if part)
    lines = textwrap.wrap(detail, int(wide * 13))
    # Room for the heading above and the legend below, whatever the number of rows.
    top, bottom = 0.54 + 0.18 * len(lines), 0.42 if legend else 0.05
    high = rows * height + top + bottom
    figure = Figure(figsize=(wide, high), dpi=_DPI)
    FigureCanvasAgg(figure)
    rect = (0.005, bottom / high, 0.99, 1 - (top + bottom) / high)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=rect))
    left = 0.12 / wide
    # A bold letter of 13 points is about 0.12 inches wide; the stamp must not be reached.
    free = wide - 0.7 - 0.11 * (len(heading.scale) + 7)
    size = min(13.0, 13 * free / (0.12 * max(len(heading.experiment), 1)))
    figure.text(left, 1 - 0.14 / high, heading.experiment, va="top", weight="bold", fontsize=size)
    detail = "\n".join(lines)
    figure.text(left, 1 - 0.44 / high, detail, va="top", fontsize=9.5, color=_GREY)
    figure.text(
        1 - left,
        1 - 0.16 / high,
        f"scale: {heading.scale}",
        va="top",
        ha="right",
        fontsize=11,
        weight="bold",
        color="white",
        bbox={"boxstyle": "round,pad=0.35", "facecolor": _RED, "edgecolor": "none"},
    )
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[panels:]:
        spare.remove()
    for axis in axes[:panels]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#E4E4E4", lw=0.7)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=9)
        axis.xaxis.set_major_formatter(_thousands)
        axis.locator_params(axis="x", nbins=5)
    return figure, axes[:panels]


def _thousands(value: float, _: int | None = None) -> str:
    if value >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def _legend(figure: Figure, handles: Mapping[str, Any]) -> None:
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=9.5,
    )


def _save(figure: Figure, path: Path) -> None:
    # Without the version of matplotlib in it, equal numbers give equal files.
    replace_file(path, lambda aside: figure.savefig(aside, metadata={"Software": None}))
