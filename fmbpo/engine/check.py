"""Validate an experiment whole without training: data, plugins, shapes, one tiny update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import Tensor

from fmbpo.engine.dataset import check_horizon, load_dataset
from fmbpo.engine.evaluation import Evaluator
from fmbpo.engine.policy_training import Cell, PolicyTraining
from fmbpo.engine.pretraining import Pretraining
from fmbpo.engine.run import grid_tasks, resolve_device
from fmbpo.errors import UserError
from fmbpo.experiment.schema import Experiment
from fmbpo.tasks.vector import EpisodeRunner

BATCH, HORIZON = 4, 3


def check_experiment(experiment: Experiment) -> Iterator[str]:
    """Yield a line for each thing that was checked; ``UserError`` at the first that fails."""
    e = experiment
    yield f"ok: {e.name} composes at scale {e.scale} ({e.scale_reason})"
    device = resolve_device(e.system.device)
    data = load_dataset(e.data, device)
    check_horizon(data.train, e.pretrain.horizon)
    yield f"ok: data {data.id[:19]}, tasks {', '.join(data.tasks)}"
    tiny = attrs.evolve(e.pretrain, batch=BATCH, horizon=HORIZON)
    stage = Pretraining(e.world_model, tiny, data, device, e.system.compile)
    _one_update("world model", e.world_model.plugin, stage)
    stage.evaluate(1)
    yield f"ok: one update and one validation of world model {e.world_model.plugin!r}"
    if e.policy is None:
        return
    assert e.grid and e.policy_learning and e.critic
    tasks = grid_tasks(e, data)
    e.world_model.component.freeze(stage.module)
    learning = attrs.evolve(
        e.policy_learning, batch=BATCH, horizon=HORIZON, critic_minibatches=1, critic_iterations=1
    )
    with EpisodeRunner(0) as runner:
        policies = PolicyTraining(
            "check",
            [Cell(task, seed) for task in tasks for seed in e.grid.seeds],
            stage.module,
            e.world_model.component,
            e.policy,
            learning,
            e.critic,
            e.evaluation,
            Evaluator(runner, e.evaluation.seed),
            data,
            device,
            e.system.compile,
        )
        _one_update("policy", e.policy.plugin, policies)
        policies.returns(1, steps=2)
    yield (
        f"ok: one update of {len(policies.cells)} stacked policies {e.policy.plugin!r} "
        f"on {', '.join(tasks)}, two steps in each simulator"
    )


def _one_update(role: str, plugin: str, stage: Any) -> None:
    """One step; ``UserError`` where it raises or its metrics are not finite."""
    try:
        metrics: dict[str, Tensor] = stage.step(1)
    except RuntimeError as error:
        raise UserError(
            f"one update failed: {str(error).splitlines()[0]}",
            where=f"{role} {plugin!r}",
            remedy="the plugin does not fit its dimensions or its settings; see its README",
        ) from error
    bad = [name for name, value in metrics.items() if not torch.isfinite(value).all()]
    if bad:
        raise UserError(
            f"{', '.join(bad)} not finite after one update",
            where=f"{role} {plugin!r}",
            remedy="lower the learning rate, or see the plugin's README",
        )
