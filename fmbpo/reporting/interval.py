"""Student's t intervals and comparisons of returns, for the tables that close runs and studies.

Policies of one replicate share its world model, and episodes share their policy. So the sample is
that of the replicates' means if there are several, else of the policies' means, else of the
episodes. An interval over policies says nothing about other world models, one over episodes
nothing about training; the table must say which it is (``basis``).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import attrs

from fmbpo.base.metrics import replicate_of
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
    """The independent values of a task: means of replicates, else of policies, else episodes."""
    return _sample({seed: one.returns for seed, one in task.seeds.items()})


def planned_sample(task: TaskResult) -> list[float]:
    """The same for planning at test time; empty unless every policy was evaluated with planning."""
    return _known({seed: one.planned_returns or () for seed, one in task.seeds.items()})


def stochastic_sample(task: TaskResult) -> list[float]:
    """The same with the policies' noise drawn; empty unless every policy was evaluated with it."""
    return _known({seed: one.stochastic_returns or () for seed, one in task.seeds.items()})


def _known(returns: Mapping[str, Sequence[float]]) -> list[float]:
    return _sample(returns) if all(returns.values()) else []


def _sample(returns: Mapping[str, Sequence[float]]) -> list[float]:
    if len(returns) == 1:
        return list(*returns.values())
    return independent({seed: statistics.fmean(episodes) for seed, episodes in returns.items()})


def independent(means: Mapping[str, float]) -> list[float]:
    """The replicates' means of the policies' means by seed; of one replicate, the policies'."""
    by_replicate: dict[str, list[float]] = {}
    for seed, mean in means.items():
        by_replicate.setdefault(replicate_of(seed), []).append(mean)
    policies = list(by_replicate.values())
    return policies[0] if len(policies) == 1 else [statistics.fmean(one) for one in policies]


def basis(task: TaskResult) -> str:
    """The sample behind the interval of this task: ``3 seeds``, ``3 policies of 1 seed`` or
    ``10 episodes of 1 seed``."""
    size = len(sample(task))
    if len({replicate_of(seed) for seed in task.seeds}) > 1:
        return f"{size} seeds"
    what = "policies" if len(task.seeds) > 1 else "episodes" if size > 1 else "episode"
    return f"{size} {what} of 1 seed"


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
