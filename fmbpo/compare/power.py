"""The power of a planned comparison, from the noncentral t distribution.

``alpha`` is the level of a test. Of several hypotheses together, Holm's strictest step is the level
of all other tests divided by their number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import chdtri, nctdtr, ndtr, stdtrit

from fmbpo.compare.contrasts import Contrast
from fmbpo.compare.t_test import LEVEL, Difference

ALPHA = 1 - LEVEL
WANTED = 0.8
"""The power that a study should have."""
_POINTS = 2000
_MOST = 1000


def design(spread: float, replicates: int, weights: Sequence[float] = (1.0, -1.0)) -> Difference:
    """The test of no difference that ``replicates`` in each kind of world model will allow.

    ``spread``: the standard deviation between the replicates of a kind, of what ``weights`` adds
    up. For a world model's effect that is a replicate's mean, with the weights 1 and -1; for a
    policy's effect it is the difference within a replicate, with a weight of 1 / kinds for each.
    """
    error = spread * math.sqrt(math.fsum(w**2 for w in weights) / replicates)
    return Difference(0.0, error, len(weights) * (replicates - 1))


def planned(of: Contrast, spread: float, replicates: int) -> Difference:
    """``design`` of a contrast between policies that meet the same world models.

    ``spread``: for a world model's effect between the replicates' means; for a policy's effect and
    an interaction, of the differences within replicates.
    """
    if of.kind != "policy":
        return design(spread, replicates)
    return design(spread, replicates, [1 / len(of.pairs)] * len(of.pairs))


def power(test: Difference, difference: float, alpha: float = ALPHA) -> float:
    """The probability that a true difference is found significant, with its own sign."""
    if not test.error or not test.freedom:
        return float(bool(test.freedom) and difference != 0)
    critical = float(stdtrit(test.freedom, 1 - alpha / 2))
    return 1.0 - float(nctdtr(test.freedom, abs(difference) / test.error, critical))


def equivalence_power(
    test: Difference, margin: float, difference: float = 0.0, alpha: float = ALPHA
) -> float:
    """The probability that a true difference is found equivalent to none.

    The normal probability that the estimate lies far enough inside the margin, averaged over the
    distribution of its standard error (a chi), at ``_POINTS`` equally likely values.
    """
    if not test.error or not test.freedom:
        return float(bool(test.freedom) and abs(difference) < margin)
    t = float(stdtrit(test.freedom, 1 - alpha))
    rare = (np.arange(_POINTS) + 0.5) / _POINTS
    far = t * np.sqrt(chdtri(test.freedom, rare) / test.freedom)
    upper = ndtr((margin - difference) / test.error - far)
    lower = ndtr(far - (margin + difference) / test.error)
    return float(np.maximum(upper - lower, 0.0).mean())


def smallest_found(test: Difference, alpha: float = ALPHA) -> float:
    """The true difference that is found with the power ``WANTED``; infinite without a variance."""
    if not test.error or not test.freedom:
        return 0.0 if test.freedom else math.inf
    low, high = 0.0, test.error
    while power(test, high, alpha) < WANTED:
        low, high = high, 2 * high
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(test, middle, alpha) >= WANTED else (middle, high)
    return high


def rescaled(error: float, freedom: float, replicates: int, more: int) -> Difference:
    """A test with ``more`` replicates of each kind, from one with this number, whose standard error
    and degrees of freedom these are: their spread stays the same."""
    freedom *= (more - 1) / (replicates - 1)
    return Difference(0.0, error * math.sqrt(replicates / more), freedom)


def replicates_needed(reached: Callable[[int], float]) -> int | None:
    """The fewest replicates with the power ``WANTED``, of which ``reached`` is the power; None if
    even ``_MOST`` are too few."""
    if reached(_MOST) < WANTED:
        return None
    return next(n for n in itertools.count(2) if reached(n) >= WANTED)
