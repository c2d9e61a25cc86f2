"""Verdicts on an expected difference with an equivalence margin, and the power to reach them.

Two one-sided tests (TOST, Schuirmann 1987, J. Pharmacokinet. Biopharm. 15) call a difference
equivalent to none if it is significantly above the margin's lower end and significantly below its
upper end, each at the level of all other tests (``t_test.LEVEL``). The power of a test follows from
the noncentral t distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from scipy import stats

from fmbpo.compare.comparison import OVERALL, UNIT, Effect
from fmbpo.compare.t_test import LEVEL, Difference

Expected: TypeAlias = Literal["above", "below", "equivalent"]
"""A difference above 0, below 0, or within the margin."""
Outcome: TypeAlias = Literal["supported", "contradicted", "equivalent", "undecided"]
_POINTS = 2000


def outcome(effect: Effect, margin: float, expected: Expected) -> Outcome:
    """What the test of an effect says about an expectation; ``margin``: of returns / ``UNIT``.

    A difference that is equivalent to none is "equivalent", even if it is significant, because the
    margin says that it does not matter; it supports an expected equivalence. An expected direction
    is contradicted by a significant difference in the other, an expected equivalence by one that is
    significantly beyond the margin. Without a variance everything is undecided.
    """
    value, error = effect.difference.value, effect.error
    if error is None or effect.freedom is None:
        return "undecided"
    one_sided, two_sided = _quantiles(effect.freedom)
    limit = margin if effect.task == OVERALL else margin * UNIT
    if abs(value) + one_sided * error < limit:
        return "supported" if expected == "equivalent" else "equivalent"
    beyond = limit if expected == "equivalent" else 0.0
    if abs(value) - two_sided * error <= beyond:
        return "undecided"
    sign = "above" if value > 0 else "below"
    return "supported" if expected == sign else "contradicted"


def design(spread: float, replicates: int, weights: Sequence[float] = (1.0, -1.0)) -> Difference:
    """The test of no difference that ``replicates`` in each kind of world model will allow.

    ``spread``: the standard deviation between the replicates of a kind, of what ``weights`` adds
    up. For a world model's effect that is a replicate's mean, with the weights 1 and -1; for a
    policy's effect it is the difference within a replicate, with a weight of 1 / kinds for each.
    """
    error = spread * math.sqrt(math.fsum(w**2 for w in weights) / replicates)
    return Difference(0.0, error, len(weights) * (replicates - 1))


def power(test: Difference, difference: float) -> float:
    """The probability that a true difference is found significant, with its own sign."""
    if not test.error or not test.freedom:
        return float(bool(test.freedom) and difference != 0)
    _, two_sided = _quantiles(test.freedom)
    return float(stats.nct.sf(two_sided, test.freedom, abs(difference) / test.error))


def equivalence_power(test: Difference, margin: float, difference: float = 0.0) -> float:
    """The probability that a true difference is found equivalent to none.

    The normal probability that the estimate lies far enough inside the margin, averaged over the
    distribution of its standard error (a chi), at ``_POINTS`` equally likely values.
    """
    if not test.error or not test.freedom:
        return float(bool(test.freedom) and abs(difference) < margin)
    t, _ = _quantiles(test.freedom)
    likely = (np.arange(_POINTS) + 0.5) / _POINTS
    far = t * np.sqrt(stats.chi2.ppf(likely, test.freedom) / test.freedom)
    upper = stats.norm.cdf((margin - difference) / test.error - far)
    lower = stats.norm.cdf(far - (margin + difference) / test.error)
    return float(np.maximum(upper - lower, 0.0).mean())


def _quantiles(freedom: float) -> tuple[float, float]:
    """Student's t of a one-sided and of a two-sided test."""
    return float(stats.t.ppf(LEVEL, freedom)), float(stats.t.ppf((1 + LEVEL) / 2, freedom))
