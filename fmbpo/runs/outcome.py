"""The end of an incomplete run: ``failed.json`` or ``stopped.json`` in its folder.

The process that continues the run removes them. A run without note, summary and lock was killed.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import attrs

from fmbpo.base.files import write_json
from fmbpo.base.lock import this_process
from fmbpo.base.structure import plain, read_as
from fmbpo.base.text import one_line, said
from fmbpo.errors import UserError

FAILED, STOPPED = "failed.json", "stopped.json"


class Interrupted(BaseException):
    """A request to stop (Ctrl-C, a scheduler, the time limit) ended the run; everything is saved.

    Like ``KeyboardInterrupt`` it is not an ``Exception``: it can occur anywhere and is not a
    failure. ``where``: the place in the run; ``why``: a signal's name or "time limit";
    ``at_once``: nothing was saved first.
    """

    def __init__(self, where: str, why: str = "", *, at_once: bool = False) -> None:
        self.where, self.why, self.at_once = where, why, at_once
        super().__init__(where)


@attrs.frozen
class _Outcome:
    """``reason`` is one line, ``time`` is in seconds since 1970."""

    reason: str
    where: str
    time: float
    pid: int
    host: str


def write_outcome(folder: Path, error: BaseException) -> None:
    """Record the end of the run. Never raises: the error itself must reach the user.

    An ``Exception`` is a failure; anything else (``Interrupted``, Ctrl-C) is a stop.
    """
    if isinstance(error, Interrupted):
        reason, where = error.why or "asked to stop", error.where
    elif isinstance(error, UserError):
        reason, where = error.what, error.where.removeprefix(str(folder)).strip(" ()")
    else:
        reason, where = said(error), ""
    note = _Outcome(one_line(reason), where, time.time(), **this_process())
    name = FAILED if isinstance(error, Exception) else STOPPED
    with contextlib.suppress(OSError, UserError):
        write_json(folder / name, plain(note))


def read_outcome(file: Path) -> str | None:
    """The recorded reason and place; None if there is no such file."""
    note = read_as(file, _Outcome)
    if note is None or not note.reason:
        return "the reason cannot be read" if file.exists() else None
    return f"{note.reason} ({note.where})" if note.where else note.reason


def clear_outcome(folder: Path) -> None:
    """Remove both files; only for the process that holds the run's lock."""
    for name in (FAILED, STOPPED):
        (folder / name).unlink(missing_ok=True)
