"""When a stage and its run will end, said once from the stage's first updates."""

from __future__ import annotations

import time

import attrs

from fmbpo.base.text import clock

AFTER = 200
"""Updates of this process from which a stage is judged; the first, which may compile, is not."""


@attrs.frozen
class Outlook:
    """What follows a stage."""

    alike: int = 0
    """Stages of the same size."""
    evaluations: float = 0.0
    """What ends each of them, in evaluations of the stage."""
    seconds: float | None = 0.0
    """All the rest; None: not known."""


@attrs.define
class Forecast:
    """Updates and evaluations of one stage are timed apart, since evaluations come in lumps.

    ``iterations`` and ``evaluate_every`` are the stage's, ``start`` is the iteration that this
    process continues from. Times are of ``time.monotonic``.
    """

    stage: str
    iterations: int
    evaluate_every: int
    start: int
    outlook: Outlook
    _began: float = attrs.field(default=0.0, init=False)
    _apart: float = attrs.field(default=0.0, init=False)
    _evaluation: float | None = attrs.field(default=None, init=False)

    def evaluated(self, seconds: float) -> None:
        """An evaluation took this long."""
        self._evaluation = seconds
        self._apart += seconds

    def updated(self, iteration: int, now: float, deadline: float | None) -> str | None:
        """To be called after every iteration and its evaluation: the forecast, when it is time.

        ``deadline``: when the run must stop at the latest, on the same clock as ``now``.
        """
        if iteration == self.start + 1:
            self._began, self._apart = now, 0.0
        if iteration != self.start + AFTER or iteration >= self.iterations:
            return None
        update = (now - self._began - self._apart) / (AFTER - 1)
        evaluation = self._evaluation or 0.0
        ends = self.outlook.evaluations * evaluation

        def seconds(iteration: int) -> float:
            rest = -(-self.iterations // self.evaluate_every) - iteration // self.evaluate_every
            return (self.iterations - iteration) * update + rest * evaluation

        stage = seconds(iteration)
        said = f"{self.stage} ends in about {_moment(stage)}"
        behind = self.outlook.seconds
        if behind is None:
            whole, said = stage, f"{said}; how long the run goes on then is not known"
        else:
            whole = stage + ends + self.outlook.alike * (seconds(0) + ends) + behind
            said = f"{said}, the run in about {_moment(whole)}"
        if self._evaluation is None:
            said = f"{said}, evaluations not counted"
        return said if deadline is None else f"{said}; {_limit(whole, deadline - now)}"


def _limit(seconds: float, left: float) -> str:
    """Whether so many seconds fit into those that are ``left``."""
    if seconds <= left:
        return f"this fits the time limit, {clock(max(left, 0))} from now"
    return (
        f"this does NOT fit the time limit, {clock(max(left, 0))} from now: the run stops there, "
        "all is saved, and the same command continues"
    )


def _moment(seconds: float) -> str:
    """``0:12:30 (14:02)``: how long from now, and what the clock on the wall will say."""
    at = time.localtime(time.time() + seconds)
    same_day = at[:3] == time.localtime()[:3]
    return f"{clock(seconds)} ({time.strftime('%H:%M' if same_day else '%Y-%m-%d %H:%M', at)})"
