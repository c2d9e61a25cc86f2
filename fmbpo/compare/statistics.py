"""Interquartile means, shares, probabilities and their 95 % intervals, over few replicates.

A *block* is an array ``(k, ..., n)``: k numbers of the same n replicates, which are resampled
jointly. A stratum (``strata``) is a block, with a row for each of a replicate's policies; different
blocks are resampled independently. So a world model that serves several tasks is drawn with all of
them (a cluster), and policies that have their own world model are drawn within each task and cell,
as in Agarwal et al. 2021 (arXiv 2108.13264). Middle axes are independent repetitions.

The percentile bootstrap is too narrow for few replicates, so its level is corrected: Hesterberg's
expanded percentile interval (arXiv 1411.5279) takes the quantiles at ``Φ(-√(n/(n-1)) t)`` and 1
minus that, where ``t`` is Student's for the pooled degrees of freedom. Means and differences need
no resampling (``t_test``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy.special import ndtr, stdtrit

from fmbpo.compare.comparison import Cell, Estimate
from fmbpo.compare.strata import Array, Stratum
from fmbpo.compare.t_test import LEVEL

RESAMPLES = 9999
"""Bootstrap samples of an interval."""
SEED = 20_210_813
"""Seed of the resampling, the same for every interval, so that reports are reproducible."""
_BATCH = 500
_ROOM = 10

Statistic: TypeAlias = Callable[..., Any]
"""``statistic(*blocks, axis=-1)`` reduces the last axis of the blocks, the replicates."""
Ends: TypeAlias = tuple[Any, Any]
"""Both ends of an interval: numbers, or arrays with one interval per repetition."""


def tail(sizes: Sequence[int]) -> float:
    """The corrected α/2 for blocks of these numbers of replicates; n is the smallest of them."""
    n, freedom = min(sizes), sum(size - 1 for size in sizes)
    t = stdtrit(freedom, (1 + LEVEL) / 2)
    return float(ndtr(-math.sqrt(n / (n - 1)) * t))


def reachable(sizes: Sequence[int]) -> bool:
    """Whether resampling can reach the corrected level, with room to spare.

    One resample in Π nⁿ draws only the lowest replicate of every block. Unless that is ``_ROOM``
    times rarer than ``tail``, the interval is little more than the range of the data, as for one
    block of five replicates or fewer.
    """
    extreme = -sum(n * math.log(n) for n in sizes)
    return min(sizes) > 1 and extreme + math.log(_ROOM) <= math.log(tail(sizes))


def bootstrap_interval(blocks: Sequence[Array], statistic: Statistic) -> Ends | None:
    """The expanded percentile interval; None if a block has a single replicate."""
    sizes = [block.shape[-1] for block in blocks]
    if min(sizes) < 2:
        return None
    from scipy.stats import bootstrap  # importing scipy.stats takes a second

    found = bootstrap(
        blocks,
        statistic,
        vectorized=True,
        axis=-1,
        method="percentile",
        confidence_level=1 - 2 * tail(sizes),
        n_resamples=RESAMPLES,
        batch=_BATCH,
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return found.low, found.high


def student_interval(blocks: Sequence[Array], statistic: Statistic) -> Ends | None:
    """Student's t interval with the bootstrap's standard error, over *all* resamples.

    For too few replicates to reach the level by resampling. For a mean it is the plain t interval.
    """
    sizes = [block.shape[-1] for block in blocks]
    if min(sizes) < 2:
        return None
    draws = itertools.product(*(itertools.product(range(n), repeat=n) for n in sizes))
    chosen = [np.array(indices) for indices in zip(*draws, strict=True)]
    resampled = [block[..., i] for block, i in zip(blocks, chosen, strict=True)]
    error = np.std(statistic(*resampled, axis=-1), axis=-1)
    n, freedom = min(sizes), sum(size - 1 for size in sizes)
    half = stdtrit(freedom, (1 + LEVEL) / 2) * math.sqrt(n / (n - 1)) * error
    value = statistic(*blocks, axis=-1)
    return value - half, value + half


def interval(blocks: Sequence[Array], statistic: Statistic) -> Ends | None:
    """The bootstrap's interval if resampling can reach its level, else Student's."""
    sizes = [block.shape[-1] for block in blocks]
    return (bootstrap_interval if reachable(sizes) else student_interval)(blocks, statistic)


# -- numbers of a cell ---------------------------------------------------------------------------


def iqm_of(parts: Sequence[Stratum]) -> Estimate:
    """The interquartile mean of all policies, without interval if a world model lacks some."""
    blocks = [part.values for part in parts]
    if not all(part.complete for part in parts):
        return Estimate(float(iqm(*(block[~np.isnan(block)][None] for block in blocks))))
    ends = interval(blocks, iqm)
    low, high = (None, None) if ends is None else map(float, ends)
    return Estimate(float(iqm(*blocks)), low, high)


def iqm(*blocks: Array, axis: int = -1) -> Any:
    """The mean of all rows and replicates without their lowest and highest quarter."""
    from scipy.stats import trim_mean

    rows = [row for block in blocks for row in block]
    return trim_mean(np.concatenate(rows, axis), 0.25, axis=axis)


def profile(parts: Sequence[Stratum], thresholds: Array) -> tuple[Array, Array, Array]:
    """The share of policies above each threshold, mean over tasks, and both ends of its band.

    The ends are the share itself without an interval.
    """
    tasks = {task for part in parts for _, task in part.groups}
    blocks = []
    for part in parts:
        block = np.zeros((len(thresholds), part.values.shape[1]))
        for group in dict.fromkeys(part.groups):
            values = part.values[part.rows(group)]
            above = (values > thresholds[:, None, None]).sum(1)
            policies = np.count_nonzero(~np.isnan(values))
            block += above * part.values.shape[1] / (policies * len(tasks))
        blocks.append(block)
    share = np.asarray(total(*blocks))
    whole = all(part.complete for part in parts)
    low, high = (bootstrap_interval(blocks, total) if whole else None) or (share, share)
    return share, low, high


def total(*blocks: Array, axis: int = -1) -> Any:
    """The sum over blocks of the mean over replicates."""
    return sum(block.mean(axis) for block in blocks)


# -- two cells -----------------------------------------------------------------------------------

Place: TypeAlias = tuple[int, int]
"""A block and a row of it."""


def improvement(
    parts: Sequence[Stratum], pairs: Sequence[tuple[Cell, Cell]], *, interval: bool
) -> Estimate | None:
    """The probability that the first cell of a pair is better on a random task.

    None without pairs, or without policies that can be compared. Of two policies in the same world
    model it compares these; otherwise, all replicates of one cell with all of the other, as Mann
    and Whitney do. It has no interval if the level is out of reach: if all pairs agree, as few
    often do, Student's interval has no width.
    """
    if not pairs:
        return None
    places: dict[tuple[Cell, str], list[Place]] = {}
    for block, part in enumerate(parts):
        for row, group in enumerate(part.groups):
            places.setdefault(group, []).append((block, row))
    tasks = sorted({task for _, task in places})
    rows = [
        (i, j)
        for better, worse in pairs
        for task in tasks
        for i, j in itertools.product(places[better, task], places[worse, task])
    ]
    blocks, statistic = [part.values for part in parts], share_better(rows)
    value = float(statistic(*blocks))
    if math.isnan(value):
        return None
    reached = reachable([block.shape[-1] for block in blocks])
    if not (interval and reached and all(part.complete for part in parts)):
        return Estimate(value)
    ends = bootstrap_interval(blocks, statistic)
    return Estimate(value) if ends is None else Estimate(value, *map(float, ends))


def share_better(rows: Sequence[tuple[Place, Place]]) -> Statistic:
    """The mean over pairs of places of the share of replicates where the first is higher.

    Ties count half. Places of one block are compared within replicates, others over all pairs of
    replicates. Agarwal et al.'s probability of improvement if both places are of one task.
    """

    def statistic(*blocks: Array, axis: int = -1) -> Any:
        found = []
        for (b, i), (c, j) in rows:
            x, y = blocks[b][i], blocks[c][j]
            if b != c:
                x, y = x[..., :, None], y[..., None, :]
            better = np.where(np.isnan(x - y), np.nan, (x > y) + 0.5 * (x == y))
            if not np.isnan(better).all():
                found.append(np.nanmean(better, axis=axis if b == c else (-2, -1)))
        return sum(found) / len(found) if found else np.nan

    return statistic
