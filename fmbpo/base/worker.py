"""Worker processes that simulate: new interpreters, with a socket to each."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fmbpo.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Requests to stop: Ctrl-C, a scheduler's request to end, a closed terminal, and the two warnings
that a scheduler can send before the end. Workers block them, since the parent handles them."""

_EXIT_SECONDS = 5.0
_ORPHAN_CHECK_SECONDS = 5.0


class Worker:
    """A worker process with one thread, and its socket; a context manager.

    It is a new interpreter, since a ``multiprocessing`` process would import the caller's main
    module again, and with it torch. It finds the modules that this process finds, but none in the
    working directory.
    """

    def __init__(self, module: str) -> None:
        """``module`` has a function ``serve(descriptor)``, which calls `answer`.

        Raises ``UserError`` if the system allows no further process.
        """
        environment = {**os.environ, "PYTHONPATH": search_path(), "OMP_NUM_THREADS": "1"}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # which the process inherits
        try:
            self.link, theirs = Pipe()
            self._words = tempfile.TemporaryFile()  # noqa: SIM115
            with theirs:
                command = f"from {module} import serve; serve({theirs.fileno()})"
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", command],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._words,
                    pass_fds=[theirs.fileno()],
                )
        except OSError as error:
            what = f"a process that simulates cannot be started ({error.strerror})"
            raise UserError(what, remedy="use fewer workers") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, request: Any) -> None:
        """Send a request without waiting; call ``receive`` once afterwards."""
        # If the worker has ended, receive() reports the reason.
        with contextlib.suppress(ConnectionError):
            self.link.send(request)

    def receive(self) -> Any:
        """The answer. Raises the worker's own exception, or ``UserError`` if it has ended."""
        try:
            found = self.link.recv()
        except (EOFError, ConnectionError) as error:
            raise self._ended() from error
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """End the process at once."""
        self.link.close()
        self._process.kill()
        self._process.wait()
        self._words.close()

    def _ended(self) -> UserError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS)
        self._words.seek(0)
        last = self._words.read().decode(errors="replace").strip().rpartition("\n")[2]
        what = f"a process that simulates ended unexpectedly (exit status {self._process.poll()})"
        remedy = "mend the cause; if memory ran short, use fewer workers; finished work is kept"
        return UserError(f"{what}: {last}" if last else what, remedy=remedy)


def search_path() -> str:
    """That of this process, without the working directory, which ``python -c`` and ``-m`` put
    first, unless fmbpo is there."""
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was removed
        here = ""
    added = sys.path[0] == here != str(Path(__file__).parents[2]) and not sys.flags.safe_path
    return os.pathsep.join(filter(None, sys.path[added:]))


def answer(descriptor: int, reply: Callable[[Any], Any]) -> None:
    """In a worker: reply to the parent at the other end of a socket until it is gone.

    The socket is inherited as a file ``descriptor``. An exception of ``reply`` is an answer too.
    """
    link, parent = Connection(descriptor), os.getppid()
    with contextlib.suppress(EOFError, ConnectionError):  # the parent is gone
        while True:
            # The socket closes with the parent, unless a fork of the parent keeps it open.
            while not link.poll(_ORPHAN_CHECK_SECONDS):
                if os.getppid() != parent:
                    return
            request = link.recv()
            try:
                found = reply(request)
            except Exception as error:
                found = error
            link.send(found)
