"""PNG pictures of curves: learning, pretraining, and the cells of a study together."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from fmbpo.base.files import replace_file
from fmbpo.compare.comparison import Series
from fmbpo.reporting.drawing import own_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Okabe and Ito's palette, which colour-blind readers can tell apart; dashes differ as well.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#5A5A5A"
PURPLE, SKY = "#CC79A7", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY, SKY)
DASHES = ("-", "--", "-.", ":")
_DPI = 130
_LEVELS: dict[str, dict[str, Any]] = {
    "planner (true simulator)": {"color": GREEN, "ls": (0, (5, 2))},
    "PWM, published": {"color": PURPLE, "ls": (0, (5, 1.5, 1, 1.5))},
    "random": {"color": GREY, "ls": (0, (1, 1.5))},
}
_ERRORS: dict[str, dict[str, Any]] = {
    "world model": {"marker": "o", "color": BLUE, "lw": 2.0},
    "before": {"marker": "^", "ls": "-.", "color": SKY},
    "copy baseline": {"marker": "s", "ls": "--", "color": RED},
    "task's mean": {"ls": ":", "color": GREY},
}


@attrs.frozen
class Heading:
    """The origin of a picture's numbers, which every picture shows."""

    experiment: str
    scale: str
    protocol: str
    more: str = ""


@attrs.frozen
class Line:
    """Points, or the height of a level line; ``look``: matplotlib's properties of lines.

    Lines of one name share an entry of the legend; a line without a name has none.
    """

    points: Series | float
    name: str
    look: Mapping[str, Any]


@attrs.frozen
class Panel:
    """Lines in one pair of axes; ``axes``: matplotlib's properties of these, such as ``ylim``."""

    title: str
    lines: Sequence[Line]
    axes: Mapping[str, Any]


@own_style()
def draw(
    path: Path,
    heading: Heading,
    panels: Sequence[Panel],
    *,
    columns: int = 3,
    size: tuple[float, float] = (4.2, 2.7),
    own_legends: bool = False,
) -> None:
    """Draw the panels in rows; a legend below them all, or one in each.

    ``size``: a panel's width and height in inches. Raises ``ValueError`` without panels,
    ``UserError`` if ``path`` cannot be written.
    """
    if not panels:
        raise ValueError("nothing to draw")
    columns = min(columns, len(panels))
    figure, axes = _new_figure(heading, len(panels), columns, size, 0.05 if own_legends else 0.42)
    legend: dict[str, Line2D] = {}
    for axis, panel in zip(axes, panels, strict=True):
        for line in panel.lines:
            if isinstance(line.points, float):
                drawn = axis.axhline(line.points, **line.look)
            else:
                (drawn,) = axis.plot(*columns_of(line.points), **line.look)
            if line.name:
                drawn.set_label(line.name)
                legend.setdefault(line.name, drawn)
        axis.set_title(panel.title, fontsize=10.5)
        axis.set(**panel.axes)
        if own_legends:
            axis.legend(frameon=False)
    if legend and not own_legends:
        figure.legend(
            list(legend.values()), list(legend), loc="lower center", ncols=len(legend),
            frameon=False, fontsize=9.5,
        )  # fmt: skip
    # matplotlib's version is left out, so that equal numbers give equal files.
    replace_file(path, lambda aside: figure.savefig(aside, metadata={"Software": None}))


def _new_figure(
    heading: Heading, panels: int, columns: int, size: tuple[float, float], bottom: float
) -> tuple[Figure, list[Axes]]:
    """A figure with the heading and the scale's stamp, and ``bottom`` inches for a legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = math.ceil(panels / columns)
    wide = max(columns * size[0], 6.4)
    detail = " · ".join(part for part in (f"protocol: {heading.protocol}", heading.more) if part)
    lines = textwrap.wrap(detail, int(wide * 13))
    top = 0.54 + 0.18 * len(lines)
    high = rows * size[1] + top + bottom
    figure = Figure(figsize=(wide, high), dpi=_DPI)
    FigureCanvasAgg(figure)
    rect = (0.005, bottom / high, 0.99, 1 - (top + bottom) / high)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=rect))
    left = 0.12 / wide
    # A bold letter of 13 points is about 0.12 inches wide; the name must not reach the stamp.
    free = wide - 0.7 - 0.11 * (len(heading.scale) + 7)
    points = min(13.0, 13 * free / (0.12 * max(len(heading.experiment), 1)))
    figure.text(left, 1 - 0.14 / high, heading.experiment, va="top", weight="bold", fontsize=points)
    figure.text(left, 1 - 0.44 / high, "\n".join(lines), va="top", fontsize=9.5, color=GREY)
    figure.text(
        1 - left, 1 - 0.16 / high, f"scale: {heading.scale}", va="top", ha="right", fontsize=11,
        weight="bold", color="white",
        bbox={"boxstyle": "round,pad=0.35", "facecolor": RED, "edgecolor": "none"},
    )  # fmt: skip
    axes = [figure.add_subplot(rows, columns, place) for place in range(1, panels + 1)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#E4E4E4", lw=0.7)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=9)
        axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}")
        axis.locator_params(axis="x", nbins=5)
    return figure, axes


def learning_panel(
    task: str, seeds: Mapping[str, Series], levels: Mapping[str, float | None]
) -> Panel:
    """Return against iteration: the seeds, their mean, the ``_LEVELS`` that are not None."""
    # A curve of one evaluation would be invisible as a line.
    marker = "o" if all(len(series) < 3 for series in seeds.values()) else None
    thin = {"color": SKY, "lw": 0.9} if len(seeds) != 1 else {"color": BLUE, "lw": 2.0}
    lines = [Line(series, "one policy", {**thin, "marker": marker}) for series in seeds.values()]
    if len(seeds) != 1:
        mean = mean_series(list(seeds.values()))
        lines.append(Line(mean, "mean of policies", {"color": BLUE, "lw": 2.2, "marker": marker}))
    known = {name: float(level) for name in _LEVELS if (level := levels.get(name)) is not None}
    lines += [Line(level, name, {**_LEVELS[name], "lw": 1.4}) for name, level in known.items()]
    values = [y for series in seeds.values() for _, y in series if math.isfinite(y)]
    # Returns are not negative in these tasks; a common floor keeps panels comparable.
    low, high = min([0.0, *values, *known.values()]), max([0.0, *values, *known.values()])
    words = {"xlabel": "iteration", "ylabel": "return"}
    return Panel(task, lines, {**words, "ylim": (low, 1.08 * high or 1.0)})


def losses_panel(losses: Mapping[str, Series]) -> Panel:
    """Training losses against iteration."""
    lines = [
        Line(series, name, {**_colour_and_dash(place), "lw": 1.6})
        for place, (name, series) in enumerate(losses.items())
    ]
    values = [value for series in losses.values() for _, value in series if math.isfinite(value)]
    wide = values and min(values) > 0 and max(values) > 10 * min(values)
    scale = "log" if wide else "linear"
    return Panel("training losses", lines, {"yscale": scale, "xlabel": "iteration"})


def errors_panel(measure: str, errors: Mapping[str, Mapping[int, float]]) -> Panel:
    """Held-out errors by horizon (agent steps): each line by its name in ``_ERRORS``.

    The copy baseline predicts ``z[t+1] = z[t]``, the task's mean the same value at all steps.
    "before" is the world model's error before it learned beside the policies.
    """
    lines = [Line(list(errors[x].items()), x, look) for x, look in _ERRORS.items() if errors.get(x)]
    ticks = sorted({horizon for found in errors.values() for horizon in found})
    axes = {"xscale": "log", "xticks": ticks, "xticklabels": [*map(str, ticks)], "ylim": (0, None)}
    words = {"xlabel": "horizon (agent steps)", "ylabel": "held-out error"}
    return Panel(measure, lines, {**axes, **words})


def study_panel(title: str, cells: Mapping[str, Mapping[str, Series]], real: Series) -> Panel:
    """Every cell's mean over seeds, its seeds as thin lines, and the real quantity if known."""
    lines = [Line(0.0, "", {"color": "#B0B0B0", "lw": 0.8})]
    for place, (name, seeds) in enumerate(cells.items()):
        look = _colour_and_dash(place)
        thin = seeds.values() if len(seeds) > 1 else ()
        lines += [Line(series, "", {**look, "lw": 0.8, "alpha": 0.5}) for series in thin]
        if seeds:
            lines.append(Line(mean_series(list(seeds.values())), name, {**look, "lw": 2.2}))
    if real:
        lines.append(Line(real, "real reward", {"color": GREY, "lw": 1.4, "ls": ":"}))
    return Panel(title, lines, {"xlabel": "iteration"})


def _colour_and_dash(place: int) -> dict[str, str]:
    turn, which = divmod(place, len(COLOURS))
    return {"color": COLOURS[which], "ls": DASHES[turn % len(DASHES)]}


def mean_series(seeds: Sequence[Series]) -> Series:
    """The mean over seeds at the iterations that all of them have reached."""
    tables = [dict(series) for series in seeds]
    shared = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    return [(x, statistics.fmean(table[x] for table in tables)) for x in shared]


def columns_of(series: Series) -> tuple[list[int], list[float]]:
    """Iterations and values."""
    return [x for x, _ in series], [y for _, y in series]
