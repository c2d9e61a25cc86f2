"""Lines that tell how far a long command is, how fast it goes and when it will end."""

from __future__ import annotations

import time

from fmbpo.cli.arguments import say

EVERY = 5.0
"""Seconds between two lines."""


class Lines:
    """Called with a stage, the number done and the total; at most one line per ``EVERY`` seconds.

    The stage ``of_bytes`` counts bytes.
    """

    def __init__(self, of_bytes: str = "") -> None:
        from fmbpo.runs.progress import Pace

        self._of_bytes = of_bytes
        self._pace = Pace("", 0, 0, 0.0)
        self._said = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` of the stage."""
        from fmbpo.base.text import bytes_text, clock
        from fmbpo.runs.progress import Pace

        now = time.monotonic()
        if self._pace.stage != stage:
            self._pace, self._said = Pace(stage, done, total, now), now
        self._pace.step = done
        if now - self._said < EVERY and done < total:
            return
        self._said = now
        rate = self._pace.rate(now)
        number = bytes_text if stage == self._of_bytes else "{:,.0f}".format
        speed = f"{number(rate) if rate >= 10 else f'{rate:.2g}'} per second, " if rate else ""
        left = clock(self._pace.left(now) if done < total else 0)
        say(f"{stage}: {number(done)} of {number(total)}, {speed}{left} left")
