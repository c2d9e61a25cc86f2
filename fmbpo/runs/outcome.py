"""How a run ended that is not complete: ``failed.json`` or ``stopped.json`` in its folder.

Both hold ``reason`` (one line), ``where``, ``time`` (seconds since 1970), ``pid`` and ``host``;
the process that continues the run removes them. A run without summary, lock and either file was
killed.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from fmbpo.base.files import write_json
from fmbpo.base.lock import this_process
from fmbpo.base.text import one_line
from fmbpo.errors import UserError

FAILED, STOPPED = "failed.json", "stopped.json"


class Interrupted(BaseException):
    """Someone asked the run to stop (Ctrl-C, a scheduler, the time limit); everything is saved.

    Like ``KeyboardInterrupt`` no ``Exception``: it may rise anywhere, and is nobody's failure.
    ``where`` it stopped; ``why``: a signal's name or "time limit".
    """

    def __init__(self, where: str, why: str = "") -> None:
        self.where, self.why = where, why
        super().__init__(where)


def write_outcome(folder: Path, error: BaseException) -> None:
    """Leave a note of how the run ended. Never fails: the error itself must reach the user.

    Every ``Exception`` is a failure; what is none (``Interrupted``, Ctrl-C) is a stop.
    """
    if isinstance(error, Interrupted):
        reason, where = error.why or "asked to stop", error.where
    elif isinstance(error, UserError):
        reason, where = error.what, error.where.removeprefix(str(folder)).strip(" ()")
    else:
        reason, where = ": ".join(filter(None, (type(error).__name__, str(error)))), ""
    note = {"reason": one_line(reason), "where": where, "time": time.time(), **this_process()}
    name = FAILED if isinstance(error, Exception) else STOPPED
    with contextlib.suppress(OSError, UserError):
        write_json(folder / name, note)


def clear_outcome(folder: Path) -> None:
    """The run is worked on again. For the process that holds its lock."""
    for name in (FAILED, STOPPED):
        (folder / name).unlink(missing_ok=True)
