"""What the report says, as data: tables, pictures and the blocks that hold them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import attrs

from fmbpo.compare.result import Estimate
from fmbpo.report.table import NONE

LEVEL = "95\N{NO-BREAK SPACE}%"
"""Of all intervals; never torn apart at a line's end."""
Tone = Literal["", "decided", "open", "warning"]
"""How a word is marked; the word says the same."""


def decimal(value: float | None, digits: int) -> str:
    """A number with ``digits`` decimals and a true minus sign; ``NONE`` for None."""
    if value is None:
        return NONE
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def significant(value: float | None) -> str:
    """A number with three significant digits, without an exponent where that is readable."""
    if value is None:
        return NONE
    if value == 0 or not math.isfinite(value):
        return decimal(value, 0)
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size > 6:
        return f"{value:.2e}".replace("-", "−")
    return decimal(value, max(0, 2 - size))


def interval(estimate: Estimate, digits: int) -> str:
    """``[low, high]``; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{decimal(estimate.low, digits)}, {decimal(estimate.high, digits)}]"


@attrs.frozen
class Field:
    """A table's entry. ``value`` is the unrounded number; ``note`` stands under the text."""

    text: str
    value: float | None = None
    note: str = ""
    tone: Tone = ""

    @classmethod
    def number(cls, value: float | None, digits: int) -> Field:
        """With ``digits`` decimals."""
        return cls(decimal(value, digits), value)

    @classmethod
    def rough(cls, value: float | None) -> Field:
        """With three significant digits."""
        return cls(significant(value), value)

    @classmethod
    def estimate(cls, estimate: Estimate | None, digits: int) -> Field:
        """A number, and under it its interval."""
        if estimate is None:
            return cls(NONE)
        text = decimal(estimate.value, digits)
        return cls(text, estimate.value, interval(estimate, digits))


@attrs.frozen
class Column:
    """``numeric`` columns are set right and sorted by value. Neighbours with the same ``group``
    stand under it."""

    title: str
    numeric: bool = True
    group: str = ""


@attrs.frozen
class Table:
    """Rows of entries; the first entry names the row. ``title`` is the caption."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Field]]
    notes: Sequence[str] = ()
    sortable: bool = True

    @property
    def groups(self) -> list[tuple[str, list[tuple[int, Column]]]]:
        """Runs of neighbouring columns by group, each column with its place."""
        places = list(enumerate(self.columns))
        return [
            (name, list(found)) for name, found in itertools.groupby(places, lambda c: c[1].group)
        ]


@attrs.frozen
class Picture:
    """A figure as SVG text. ``description`` is for who cannot see it, ``data`` its numbers."""

    name: str
    title: str
    description: str
    svg: str
    data: Table


@attrs.frozen
class Video:
    """``uri`` is a ``data:`` address; empty where ``problem`` says why there is none."""

    title: str
    file: str
    uri: str = ""
    moving_image: bool = False
    problem: str = ""


@attrs.frozen(kw_only=True)
class Block:
    """One subject of a section, in this order."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    videos: Sequence[Video] = ()


@attrs.frozen
class Verdict:
    """An effect in words: its name, what was found over all tasks and the number (empty where
    that is not known), and what was found by task."""

    effect: str
    word: str
    tone: Tone
    number: str
    by_task: str


@attrs.frozen(kw_only=True)
class Part:
    """A section. ``mixed`` is empty where nothing was mixed."""

    title: str
    anchor: str
    mixed: str
    basis: Table
    verdicts: Sequence[Verdict]
    blocks: Sequence[Block]
    warning: str = "Differences between cells may come from what was mixed."
    """What a reader of a mixed section must know."""
    nothing: str = "there are no two cells to compare"
    """What stands where there is no verdict."""


@attrs.frozen(kw_only=True)
class Page:
    """The whole report. ``attention``: (about what, what)."""

    name: str
    counts: str
    attention: Sequence[tuple[str, Sequence[str]]]
    parts: Sequence[Part]
    method: Sequence[str]
    nothing: str = "The comparison found nothing that calls for attention."
    """What stands where ``attention`` is empty."""
