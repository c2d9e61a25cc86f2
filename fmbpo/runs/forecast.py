"""Forecasts the end of a stage and its run, once, from the stage's first updates."""

from __future__ import annotations

import time

import attrs

from fmbpo.base.text import clock

AFTER = 200
"""Updates of this process before the forecast; the first, which may compile, is not timed."""


@attrs.frozen
class Outlook:
    """The work of a run after a stage."""

    alike: int = 0
    """Further stages of the same size."""
    evaluations: float = 0.0
    """The work at the end of each stage, as a number of the stage's evaluations."""
    seconds: float | None = 0.0
    """Seconds of everything else; None if unknown."""


@attrs.define
class Forecast:
    """Times updates and evaluations of a stage separately, since evaluations are rare and long.

    This process continues from iteration ``start``. Times are those of ``time.monotonic``.
    """

    stage: str
    iterations: int
    evaluate_every: int
    start: int
    outlook: Outlook
    _began: float = attrs.field(default=0.0, init=False)
    _apart: float = attrs.field(default=0.0, init=False)
    _evaluation: float | None = attrs.field(default=None, init=False)

    @property
    def timed(self) -> bool:
        """Whether the duration of an evaluation is known."""
        return self._evaluation is not None

    def evaluated(self, seconds: float) -> None:
        """Record the duration of an evaluation."""
        self._evaluation = seconds
        self._apart += seconds

    def updated(self, iteration: int, now: float, deadline: float | None) -> str | None:
        """The forecast at the one iteration when it is due, else None. Call it after every
        iteration and its evaluation. ``deadline``: the latest end of the run, on ``now``'s clock.
        """
        if iteration == self.start + 1:
            self._began, self._apart = now, 0.0
        if iteration != self.start + AFTER or iteration >= self.iterations:
            return None
        update = (now - self._began - self._apart) / (AFTER - 1)
        evaluation, outlook = self._evaluation or 0.0, self.outlook
        ends = outlook.evaluations * evaluation

        def seconds(iteration: int) -> float:
            rest = -(-self.iterations // self.evaluate_every) - iteration // self.evaluate_every
            return (self.iterations - iteration) * update + rest * evaluation

        whole = stage = seconds(iteration)
        said = f"{self.stage} ends in about {_moment(stage)}"
        if outlook.seconds is None:
            said += "; the duration of the rest of the run is not known"
        else:
            whole += ends + outlook.alike * (seconds(0) + ends) + outlook.seconds
            said += f", the run in about {_moment(whole)}"
        if self._evaluation is None:
            said += ", evaluations not counted"
        if deadline is None:
            return said
        limit = f"the time limit, {clock(max(deadline - now, 0))} from now"
        if whole <= deadline - now:
            return f"{said}; this fits {limit}"
        end = "the run stops there and saves everything; the same command continues it"
        return f"{said}; this does NOT fit {limit}: {end}"


def _moment(seconds: float) -> str:
    """``0:12:30 (14:02)``: the time from now, and the time of day."""
    at = time.localtime(time.time() + seconds)
    same_day = at[:3] == time.localtime()[:3]
    return f"{clock(seconds)} ({time.strftime('%H:%M' if same_day else '%Y-%m-%d %H:%M', at)})"
