"""The parts of a run that are still to train, by the folders under the root, and their cost."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from fmbpo.config import Frozen
from fmbpo.config.schema import Experiment
from fmbpo.running.names import needs_pretraining
from fmbpo.running.preflight.disk import MEASURES, METRICS, Kept, metrics_bytes
from fmbpo.running.preflight.duration import Pace, simulation
from fmbpo.running.preflight.on_shapes import Cost, policies_cost, pretraining_cost
from fmbpo.runs.checkpoint import checkpoint_exists, read_manifest
from fmbpo.runs.folder import BEST, checkpoint_of
from fmbpo.runs.summary import read_summary
from fmbpo.training.cells import Cell, stages


@attrs.frozen
class Part:
    """A run folder still to fill: the pretraining's, or the policies'."""

    name: str
    folder: Path
    cost: Cost
    """Of the largest group of cells."""
    updates: int
    """Of all groups, those that are done left out."""
    kept: list[Kept]
    """On the disk when all is done, by group."""
    validations: int = 0
    """Of world models on held-out data, those done left out."""
    cells: int = 0
    """Policies in the largest group; 0 if there are none."""
    episodes: float = 0.0
    """In the simulator, for each cell of a group, those done left out."""
    at_once: int = 0
    """Episodes that run at the same time, at most."""

    def seconds(self, pace: Pace, workers: int) -> float:
        """To its end, where ``workers`` processes simulate."""
        simulated = simulation(pace, self.episodes, min(workers, os.cpu_count() or 1))
        return self.updates * pace.update + self.validations * pace.validation + simulated


def complete(experiment: Experiment, names: tuple[str, str], root: Path) -> bool:
    """Whether the whole run is there, so that nothing is trained or evaluated.

    Raises ``UserError`` for a summary or a best checkpoint that cannot be read.
    """
    e = experiment
    if needs_pretraining(e):
        if read_summary(root / names[0]) is None:
            return False
        read_manifest(checkpoint_of(root / names[0], BEST))
    if e.policy is None:
        return True
    policies = read_summary(root / names[1])
    if policies is None:
        return False
    return e.evaluation.planner != "mppi" or policies.planning == attrs.asdict(e.planning)


def pretraining_part(experiment: Experiment, folder: Path, tasks: Sequence[str]) -> Part:
    """The pretraining on data of these tasks. Raises ``UserError`` for a damaged checkpoint."""
    config, cost = experiment.pretrain, pretraining_cost(experiment, tasks)
    total = config.iterations
    done = _step(folder, "pretrain", total)
    logs, validations = (-(-total // every) for every in (config.log_every, config.validate_every))
    metrics = metrics_bytes(logs, METRICS, validations + 1, MEASURES)
    kept = Kept(cost.weights + cost.training, cost.weights, metrics)
    left = total - done
    return Part(
        "pretraining", folder, cost, left, [kept], -(-left // config.validate_every) + (done == 0)
    )


def policies_part(experiment: Experiment, folder: Path, cells: Sequence[Cell]) -> Part:
    """The policies of these cells, in groups if ``policy_learning.stack`` says so."""
    e = experiment
    config = e.of_policies.policy_learning
    groups = stages(cells, config.stack)
    largest = max(groups.values(), key=len)
    size = len(largest)
    cost = policies_cost(e, largest)
    learns = not isinstance(e.protocol, Frozen)
    logs = -(-config.iterations // config.log_every)
    evaluations = -(-config.iterations // config.evaluate_every) + 1
    evaluated = 1 + learns * MEASURES
    updates = validations = 0
    episodes, kept = 0.0, []
    for name, in_group in groups.items():
        group = len(in_group)
        done = _step(folder, name, config.iterations)
        share = group / size
        left = config.iterations - done
        to_evaluate = -(-left // config.evaluate_every) + (done == 0)
        updates += round(left * share)
        validations += to_evaluate * learns
        # The end: the trained and the untrained policies, and the random one.
        last = 3 * e.evaluation.final_episodes
        episodes += share * (to_evaluate * e.evaluation.episodes + last)
        values = (group + 1) * METRICS * (1 + learns)
        metrics = metrics_bytes(logs, values, evaluations, group * evaluated + 1)
        state = round(share * (cost.weights + cost.training))
        kept.append(Kept(state, 0, metrics))
    at_once = size * max(e.evaluation.episodes, e.evaluation.final_episodes)
    return Part("policies", folder, cost, updates, kept, validations, size, episodes, at_once)


def _step(folder: Path, stage: str, iterations: int) -> int:
    """Iterations of a stage that its last checkpoint holds."""
    checkpoint = checkpoint_of(folder, stage)
    if not checkpoint_exists(checkpoint):
        return 0
    manifest: Mapping[str, Any] = read_manifest(checkpoint)
    return min(int(manifest["step"]), iterations)
