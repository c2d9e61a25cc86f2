"""The parts of a run that are still to train, and their cost.

The bytes that a part writes and keeps, per stage that is still to train::

    checkpoint (weights + training state), twice: the next one is written beside the last
    + a second copy of the weights, if the best ones are kept
    + metrics, one line of JSON per log and evaluation, VALUE bytes per value
    + FIXED for configuration, pictures and summary

Only one checkpoint is written at a time, so the second copy counts once, for the largest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import attrs
import torch

from fmbpo.base.cores import usable_cores
from fmbpo.config import Frozen
from fmbpo.config.schema import Experiment
from fmbpo.running.preflight.duration import Pace
from fmbpo.running.preflight.on_shapes import Cost, policies_cost, pretraining_cost
from fmbpo.runs.checkpoint import checkpoint_exists, read_manifest
from fmbpo.runs.folder import checkpoint_of
from fmbpo.tasks.known import suite_of
from fmbpo.tasks.suite import Suite
from fmbpo.training.cells import Cell, stages

VALUE = 56
"""Bytes per metric in a row of JSON: name, number, its share of stage, step, task and seed."""
FIXED = 1_500_000
"""Bytes of a run folder's pictures, configuration, summary and manifests."""
MEASURES = 46
"""Number of held-out measures of a world model (``fmbpo.measure.validation.Validator``)."""
METRICS = 12
"""Number of metrics of an update of a world model or a policy."""


@attrs.frozen
class Part:
    """A run that is not complete: the pretraining, or the policies."""

    name: str
    folder: Path
    cost: Cost
    """Of the largest group of cells."""
    updates: int
    """Remaining updates of all groups."""
    checkpoints: list[int]
    """Bytes of each group's last checkpoint: weights and training state."""
    beside: int
    """Bytes of best weights and of metrics."""
    validations: int = 0
    """Remaining validations of world models on held-out data."""
    cells: int = 0
    """Policies in the largest group; 0 if there are none."""
    episodes: float = 0.0
    """Remaining episodes in the simulator, per cell of a group."""
    at_once: int = 0
    """The most episodes that run at the same time."""
    steps: int = 0
    """Agent steps of the longest episode."""
    cloned: int = 0
    """Tasks for behaviour cloning."""

    def seconds(self, pace: Pace, workers: int) -> float:
        """Expected duration, if ``workers`` processes simulate."""
        busy = max(min(workers, usable_cores()), 1)
        simulated = self.steps * pace.step * self.episodes / busy
        learning = self.updates * pace.update + self.validations * pace.validation
        return learning + self.cloned * pace.cloning + simulated


def disk_need(parts: Collection[Part]) -> int:
    """Peak bytes of all parts together."""
    checkpoints = [size for part in parts for size in part.checkpoints]
    kept = sum(part.beside + FIXED for part in parts)
    return sum(checkpoints) + max(checkpoints, default=0) + kept


def least_of_pretraining(experiment: Experiment, suite: Suite) -> int:
    """Bytes of a batch, less than an update of pretraining needs."""
    config = experiment.pretrain
    width = suite.obs_width + suite.action_width + 1
    return config.batch * (config.horizon + 1) * width * torch.float32.itemsize


def least_of_policies(experiment: Experiment, cells: Sequence[Cell]) -> int:
    """Bytes of the rewards that one update imagines, less than it needs."""
    config = experiment.of_policies.policy_learning
    stacked = max(map(len, stages(experiment, cells).values()))
    return stacked * config.batch * config.horizon * torch.float32.itemsize


def pretraining_parts(
    experiment: Experiment, folders: Sequence[Path], tasks: Sequence[str]
) -> list[Part]:
    """The pretraining of replicates, one per folder, on data of these tasks.

    Raises ``UserError`` for a damaged checkpoint.
    """
    config, cost = experiment.pretrain, pretraining_cost(experiment, tasks)
    values = _times(config.iterations, config.log_every) * METRICS
    values += (_times(config.iterations, config.validate_every) + 1) * MEASURES
    checkpoint, beside = cost.weights + cost.training, cost.weights + VALUE * values

    def part(folder: Path) -> Part:
        done = _step(folder, "pretrain", config.iterations)
        left = config.iterations - done
        validations = _times(left, config.validate_every)
        validations += left > 0 and done % config.validate_every == 0
        return Part("pretraining", folder, cost, left, [checkpoint], beside, validations)

    return [part(folder) for folder in folders]


def policies_part(experiment: Experiment, folder: Path, cells: Sequence[Cell]) -> Part:
    """The policies of these cells, in groups if ``policy_learning.stack`` requires them."""
    e = experiment
    config = e.of_policies.policy_learning
    groups = stages(e, cells)
    largest = max(groups.values(), key=len)
    cost = policies_cost(e, largest)
    learns = not isinstance(e.protocol, Frozen)
    updates = validations = values = 0
    episodes, checkpoints = 0.0, []
    for name, group in groups.items():
        share = len(group) / len(largest)
        done = _step(folder, name, config.iterations)
        left = config.iterations - done
        to_evaluate = _times(left, config.evaluate_every)
        to_evaluate += left > 0 and done % config.evaluate_every == 0
        updates += round(left * share)
        validations += to_evaluate * learns
        # At the end: the trained policies with and without noise, and the untrained ones.
        last = 2 * e.evaluation.final_episodes + e.evaluation.episodes
        episodes += share * (to_evaluate * e.evaluation.episodes + last)
        logged = (len(group) + 1) * METRICS * (1 + learns)
        values += _times(config.iterations, config.log_every) * logged
        evaluated = len(group) * (1 + learns * MEASURES) + 1
        values += (_times(config.iterations, config.evaluate_every) + 1) * evaluated
        checkpoints.append(round(share * (cost.weights + cost.training)))
    size, tasks = len(largest), len({cell.task for cell in cells})
    # Then, once per task, the random policy and behaviour cloning.
    episodes += 2 * e.evaluation.final_episodes * tasks / size
    at_once = size * max(e.evaluation.episodes, e.evaluation.final_episodes)
    beside, longest = VALUE * values, suite_of({c.task for c in cells}, e.tasks).episode_steps
    return Part(
        "policies", folder, cost, updates, checkpoints, beside, validations, size, episodes,
        at_once, longest, tasks,
    )  # fmt: skip


def _times(iterations: int, every: int) -> int:
    """Number of events at this interval, with one at the end."""
    return -(-iterations // every)


def _step(folder: Path, stage: str, iterations: int) -> int:
    """Iterations of a stage that its last checkpoint holds."""
    checkpoint = checkpoint_of(folder, stage)
    if not checkpoint_exists(checkpoint):
        return 0
    return min(int(read_manifest(checkpoint)["step"]), iterations)
