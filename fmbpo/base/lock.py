"""A lock that lasts at most as long as the process that holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fmbpo.base.files import disk_errors
from fmbpo.errors import UserError

_TAKEN = {errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN}
_UNKNOWN = "another process"
_ATTEMPTS, _PAUSE = 5, 0.05  # seconds; ``fmbpo status`` holds a lock for an instant


class Taken(Exception):
    """Another process, the ``holder``, works on ``place``. No mistake: once it has ended, the same
    command works."""

    def __init__(self, place: Path, holder: str) -> None:
        self.place = place
        super().__init__(place, holder)  # as given, so that it can be pickled

    def __str__(self) -> str:
        return "{}: in use by {}".format(*self.args)


class RunLock:
    """An exclusive lock on a file, held until ``release`` or the end of the process.

    The kernel releases it with the process, so a crash leaves no stale lock. The file names the
    holder. Raises ``Taken``, which names ``place``, if another process has the lock.
    """

    def __init__(self, path: Path, place: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._acquire(place)
        except BaseException:
            self.forget()
            raise
        me = this_process()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {me['pid']} on {me['host']}\n".encode(), 0)
        _held.add(self)

    def _acquire(self, place: Path) -> None:
        for _ in range(_ATTEMPTS):
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _TAKEN:
                    what = f"cannot be locked ({error.strerror})"
                    remedy = "choose an output folder on another disk"
                    raise UserError(what, where=str(place), remedy=remedy) from error
            time.sleep(_PAUSE)
        raise Taken(place, _holder(self._descriptor))

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.forget()

    def forget(self) -> None:
        """Close the file without unlocking it: a forked child would keep its parent's lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in _held:
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """No other process writes ``out`` inside the block; makes its folder.

    Raises ``Taken`` if one does, ``UserError`` if the folder cannot be written.
    """
    file = out.with_name(f".{out.name}.lock")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = RunLock(file, out)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def holder_of(path: Path) -> str:
    """The holder of the ``RunLock`` on this file, ``process N on HOST``; empty if it is free."""
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                return _holder(file.fileno()) if error.errno in _TAKEN else ""
    except OSError as error:
        return _UNKNOWN if error.errno in _TAKEN else ""
    return ""


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or _UNKNOWN


def this_process() -> dict[str, Any]:
    """``pid`` and ``host`` of this process, for locks and heartbeats."""
    return {"pid": os.getpid(), "host": socket.gethostname()}
