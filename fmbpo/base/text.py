"""Numbers and messages as readable text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_CONTROLS = ("Cc", "Cs", "Zl", "Zp")
NONE = "–"
"""The entry for a missing number."""


def clock(seconds: float | None) -> str:
    """Seconds as ``0:07:09`` or ``2d 03:00:00``; ``-:--:--`` if unknown."""
    if seconds is None:
        return "-:--:--"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}:{second:02}"
    return f"{hour}:{minute:02}:{second:02}"


def bytes_text(count: float) -> str:
    """A number of bytes as ``1.2 GB``, in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def counted(number: int, thing: str) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], last: str) -> str:
    """``a``, ``a or b``, ``a, b or c`` for "or" as ``last``; empty without names."""
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def speed(rate: float | None) -> str:
    """Iterations per second, or seconds per iteration if the rate is below 1."""
    if rate is None:
        return "- it/s"
    return f"{rate:.3g} it/s" if rate >= 1 else f"{1 / rate:.3g} s/it"


def console(stream: TextIO, width: int | None = None, *, terminal: bool | None = None) -> Console:
    """rich's, which takes nothing in a text for markup, an emoji or a number to colour."""
    from rich.console import Console

    return Console(
        file=stream,
        width=width,
        force_terminal=terminal,
        markup=False,
        emoji=False,
        highlight=False,
    )


def printable(text: str, keep: str = "") -> str:
    """The text with its control characters except ``keep`` as ``\\x1b``: a terminal would obey
    them, and a line end breaks a row."""

    def shown(c: str) -> str:
        return ascii(c)[1:-1] if unicodedata.category(c) in _CONTROLS and c not in keep else c

    return "".join(map(shown, text))


def said(error: BaseException) -> str:
    """An exception's name, and the first line of its text if it has one."""
    return ": ".join(filter(None, (type(error).__name__, one_line(text_of(error)))))


def text_of(error: BaseException) -> str:
    """An exception's text; empty if it cannot be had."""
    try:
        return str(error)
    except Exception:  # of a plugin's own exception
        return ""


def one_line(text: str) -> str:
    """The first line that is not empty."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


_TIMES = (
    r"(?P<hours>\d+)h",
    r"(?P<minutes>\d+)m?",
    r"(?P<seconds>\d+)s",
    r"(?P<minutes>\d+):(?P<seconds>[0-5]?\d)",
    r"((?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>[0-5]?\d):(?P<seconds>[0-5]?\d)",
    r"(?P<days>\d+)-(?P<hours>\d+)(:(?P<minutes>[0-5]?\d))?",
)
"""The formats of a time limit; see ``duration``."""
_SECONDS = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
_LONGEST = 366
"""The longest time limit in days; longer ones could overflow the system's timer."""


def duration(text: str) -> float:
    """Seconds of ``90m``, ``2h``, ``45s``, or of a time in SLURM's formats.

    SLURM's are ``MM``, ``MM:SS``, ``HH:MM:SS``, ``D-HH``, ``D-HH:MM`` and ``D-HH:MM:SS``. Raises
    ``ValueError`` for anything else, for zero, and for more than 366 days.
    """
    found = [match for form in _TIMES if (match := re.fullmatch(form, text, re.ASCII))]
    given = found[0].groupdict("0") if found else {}
    seconds = sum(_SECONDS[unit] * float(number) for unit, number in given.items())
    if not seconds:
        raise ValueError(
            f"{text!r} is not a time limit: give 90m, 2h, 45s, MM, MM:SS, HH:MM:SS or D-HH:MM:SS"
        )
    if seconds > _LONGEST * _SECONDS["days"]:
        raise ValueError(f"{text[:20]!r} is more than {_LONGEST} days: give a shorter time")
    return seconds
