"""The report's content as data: numbers as readers see them, sentences, tables, pictures."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Literal, TypeVar

import attrs

from fmbpo.base.text import NONE
from fmbpo.compare.comparison import Estimate, Section

Tone = Literal["", "decided", "open", "warning"]
"""The emphasis of a word, which only repeats the word's meaning."""
T = TypeVar("T")
LEVEL = "95\N{NO-BREAK SPACE}%"
"""The confidence of all intervals; never split at the end of a line."""
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: object) -> str:
    """The text with a replacement character for each character that HTML or XML forbids."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(text))


def decimal(value: float | None, digits: int) -> str:
    """A number with ``digits`` decimals and a true minus sign; ``NONE`` for None."""
    if value is None:
        return NONE
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def significant(value: float | None) -> str:
    """A number with three significant digits, without an exponent if that is readable."""
    if value is None or value == 0 or not math.isfinite(value):
        return decimal(value, 0)
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size > 6:
        return f"{value:.2e}".replace("-", "−")
    return decimal(value, max(0, 2 - size))


def interval(estimate: Estimate, digits: int) -> str:
    """``[low, high]``; empty if the estimate has no interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{decimal(estimate.low, digits)}, {decimal(estimate.high, digits)}]"


def percent(share: float, digits: int = 0) -> str:
    """``60 %``, never split at the end of a line."""
    return f"{decimal(100 * share, digits)}\N{NO-BREAK SPACE}%"


@attrs.frozen
class Field:
    """A table's entry. ``value`` is the unrounded number; ``note`` is shown under the text."""

    text: str
    value: float | None = None
    note: str = ""
    tone: Tone = ""

    @classmethod
    def number(cls, value: float | None, digits: int) -> Field:
        """A number with ``digits`` decimals."""
        return cls(decimal(value, digits), value)

    @classmethod
    def rough(cls, value: float | None) -> Field:
        """A number with three significant digits."""
        return cls(significant(value), value)

    @classmethod
    def estimate(cls, estimate: Estimate | None, digits: int) -> Field:
        """A number, and under it its interval."""
        if estimate is None:
            return cls(NONE)
        text = decimal(estimate.value, digits)
        return cls(text, estimate.value, interval(estimate, digits))


@attrs.frozen
class Column(Generic[T]):
    """A column of a table: ``field(item)`` is its entry in the row of an item.

    Numeric columns are right-aligned and sorted by value. Neighbours of a group share a heading.
    """

    title: str
    field: Callable[[T], Field]
    numeric: bool = True
    group: str = ""


def words(title: str, text: Callable[[T], str]) -> Column[T]:
    """A column of texts; ``NONE`` for an empty one."""
    return Column(title, lambda item: Field(text(item) or NONE), numeric=False)


@attrs.frozen
class Table:
    """A row for each item; the first entry names the row. ``title`` is the caption."""

    title: str
    columns: Sequence[Column[Any]]
    items: Iterable[Any]
    notes: Sequence[str] = ()
    sortable: bool = True

    @property
    def rows(self) -> list[list[Field]]:
        """The entries, by row and column."""
        return [[column.field(item) for column in self.columns] for item in self.items]

    @property
    def groups(self) -> list[tuple[str, list[tuple[int, Column[Any]]]]]:
        """Runs of neighbouring columns by group, each column with its place."""
        groups = itertools.groupby(enumerate(self.columns), lambda place: place[1].group)
        return [(name, list(found)) for name, found in groups]


@attrs.frozen
class Picture:
    """A figure as SVG text, a ``description`` for readers who cannot see it, and its numbers."""

    name: str
    title: str
    description: str
    svg: str
    data: Table


@attrs.frozen
class Video:
    """``uri`` is a ``data:`` address; it is empty if ``problem`` says why the video is missing."""

    title: str
    file: str
    uri: str = ""
    moving_image: bool = False
    problem: str = ""


@attrs.frozen(kw_only=True)
class Block:
    """One subject of a section. The page shows the parts in this order."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    videos: Sequence[Video] = ()


@attrs.frozen
class Answer:
    """An effect in plain words: the contrast, its verdict, a sentence, the verdicts by task."""

    topic: str
    word: str
    tone: Tone
    text: str
    by_task: str


@attrs.frozen
class Caveat:
    """A limit of the answers, and its subject in a word or two."""

    topic: str
    text: str
    tone: Tone = ""


@attrs.frozen
class First:
    """The first screen of a section: what was run, answers, figures, caveats.

    ``registered``: the answers to registered hypotheses; the other ``answers`` are exploratory.
    """

    facts: str
    registered: Sequence[Answer]
    answers: Sequence[Answer]
    pictures: Sequence[Picture]
    caveats: Sequence[Caveat]


@attrs.frozen
class Part:
    """A section of the page."""

    section: Section
    anchor: str
    first: First
    basis: Table
    blocks: Sequence[Block]
