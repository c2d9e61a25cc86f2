"""Student's t intervals and comparisons of returns, for the tables that close runs and studies.

Episodes of one seed share its trained policy, so with two or more seeds the sample is the seeds'
means. With one seed only its episodes are left; the interval then covers the noise of the
evaluation, not of training, and the table must say so (``basis``). Reports on several runs use
the bootstrap of ``fmbpo.compare.statistics``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import attrs

from fmbpo.runs.summary import TaskResult

LEVEL = 0.95
"""Confidence of every interval and test in this module."""


@attrs.frozen
class Interval:
    """``mean`` ± ``half`` in units of return; ``half`` is None for a sample of one."""

    mean: float
    half: float | None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.half is None else f"{self.mean:.1f} ± {self.half:.1f}"


def sample(task: TaskResult) -> list[float]:
    """The independent values of a task: the means of two or more seeds, else the episodes."""
    if len(task.seeds) >= 2:
        return task.seed_means
    return list(next(iter(task.seeds.values())).returns)


def planned_sample(task: TaskResult) -> list[float]:
    """The same for planning at test time; empty unless every seed was evaluated with planning."""
    found = [list(seed.planned_returns or ()) for seed in task.seeds.values()]
    if not all(found):
        return []
    return [statistics.fmean(returns) for returns in found] if len(found) >= 2 else found[0]


def basis(task: TaskResult) -> str:
    """The sample behind the interval of this task: ``3 seeds`` or ``10 episodes of 1 seed``."""
    if len(task.seeds) >= 2:
        return f"{len(task.seeds)} seeds"
    episodes = len(sample(task))
    return f"{episodes} episode{'s' if episodes > 1 else ''} of 1 seed"


def interval_note(tasks: Iterable[TaskResult]) -> str:
    """The note under a table that explains its ±."""
    return f"±: 95 % t interval over {' / '.join(sorted({basis(task) for task in tasks}))}."


def t_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of independent values. ``ValueError`` without values."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None)
    from scipy.special import stdtrit  # importing scipy.stats takes a second

    error = statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * error)


def above(a_returns: Sequence[float], b_returns: Sequence[float]) -> bool:
    """Whether the mean of ``a`` is above the mean of ``b`` beyond the 95 % interval.

    Welch's two-sided t interval of the difference, which does not assume equal variances, must be
    above 0. False for a sample of fewer than two values. Two samples without variance are compared
    by their means.
    """
    if len(a_returns) < 2 or len(b_returns) < 2:
        return False
    a, b = ((statistics.fmean(x), statistics.stdev(x), len(x)) for x in (a_returns, b_returns))
    if a[1] == b[1] == 0:
        return a[0] > b[0]
    from scipy.special import stdtrit

    shares = [deviation**2 / n for _, deviation, n in (a, b)]
    of_each = zip(shares, (a, b), strict=True)
    freedom = sum(shares) ** 2 / sum(share**2 / (n - 1) for share, (_, _, n) in of_each)
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(sum(shares))
    return a[0] - b[0] > half
