"""Student's t for a weighted sum of means over few replicates of unequal variance.

The sum is of the groups' means, ``Σ w ȳ``. A replicate's *deviation* is the weighted sum of its
values' distances from their groups' means, ``d = Σ w (y - ȳ) / n``, over all groups and tasks that
it serves. In a stratum of n replicates the variance of the sum is ``n / (n-1) Σ d²``, with n-1
degrees of freedom; if every replicate serves every group, this is the variance of the mean of the
replicates' own sums. Over strata, variances add up and degrees of freedom follow Welch and
Satterthwaite (Welch 1947, Biometrika 34):

    error² = Σ v,   freedom = (Σ v)² / Σ (v² / (n-1)),   v = n / (n-1) Σ d².

For a world model's effect this is Welch's t of the replicates' means, for a policy's effect in one
kind of world model the paired t of the replicates' differences. In a balanced split plot of equal
variances the errors are those of the analysis of variance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from fmbpo.compare.comparison import Cell, Estimate
from fmbpo.compare.strata import Array, Stratum

LEVEL = 0.95
"""Confidence of every interval; 1 minus it is the level of every test."""


@attrs.frozen
class Difference:
    """A weighted sum of means; ``error`` (standard) and ``freedom`` are None without a variance."""

    value: float
    error: float | None = None
    freedom: float | None = None

    @property
    def p(self) -> float | None:
        """The two-sided p value."""
        if self.error is None or self.freedom is None:
            return None
        return float(p_value(self.value, self.error, self.freedom))

    @property
    def estimate(self) -> Estimate:
        """The value and its interval."""
        if self.error is None or self.freedom is None:
            return Estimate(self.value)
        half = float(stdtrit(self.freedom, (1 + LEVEL) / 2)) * self.error
        return Estimate(self.value, self.value - half, self.value + half)


def difference(parts: Sequence[Stratum], weights: Mapping[Cell, float]) -> Difference:
    """``Σ weights[cell] · mean over tasks of the mean over policies``, of strata of these cells.

    Without variance if a group has one replicate.
    """
    tasks = len({task for part in parts for _, task in part.groups})
    terms: list[float] = []
    deviations: list[tuple[Array, int]] = []
    for part in parts:
        of = np.zeros(part.values.shape[1])
        for group in dict.fromkeys(part.groups):
            values = part.values[part.rows(group)]
            weight = weights[group[0]] / (tasks * np.count_nonzero(~np.isnan(values)))
            terms += (weight * values[~np.isnan(values)]).tolist()
            of += weight * np.nansum(values - np.nanmean(values), axis=0)
        deviations.append((of, part.replicates))
    value = math.fsum(terms)  # exactly 0 if equal terms cancel
    if min(n for _, n in deviations) < 2:
        return Difference(value)
    error, freedom = standard_error(deviations)
    return Difference(value, float(error), float(freedom))


def standard_error(deviations: Sequence[tuple[Array, int]]) -> tuple[Any, Any]:
    """Error and degrees of freedom of deviations ``(..., replicates)``, one array per stratum.

    With each array the number of replicates that its smallest group has.
    """
    found = [(n / (n - 1) * np.sum(d**2, axis=-1), n - 1) for d, n in deviations]
    total = np.asarray(sum(v for v, _ in found))
    spread = np.asarray(sum(v**2 / freedom for v, freedom in found))
    fewest = min(freedom for _, freedom in found)
    safe = np.where(spread > 0, spread, 1.0)
    return np.sqrt(total), np.where(spread > 0, total**2 / safe, fewest)


def p_value(value: Any, error: Any, freedom: Any) -> NDArray[np.float64]:
    """Two-sided; without any spread 0 for a difference, 1 for none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(value) / error
    return np.where(np.isnan(t), 1.0, 2 * stdtr(freedom, -t))


def holm(p: Sequence[Any]) -> NDArray[np.float64]:
    """Adjusted p values ``(tests, ...)`` that keep the familywise level (Holm 1979)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, axis=0)
    left = np.arange(len(values), 0, -1).reshape(-1, *[1] * (values.ndim - 1))
    stepped = np.maximum.accumulate(np.take_along_axis(values, order, 0) * left, axis=0)
    found = np.empty_like(values)
    np.put_along_axis(found, order, np.minimum(stepped, 1.0), axis=0)
    return found
