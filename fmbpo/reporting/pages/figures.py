"""The report's figures: returns, effects, performance profiles, curves, model errors.

SVG with the colours and fonts of the page; equal figures give equal bytes. Each figure's function
returns an ``svg`` element with the id ``name``; ``style``: the look of each cell or world model.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import attrs

from fmbpo.compare.comparison import OVERALL, Cell, CellResult, Estimate, Profile, Series
from fmbpo.reporting.curves import COLOURS, DASHES, columns_of, mean_series
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
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_ROLES = {
    INK: "currentColor",
    MUTED: "var(--muted, #5a5a5a)",
    GRID: "var(--grid, #e2e2e2)",
    PAPER: "var(--paper, #ffffff)",
    **{c.lower(): f"var(--series-{i}, {c.lower()})" for i, c in enumerate(COLOURS)},
}
_SVG = "http://www.w3.org/2000/svg"
_STYLE = Path(__file__).parent / "templates" / "figures.mplstyle"
ALL_TASKS = "all tasks"
"""The name of the row over all tasks."""
MOST_RETURN, RETURN_EDGE = 1000.0, 40.0
"""The largest possible return, and how far an axis of returns extends beyond it."""
_LEVELS = (("PWM, published", "pwm", "-"), ("TD-MPC2, published", "tdmpc2", (0, (2, 1.4))))
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


def returns(name: str, title: str, tasks: Mapping[str, Sequence[CellResult]], style: Looks) -> str:
    """A band for each task: the mean and interval of each cell, its seeds, published returns."""

    def paint(figure: Figure, axes: Axes) -> None:
        _rows(axes, list(tasks))
        for row, found in enumerate(tasks.values()):
            for place, result in enumerate(found):
                y = row + 0.62 * ((place + 0.5) / len(found) - 0.5)
                look = style[result.cell]
                axes.plot(
                    result.values, [y] * len(result.values), "o",
                    ms=3.2, color=look.colour, alpha=0.45, mew=0,
                )  # fmt: skip
                _point(axes, result.mean, y, look, 6.0)
                axes.plot(
                    [], [], look.marker, color=look.colour, ms=6, mec=PAPER, mew=0.6,
                    label=_label(str(result.cell), 40),
                )  # fmt: skip
            for words, field, dash in _LEVELS:
                levels = {getattr(result, field) for result in found} - {None}
                for level in levels:
                    axes.plot(
                        [level, level], [row - 0.36, row + 0.36], color=INK, ls=dash, lw=1.3,
                        label=words, zorder=1.5,
                    )  # fmt: skip
        for between in range(1, len(tasks)):
            axes.axhline(between - 0.5, color=MUTED, lw=0.4, ls=(0, (1, 3)))
        low, high = axes.get_xlim()
        axes.set_xlim(max(min(0.0, low), -RETURN_EDGE), min(high, MOST_RETURN + RETURN_EDGE))
        axes.set_xlabel("return")
        _legend(figure, axes)

    most = max(map(len, tasks.values()))
    row = 0.2 + 0.19 * most if len(tasks) <= 8 else 0.12 + 0.12 * most
    words = (
        "The mean return of each cell on each task with its 95 % interval; small dots are seeds. "
        "Published returns of PWM and TD-MPC2 are marked if they are known. An interval that "
        "reaches the edge extends beyond it: with few seeds it can be wider than 0 to 1000."
    )
    return _draw(name, title, words, 1.2 + len(tasks) * row, paint)


def forest(
    name: str,
    title: str,
    differences: Mapping[str, Estimate],
    style: Style,
    decided: Collection[str],
) -> str:
    """Differences of returns / 1000 with their intervals by task; ``OVERALL`` is all tasks.

    ``decided``: the tasks with a verdict, which are filled.
    """

    def paint(figure: Figure, axes: Axes) -> None:
        _rows(axes, [task or ALL_TASKS for task in differences])
        axes.axvline(0.0, color=INK, lw=0.9)
        for row, (task, found) in enumerate(differences.items()):
            look, size = attrs.evolve(style, marker="o" if task else "D"), 6.5 if task else 8.0
            _point(axes, found, row, look, size, hollow=task not in decided)
            if task == OVERALL and len(differences) > 1:
                axes.axhline(row + 0.5, color=MUTED, lw=0.6)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -0.02), max(high, 0.02))
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("difference in return / 1000")

    words = (
        "Differences with 95 % intervals, over all tasks (diamond) and for each task. "
        "Filled if one level is ahead."
    )
    return _draw(name, title, words, 0.85 + 0.31 * len(differences), paint)


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
    return _draw(name, title, words, 3.9, paint)


def curves(name: str, title: str, cells: Mapping[Cell, Sequence[Series]], style: Looks) -> str:
    """Return against iteration: every seed a thin line, their mean a thick one."""

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
        _frame(figure, axes, "iteration", "return")

    words = (
        "Return in evaluation against the iteration of training: a thin line for each seed, "
        "a thick one for their mean."
    )
    return _draw(name, title, words, 3.6, paint)


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
    return _draw(name, title, words, 3.6, paint)


def _point(
    axes: Axes, found: Estimate, y: float, look: Style, size: float, hollow: bool = False
) -> None:
    """A number and its interval at height ``y``."""
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [y, y], "-", color=look.colour, lw=1.8)
    edge, face, width = (look.colour, PAPER, 1.6) if hollow else (PAPER, look.colour, 0.6)
    axes.plot(found.value, y, look.marker, color=face, mec=edge, mew=width, ms=size, zorder=3)


def _draw(name: str, title: str, description: str, height: float, paint: Draw) -> str:
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


def _legend(figure: Figure, axes: Axes) -> None:
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


def _line(
    axes: Axes, x: Sequence[float], y: Sequence[float], look: Style, name: str, **more: Any
) -> None:
    """A line with markers, named in the legend; ``more``: matplotlib's properties of lines."""
    axes.plot(
        x, y, color=look.colour, ls=look.dash, lw=2, marker=look.marker, mec=PAPER, mew=0.6,
        label=_label(name, 40), **{"ms": 5, **more},
    )  # fmt: skip


def _frame(figure: Figure, axes: Axes, x: str, y: str) -> None:
    """Name both axes, the vertical one above its end; add a grid and the legend."""
    axes.set_xlabel(x)
    axes.set_title(y, loc="left", fontsize=12, pad=8)
    axes.grid()
    _legend(figure, axes)


def _label(text: str, longest: int = 22) -> str:
    """A name shortened to fit into a figure."""
    text = clean(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Name rows down the left side, the first on top, with vertical grid lines."""
    axes.set_yticks(range(len(names)), [_label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


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
    return ET.tostring(root, encoding="unicode")


def _adapt_value(value: str, name: str) -> str:
    value = re.sub(r"#[0-9a-f]{6}\b", lambda m: _ROLES.get(m[0], m[0]), value)
    value = re.sub(r"url\(#", f"url(#{name}-", value)
    value = re.sub(r"^#(?=[\w-]+$)", f"#{name}-", value)
    return re.sub(r"(font: (?:\w+ )*?[\d.]+px)[^;]*", r"\1 system-ui, sans-serif", value)
