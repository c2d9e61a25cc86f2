"""Requests to stop: signals and the time limit, answered at moments when nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from fmbpo.runs.outcome import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""A person's Ctrl-C, a scheduler's end, and the signal that a scheduler can send before it."""
SHARE, MOST = 0.05, 120.0
"""The least margin before a time limit: this share of it, and no more than so many seconds."""
SAFETY = 1.5
"""The margin is at least this multiple of the longest way to a saved state seen so far."""


class Stop:
    """Turns signals and a time limit into a request that the loop answers between two iterations.

    A second signal ends the run at once, without another checkpoint.

    The time limit is a request like any other, made a margin before ``deadline``. The margin is 5 %
    of the limit but at most two minutes, or 1.5 times the longest iteration + evaluation +
    diagnosis + checkpoint seen in this process, whichever is more: so long the answer may take.
    """

    def __init__(self, deadline: float | None = None) -> None:
        """``deadline``: when the process must have ended, on the clock of ``time.monotonic``."""
        self.requested = False
        self.deadline = deadline
        self.why = ""
        """Who asked: the signal's name, or "time limit"."""
        left = 0.0 if deadline is None else max(deadline - time.monotonic(), 0.0)
        self._least = min(SHARE * left, MOST)
        self._longest: dict[str, float] = {}  # seconds, by what took them
        self._at_once = self._listening = self._signalled = False

    @property
    def margin(self) -> float:
        """Seconds before the deadline at which the request is made."""
        return max(self._least, SAFETY * sum(self._longest.values()))

    def took(self, what: str, seconds: float) -> None:
        """A part of the way to a saved state took so long; the margin covers each one's longest."""
        if seconds > self._longest.get(what, 0.0):
            self._longest[what] = seconds
            self._set_timer()

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Handlers and the timer are in place inside the block."""

        def ask(number: int, _: FrameType | None) -> None:
            by_clock = number == signal.SIGALRM
            if by_clock and self.requested:
                return
            again = self._signalled and not by_clock
            self._signalled |= not by_clock
            self.why = self.why or ("time limit" if by_clock else signal.Signals(number).name)
            if again or self._at_once:
                raise Interrupted("stopped at once; everything saved is kept", self.why)
            first, self.requested = not self.requested, True
            if first:
                # Not print: the signal may have come in the middle of one.
                text = f"{self.why}: stopping after this iteration; once more: at once\n"
                with suppress(OSError):
                    os.write(2, text.encode())

        previous = {s: signal.signal(s, ask) for s in (*SIGNALS, signal.SIGALRM)}
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
        """Nothing is lost inside the block: a request that came, or comes, raises there."""
        self.check("all training is saved")
        self._at_once = True
        try:
            yield
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
