"""Bytes that a run will write and keep, and the disk that takes them.

For each stage that is still to train::

    checkpoint (weights + training state), twice: the next one is written beside the last
    + a second copy of the weights, if the best ones are kept
    + metrics, one line of JSON a log and an evaluation, VALUE bytes a value
    + FIXED for configuration, pictures and summary

Only one checkpoint is written at a time, so the second copy counts once, for the largest.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

VALUE = 56
"""Bytes of a metric in a row of JSON: name, number, its share of stage, step, task and seed."""
FIXED = 1_500_000
"""A run folder's pictures, configuration, summary, manifests."""
MEASURES = 36
"""Held-out measures of a world model (``fmbpo.measure.validation.Validator``)."""
METRICS = 12
"""Metrics of an update of a world model or a policy."""


@attrs.frozen
class Kept:
    """Bytes that one stage leaves."""

    checkpoint: int
    """Bytes of its last checkpoint: weights and training state."""
    best: int
    """Bytes of weights that are kept beside it."""
    metrics: int
    """Bytes of its lines in ``metrics.jsonl``."""

    @property
    def total(self) -> int:
        """All of it, without the fixed part of its folder."""
        return self.checkpoint + self.best + self.metrics


def metrics_bytes(logs: int, logged: int, evaluations: int, evaluated: int) -> int:
    """``logs`` lines of ``logged`` values and ``evaluations`` lines of ``evaluated`` ones."""
    return VALUE * (logs * logged + evaluations * evaluated)


def disk_need(stages: Sequence[Kept], folders: int) -> int:
    """Bytes of stages in so many run folders, at the moment when most are there."""
    aside = max((stage.checkpoint for stage in stages), default=0)
    return sum(stage.total for stage in stages) + aside + folders * FIXED
