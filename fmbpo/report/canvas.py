"""What all PNG pictures share: heading, stamp of the scale, panels, colours, writing the file."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from fmbpo.base.files import replace_file

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


@attrs.frozen
class Heading:
    """Where a picture's numbers come from; it stands on every picture."""

    experiment: str
    scale: str
    protocol: str
    more: str = ""


def new_figure(
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
    # A bold letter of 13 points is about 0.12 inches wide; the name must not reach the stamp.
    free = wide - 0.7 - 0.11 * (len(heading.scale) + 7)
    size = min(13.0, 13 * free / (0.12 * max(len(heading.experiment), 1)))
    figure.text(left, 1 - 0.14 / high, heading.experiment, va="top", weight="bold", fontsize=size)
    figure.text(left, 1 - 0.44 / high, "\n".join(lines), va="top", fontsize=9.5, color=GREY)
    figure.text(
        1 - left,
        1 - 0.16 / high,
        f"scale: {heading.scale}",
        va="top",
        ha="right",
        fontsize=11,
        weight="bold",
        color="white",
        bbox={"boxstyle": "round,pad=0.35", "facecolor": RED, "edgecolor": "none"},
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
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def save(figure: Figure, path: Path, lines: Mapping[str, Line2D] | None = None) -> None:
    """Write the picture in one step, with a legend of ``lines`` by name under all panels.

    Raises ``UserError`` if ``path`` cannot be written.
    """
    if lines:
        figure.legend(
            list(lines.values()), list(lines), loc="lower center", ncols=len(lines),
            frameon=False, fontsize=9.5,
        )  # fmt: skip
    # Without the version of matplotlib in it, equal numbers give equal files.
    replace_file(path, lambda aside: figure.savefig(aside, metadata={"Software": None}))
