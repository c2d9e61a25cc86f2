"""Requests to stop: signals and the time limit, answered when nothing is lost."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from fmbpo.base.worker import SIGNALS
from fmbpo.runs.outcome import Interrupted

SHARE, MOST = 0.05, 120.0
"""The least margin before a time limit: this share of the limit, at most this many seconds."""
_AT_ONCE = "stopped at once; everything saved is kept"
SAFETY = 1.5
"""The margin is at least this multiple of the longest way to a saved state seen so far."""


class Stop:
    """Turns signals and a time limit into a request that the loop answers between two iterations.

    A second signal ends the run at once, without another checkpoint.

    The time limit is a request like any other, made a margin before ``deadline``: the margin is
    the time that the response may take. It is 5 % of the limit but at most two minutes, or 1.5
    times the longest iteration + evaluation + diagnosis + checkpoint seen in this process,
    whichever is more.
    """

    def __init__(self, deadline: float | None = None, echo: float = 0.0) -> None:
        """``deadline``: the time by which the process must end, on the ``time.monotonic`` clock.

        ``echo``: seconds after the first signal in which further ones are the same request. A
        scheduler signals a launcher and its processes, and the launcher passes its signal on.
        """
        self.requested = False
        """Whether to save and stop; another thread may set it."""
        self.deadline = deadline
        self.why = ""
        """The origin of the request: the signal's name, or "time limit"."""
        left = 0.0 if deadline is None else max(deadline - time.monotonic(), 0.0)
        self._least = min(SHARE * left, MOST)
        self._longest: dict[str, float] = {}  # seconds, by what took them
        self._at_once = self._listening = False
        self._echo, self._signalled = echo, math.inf

    @property
    def margin(self) -> float:
        """Seconds before the deadline at which the request is made."""
        return max(self._least, SAFETY * sum(self._longest.values()))

    def took(self, what: str, seconds: float) -> None:
        """Record the duration of a step to a saved state; the margin covers the longest of each."""
        if seconds > self._longest.get(what, 0.0):
            self._longest[what] = seconds
            self._set_timer()
        if self.deadline is not None and not self._listening:
            late = time.monotonic() > self.deadline - self.margin
            self.requested, self.why = self.requested or late, self.why or late * "time limit"

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Install the handlers and the timer inside the block, if this is the main thread.

        Python gives signals to no other thread. There, ``took`` watches the time limit.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def ask(number: int, _: FrameType | None) -> None:
            # The clock is no signal; of a closed terminal, kernel and shell both tell.
            once = number in (signal.SIGALRM, signal.SIGHUP)
            if once and self.requested:
                return
            now = time.monotonic()
            again = now > self._signalled + self._echo and not once
            self._signalled = self._signalled if once else min(self._signalled, now)
            by_clock = number == signal.SIGALRM
            self.why = self.why or ("time limit" if by_clock else signal.Signals(number).name)
            first, self.requested = not self.requested, True
            if again or self._at_once:
                raise Interrupted(_AT_ONCE, self.why, at_once=True)
            if first:
                # Not print: the signal may have interrupted one.
                text = f"{self.why}: stopping after this iteration; once more: at once\n"
                with suppress(OSError):
                    os.write(2, text.encode())

        # Under nohup, and in the background, some are ignored, and stay so.
        heard = [s for s in SIGNALS if signal.getsignal(s) not in (signal.SIG_IGN, None)]
        previous = {s: signal.signal(s, ask) for s in (*heard, signal.SIGALRM)}
        self._listening = True
        self._set_timer()
        try:
            yield self
        finally:
            self._listening = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def ends_at_once(self) -> Iterator[None]:
        """Inside the block nothing can be lost, so a request raises, earlier ones included."""
        self.check("all training is saved")
        self._at_once = True
        try:
            yield
        except Exception as error:
            if self.requested:  # a module in C raises ImportError in place of what interrupts it
                raise Interrupted(_AT_ONCE, self.why, at_once=True) from error
            raise
        finally:
            self._at_once = False

    def check(self, where: str) -> None:
        """Raise ``Interrupted`` if a stop was requested."""
        if self.requested:
            raise Interrupted(where, self.why)

    def _set_timer(self) -> None:
        if self.deadline is not None and self._listening and not self.requested:
            left = self.deadline - self.margin - time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3))
