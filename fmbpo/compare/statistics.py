"""Means, interquartile means, differences and their 95 % intervals, over few seeds.

A *block* is an array ``(k, ..., n)``: k quantities of the same n seeds, which are resampled
jointly. Different blocks (one per task, or one per task and cell) are resampled independently,
which makes the bootstrap stratified (Agarwal et al. 2021, arXiv 2108.13264). Middle axes are
independent repetitions.

The percentile bootstrap is too narrow for few seeds, so its level is corrected: Hesterberg's
expanded percentile interval (arXiv 1411.5279) takes the quantiles at ``Φ(-√(n/(n-1)) t)`` and 1
minus that, where ``t`` is Student's for the pooled degrees of freedom.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from fmbpo.compare.comparison import Estimate

LEVEL = 0.95
"""Confidence of every interval."""
RESAMPLES = 9999
"""Bootstrap samples of an interval."""
SEED = 20_210_813
"""Seed of the resampling, the same for every interval, so that reports are reproducible."""
_BATCH = 500
_ROOM = 10
_FEWEST = 3

Array: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[..., Any]
"""``statistic(*blocks, axis=-1)`` reduces the last axis of the blocks, the seeds."""
Ends: TypeAlias = tuple[Any, Any]
"""Both ends of an interval: numbers, or arrays with one interval per repetition."""
Kind: TypeAlias = Literal["cell", "effect", "share"]
"""A cell's number, a difference of cells, or the share of pairs in which one cell is better."""


def tail(sizes: Sequence[int]) -> float:
    """The corrected α/2 for blocks of these numbers of seeds; n is the smallest of them."""
    n, freedom = min(sizes), sum(size - 1 for size in sizes)
    t = stdtrit(freedom, (1 + LEVEL) / 2)
    return float(ndtr(-math.sqrt(n / (n - 1)) * t))


def reachable(sizes: Sequence[int]) -> bool:
    """Whether resampling can reach the corrected level, with room to spare.

    One resample in Π nⁿ draws only the lowest seed of every block. Unless that is ``_ROOM`` times
    rarer than ``tail``, the interval is little more than the range of the data, as for one block
    of five seeds or fewer.
    """
    extreme = -sum(n * math.log(n) for n in sizes)
    return min(sizes) > 1 and extreme + math.log(_ROOM) <= math.log(tail(sizes))


def bootstrap_interval(blocks: Sequence[Array], statistic: Statistic) -> Ends | None:
    """The expanded percentile interval; None if a block has a single seed."""
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

    For too few seeds to reach the level by resampling. For the mean of one task, and for a contrast
    of cells with equally many seeds, it equals the plain t interval.
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


def interval(blocks: Sequence[Array], statistic: Statistic, of: Kind = "cell") -> Ends | None:
    """The bootstrap's interval if resampling can reach its level, else Student's.

    An effect has the bootstrap's in any case, unless a block has fewer than ``_FEWEST`` seeds: two
    cells of two seeds have 16 resamples, and the interval would be their range. A share of pairs
    has none if the level is unreachable: if all pairs agree, as few often do, Student's has no
    width.
    """
    sizes = [block.shape[-1] for block in blocks]
    if reachable(sizes) or (of == "effect" and min(sizes) >= _FEWEST):
        return bootstrap_interval(blocks, statistic)
    return None if of == "share" else student_interval(blocks, statistic)


def estimate(blocks: Sequence[Array], statistic: Statistic, of: Kind = "cell") -> Estimate:
    """A number with its ``interval``."""
    ends = interval(blocks, statistic, of)
    low, high = (None, None) if ends is None else map(float, ends)
    return Estimate(float(statistic(*blocks, axis=-1)), low, high)


# -- statistics ----------------------------------------------------------------------------------


def mean(*blocks: Array, axis: int = -1) -> Any:
    """Mean over tasks of the mean over seeds, of blocks of one quantity."""
    return sum(block[0].mean(axis) for block in blocks) / len(blocks)


def iqm(*blocks: Array, axis: int = -1) -> Any:
    """Interquartile mean: over all runs of all tasks without the lowest and highest quarter."""
    from scipy.stats import trim_mean

    return trim_mean(np.concatenate([block[0] for block in blocks], axis), 0.25, axis=axis)


def contrast(weights: Sequence[Array]) -> Statistic:
    """The weighted sum of the quantities' means over seeds; weights: ``weights[block][k]``."""

    def statistic(*blocks: Array, axis: int = -1) -> Any:
        both = zip(weights, blocks, strict=True)
        return sum(np.tensordot(w, block.mean(axis), axes=1) for w, block in both)

    return statistic


def share_above(*blocks: Array, axis: int = -1) -> Any:
    """Mean over tasks of the share of seeds, for each of k indicators: ``(k,)``."""
    return sum(block.mean(axis) for block in blocks) / len(blocks)


def paired_improvement(rows: Sequence[tuple[int, int]]) -> Statistic:
    """Share of (task, seed) where quantity i exceeds j, ties half, over all pairs (i, j)."""

    def statistic(*blocks: Array, axis: int = -1) -> Any:
        found = [_exceeds(block[i], block[j]).mean(axis) for block in blocks for i, j in rows]
        return sum(found) / len(found)

    return statistic


def improvement(pairs: Sequence[tuple[int, int]]) -> Statistic:
    """The same for blocks i and j over all pairs of seeds, as Mann and Whitney count.

    This is Agarwal et al.'s probability of improvement if both blocks of a pair are of one task.
    """

    def statistic(*blocks: Array, axis: int = -1) -> Any:
        found = [
            _exceeds(blocks[i][0][..., :, None], blocks[j][0][..., None, :]).mean((-2, -1))
            for i, j in pairs
        ]
        return sum(found) / len(found)

    return statistic


def _exceeds(a: Array, b: Array) -> Array:
    return np.asarray((a > b) + 0.5 * (a == b), dtype=np.float64)
