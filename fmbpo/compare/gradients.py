"""Measures of the actor's gradients compared between cells: the factorial's effects on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from fmbpo.base.metrics import GRADIENTS, replicate_of
from fmbpo.compare.comparison import OVERALL, Cell, Effect, Record, Score
from fmbpo.compare.contrasts import Declared
from fmbpo.compare.effects import effects


def gradient_effects(
    records: Sequence[Record], declared: Declared | None = None
) -> dict[str, list[Effect]]:
    """The effects on each measure (``fmbpo.base.metrics.GRADIENTS``), by metric.

    A difference is one of natural logarithms, so its exponential is a ratio of geometric means over
    replicates. A replicate's number is the mean over its policies and over training. Left out are
    measures that are not positive everywhere: they have no ratio.
    """
    found = {}
    for metric in GRADIENTS:
        scores: dict[Cell, dict[str, dict[str, Score]]] = {}
        for record in records:
            models = _models(record)
            for replicate, series in record.gradients.get(metric, {}).items():
                mean = fmean(value for _, value in series)
                at = scores.setdefault(record.cell, {}).setdefault(OVERALL, {})
                logarithm = math.log(mean) if 0 < mean < math.inf else math.nan
                at[replicate] = Score(logarithm, world_model=models.get(replicate, ""))
        values = [x.mean for by in scores.values() for x in by[OVERALL].values()]
        if values and all(map(math.isfinite, values)):
            found[metric] = effects(scores, {OVERALL: [OVERALL]}, {OVERALL: 1.0}, declared)
    return {metric: one for metric, one in found.items() if one}


def _models(record: Record) -> Mapping[str, str]:
    """The identity of the world model of each replicate; empty if its policies have their own."""
    return {replicate_of(seed): score.world_model for _, seed, score in record.policies}
