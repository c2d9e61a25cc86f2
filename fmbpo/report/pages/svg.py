"""SVG figures with the colours and fonts of the page; equal figures give equal bytes."""

from __future__ import annotations

import io
import math
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import attrs

from fmbpo.report.curves import COLOURS, DASHES
from fmbpo.report.pages.content import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Draw = Callable[[Figure, Axes], None]

WIDTH = 5.4
"""Inches of 72 SVG units: text of 12 units has about 11 pixels on a phone, 14 on a desktop."""
INK, MUTED, GRID, PAPER = "#010203", "#040506", "#070809", "#0a0b0c"
"""Placeholders for the colours of the page; see ``_ROLES``."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_ROLES = {
    INK: "currentColor",
    MUTED: "var(--muted, #5a5a5a)",
    GRID: "var(--grid, #e2e2e2)",
    PAPER: "var(--paper, #ffffff)",
    **{c.lower(): f"var(--series-{i}, {c.lower()})" for i, c in enumerate(COLOURS)},
}
_SVG = "http://www.w3.org/2000/svg"
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fmbpo",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 12,
    "axes.labelsize": 12,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "legend.fontsize": 11.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_Key = TypeVar("_Key", bound=Hashable)


@attrs.frozen
class Style:
    """The look of one cell, effect or world model in all figures; each part distinguishes it."""

    colour: str
    dash: str
    marker: str


def styles(things: Iterable[_Key]) -> dict[_Key, Style]:
    """A style for each distinct thing, in order."""
    return {
        thing: Style(
            COLOURS[place % len(COLOURS)],
            DASHES[place % len(DASHES)],
            _MARKERS[place % len(_MARKERS)],
        )
        for place, thing in enumerate(dict.fromkeys(things))
    }


def draw(name: str, title: str, description: str, height: float, paint: Draw) -> str:
    """A figure with one pair of axes, ``height`` inches high, painted by ``paint(figure, axes)``,
    as an ``svg`` element. ``name`` must be unique on the page."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with rc_context(_SETTINGS), warnings.catch_warnings():
        # Text stays text, so it does not matter whether matplotlib's own font has a glyph.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        paint(figure, axes)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing)
    return _adapt(stream.getvalue(), name, title, description)


def legend(figure: Figure, axes: Axes) -> None:
    """The labelled lines above the axes, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        longest = max(map(len, labels))
        room = max(1, math.floor(WIDTH * 72 / (6.6 * longest + 46)))
        columns = math.ceil(len(labels) / math.ceil(len(labels) / room))
        figure.legend(
            handles, labels, loc="outside upper left", ncols=columns, columnspacing=1.2,
            handlelength=2.4, borderaxespad=0, borderpad=0.2,
        )  # fmt: skip


def line(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    style: Style,
    name: str,
    *,
    every: int = 1,
    size: float = 5,
) -> None:
    """A line named in the legend, with a marker of ``size`` at every so many points."""
    axes.plot(
        x, y, color=style.colour, ls=style.dash, lw=2, marker=style.marker, ms=size,
        markevery=every, mec=PAPER, mew=0.6, label=label(name, 40),
    )  # fmt: skip


def frame(figure: Figure, axes: Axes, x: str, y: str) -> None:
    """Name both axes, the vertical one above its end; add a grid and the legend."""
    axes.set_xlabel(x)
    axes.set_title(y, loc="left", fontsize=12, pad=8)
    axes.grid()
    legend(figure, axes)


def label(text: str, longest: int = 22) -> str:
    """A name shortened to fit into a figure."""
    text = clean(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def rows(axes: Axes, names: Sequence[str]) -> None:
    """Name rows down the left side, the first on top, with vertical grid lines."""
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _adapt(text: str, name: str, title: str, description: str) -> str:
    """matplotlib's SVG with the page's colours, unique ids, a title and a description."""
    ET.register_namespace("", _SVG)
    root = ET.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", text))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    used = set(re.findall(r"#([\w-]+)[\"')]", text))
    for element in root.iter():
        element.attrib = {
            _local(key): _adapt_value(value, name)
            for key, value in element.attrib.items()
            if key != "id" or value in used
        }
        if "id" in element.attrib:
            element.set("id", f"{name}-{element.get('id')}")
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
        "style": "stroke-linejoin: round; stroke-linecap: butt",
    }
    for place, (tag, words) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = clean(words)
        root.insert(place, element)
    return ET.tostring(root, encoding="unicode")


def _local(key: str) -> str:
    """``href`` without its old namespace."""
    return key.rpartition("}")[2]


def _adapt_value(value: str, name: str) -> str:
    value = re.sub(r"#[0-9a-f]{6}\b", lambda m: _ROLES.get(m[0], m[0]), value)
    value = re.sub(r"url\(#", f"url(#{name}-", value)
    value = re.sub(r"^#(?=[\w-]+$)", f"#{name}-", value)
    return re.sub(r"(font: (?:\w+ )*?[\d.]+px)[^;]*", r"\1 system-ui, sans-serif", value)
