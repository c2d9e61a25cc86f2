"""SVG with the colours and fonts of the page, from matplotlib; equal figures give equal bytes.

``draw`` makes the ``svg`` element of a figure; the other functions serve those that paint.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import attrs

from fmbpo.compare.comparison import Cell
from fmbpo.reporting.curves import COLOURS, DASHES
from fmbpo.reporting.drawing import own_style
from fmbpo.reporting.pages.content import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Draw = Callable[[Figure, Axes], None]

WIDTH = 5.4
"""Inches of 72 SVG units: text of 12 units has about 11 pixels on a phone, 14 on a desktop."""
INK, MUTED, GRID, PAPER = "#010203", "#040506", "#070809", "#0a0b0c"
"""Placeholders for the colours of the page; see ``_ROLES``."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # not as many as colours: pairs differ
_ROLES = {
    INK: "currentColor",
    MUTED: "var(--muted, #5a5a5a)",
    GRID: "var(--grid, #e2e2e2)",
    PAPER: "var(--paper, #ffffff)",
    **{c.lower(): f"var(--series-{i}, {c.lower()})" for i, c in enumerate(COLOURS)},
}
_SVG = "http://www.w3.org/2000/svg"
_STYLE = Path(__file__).parent / "templates" / "figures.mplstyle"
_Key = TypeVar("_Key", bound=Hashable)


@attrs.frozen
class Style:
    """The look of one cell, effect or world model in all figures; each part distinguishes it."""

    colour: str
    dash: str
    marker: str


Looks: TypeAlias = Mapping[Cell, Style]
"""The style of each cell."""


def styles(things: Iterable[_Key]) -> dict[_Key, Style]:
    """A style for each distinct thing, in order."""
    looks = map(Style, *map(itertools.cycle, (COLOURS, DASHES, _MARKERS)))
    return dict(zip(dict.fromkeys(things), looks, strict=False))


def draw(name: str, title: str, description: str, height: float, paint: Draw) -> str:
    """The ``svg`` element of a figure of ``height`` inches; ``name`` is unique on the page."""
    stream = io.StringIO()
    with own_style(_STYLE), warnings.catch_warnings():
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        # Text stays text, so matplotlib's own font need not have its glyphs.
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
    """Each label once, above the axes, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        labelled = dict(zip(labels, handles, strict=True))
        longest = max(map(len, labelled))
        room = max(1, math.floor(WIDTH * 72 / (6.6 * longest + 46)))
        columns = math.ceil(len(labelled) / math.ceil(len(labelled) / room))
        figure.legend(
            labelled.values(), labelled, loc="outside upper left", ncols=columns, columnspacing=1.2,
            handlelength=2.4, borderaxespad=0, borderpad=0.2,
        )  # fmt: skip


def label(text: str, longest: int = 22) -> str:
    """A name shortened to fit into a figure."""
    text = clean(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _adapt(text: str, name: str, title: str, description: str) -> str:
    """matplotlib's SVG with the page's colours, unique ids, a title and a description."""
    ET.register_namespace("", _SVG)
    root = ET.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", text))
    for parent in list(root.iter()):
        for child in parent.findall("{*}metadata") + parent.findall("{*}style"):
            parent.remove(child)
    used = set(re.findall(r"#([\w-]+)[\"')]", text))
    for element in root.iter():
        element.attrib = {
            key.rpartition("}")[2]: _adapt_value(value, name)  # ``href`` without its old namespace
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
    for element in root.iter():
        element.tail = None
        if not (element.text or "").strip():
            element.text = None
    return ET.tostring(root, encoding="unicode")


def _adapt_value(value: str, name: str) -> str:
    value = re.sub(r"#[0-9a-f]{6}\b", lambda m: _ROLES.get(m[0], m[0]), value)
    value = re.sub(r"url\(#", f"url(#{name}-", value)
    value = re.sub(r"^#(?=[\w-]+$)", f"#{name}-", value)
    value = re.sub(r"(-?\d+\.\d\d)\d+", r"\1", value)  # a hundredth of a unit cannot be seen
    value = re.sub(r"font-family: [^;]*", "font-family: system-ui, sans-serif", value)
    return re.sub(r"\s+", " ", value).strip()
