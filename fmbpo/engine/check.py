"""Validate an experiment whole without training: data, plugins, shapes, one tiny update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fmbpo.engine.blame import Role, blaming
from fmbpo.engine.dataset import by_conventions, check_horizon, load_dataset
from fmbpo.engine.evaluation import Evaluator
from fmbpo.engine.model_learning import check_learning, learning_models
from fmbpo.engine.place import grid_tasks, resolve_device, run_names
from fmbpo.engine.policy_training import Cell, PolicyTraining
from fmbpo.engine.pretraining import Pretraining
from fmbpo.engine.sizes import size_line
from fmbpo.errors import UserError
from fmbpo.experiment import Finetuned, Frozen
from fmbpo.experiment.schema import Experiment
from fmbpo.hookspecs import Imagined, Prediction, Rollout, Task
from fmbpo.nn import two_hot
from fmbpo.registry import Component
from fmbpo.runs.checkpoint import weights_sha256
from fmbpo.tasks.mt30 import ACTION_WIDTH
from fmbpo.tasks.vector import EpisodeRunner

BATCH, HORIZON = 4, 3
REMEDY = "the plugin does not fit its dimensions or its settings; see its README"


def check_experiment(experiment: Experiment) -> Iterator[str]:
    """Yield a line for each thing that was checked; ``UserError`` at the first that fails."""
    e = experiment
    yield f"ok: {e.name} composes at scale {e.scale} ({e.scale_reason})"
    device = resolve_device(e.system.device)
    data = load_dataset(e.data, device)
    check_horizon(data.train, e.pretrain.horizon)
    yield f"ok: data {data.id[:19]}, tasks {', '.join(data.tasks)}"
    tasks = grid_tasks(e, data) if e.grid else []
    yield f"ok: its runs are {', '.join(filter(None, run_names(e, data.id)))}"
    check_learning(e, data)
    if isinstance(e.protocol, Frozen | Finetuned) and e.protocol.checkpoint:
        weights_sha256(Path(e.protocol.checkpoint))
        yield f"ok: world model from {e.protocol.checkpoint}"
    tiny = attrs.evolve(e.pretrain, batch=BATCH, horizon=HORIZON)
    model = _Checked("world model", e.world_model)
    with _blaming(model):
        stage = Pretraining(e.world_model, tiny, data, device, e.system.compile)
        _check_world_model(model, stage)
        _one_update(model, stage)
        stage.evaluate(1)
    yield f"ok: {size_line('world model', e.world_model, stage.module)}"
    yield f"ok: one update and one validation of world model {e.world_model.plugin!r}"
    if e.policy is None:
        return
    assert e.grid and e.policy_learning and e.conventions
    learning = attrs.evolve(
        e.policy_learning, batch=BATCH, horizon=HORIZON, critic_minibatches=1, critic_iterations=1
    )
    policy = _Checked("policy", e.policy)
    with EpisodeRunner(0) as runner, _blaming(policy, model):
        model.component.freeze(stage.module)
        if any(p.requires_grad for p in stage.module.parameters()):
            raise model.wrong("the hook `freeze` leaves parameters that learn")
        cells = [Cell(task, seed) for task in tasks for seed in e.grid.seeds]
        if not isinstance(e.protocol, Frozen):  # a world model each, of which one shows enough
            cells = cells[:1]
        seen = by_conventions(data, e.conventions)
        models = learning_models(e, learning, cells, stage.module, seen, data, device)
        policies = PolicyTraining(
            "check",
            cells,
            attrs.evolve(
                e, policy_learning=learning, planning=attrs.evolve(e.planning, episodes=1)
            ),
            stage.module,
            seen,
            Evaluator(runner, e.evaluation.seed),
            device,
            models,
        )
        _check_policy(policy, model.component, policies)
        _one_update(policy, policies)
        policies.returns(1, steps=2)
        if e.evaluation.planner == "mppi":
            policies.planned_returns(lambda *_: None, steps=2)
            yield f"ok: two steps of planning with {e.planning.samples} sequences"
    yield (
        f"ok: one update of {len(policies.cells)} stacked policies {e.policy.plugin!r} "
        f"on {', '.join(tasks)}, two steps in each simulator"
    )


class _Checked(Role):
    """A role whose results are held against the contract."""

    def wrong(self, what: str) -> UserError:
        """The plugin does not do what the contract asks."""
        return self.error(what, REMEDY)

    def check(self, what: str, value: Any, *shape: int) -> None:
        """``value`` is a tensor of this shape with finite entries."""
        if not isinstance(value, Tensor):
            raise self.wrong(f"{what} is a {type(value).__name__}, not a tensor")
        if tuple(value.shape) != shape:
            raise self.wrong(f"{what} has shape {list(value.shape)}, not {list(shape)}")
        if not torch.isfinite(value).all():
            raise self.wrong(f"{what} is not finite")

    def check_rollout(self, rollout: Rollout, latent: int) -> None:
        """Of ``HORIZON`` steps from ``BATCH`` latents."""
        self.check("the latent of `rollout`", rollout.z_HBD, HORIZON + 1, BATCH, latent)
        self.check("the action of `rollout`", rollout.action_HBA, HORIZON, BATCH, ACTION_WIDTH)
        logits = rollout.reward_logits_HBR
        self.check("the reward of `rollout`", logits, HORIZON, BATCH, two_hot.BINS)

    def check_loss(self, loss: Any, metrics: Mapping[str, Any]) -> None:
        """Numbers all, as 0-d tensors."""
        for name, value in [("the loss", loss), *metrics.items()]:
            self.check(f"{name} of `loss`", value)


def _blaming(*roles: _Checked) -> AbstractContextManager[None]:
    """Any failure inside is one of a plugin: the one whose code ran last, else the first."""
    return blaming(lambda role, text, _: (role or roles[0]).error(text, REMEDY), *roles)


def _check_world_model(role: _Checked, stage: Pretraining) -> None:
    component, module = role.component, stage.module
    _, batch, loss_noise, _ = stage.example()
    latent, logits = module.latent_dim, two_hot.BINS
    embedding = module.embed(batch.index_B)
    role.check("`embed`'s result", embedding, BATCH, module.task_dim)
    task = Task(batch.index_B, batch.mask_BA, embedding)
    z = module.encode(batch.obs_HBO[0], embedding)
    role.check("`encode`'s result", z, BATCH, latent)
    noise = z.new_zeros(HORIZON, BATCH, module.noise_dim)
    prediction: Prediction = component.predict(module, z, batch.action_HBA[0], task, noise[0])
    role.check("the latent of `predict`", prediction.z_BD, BATCH, latent)
    role.check("the reward of `predict`", prediction.reward_logits_BR, BATCH, logits)
    rollout = component.rollout(module, z, lambda t, _: batch.action_HBA[t], task, noise)
    role.check_rollout(rollout, latent)
    role.check_loss(*component.loss(module, batch, loss_noise))


def _check_policy(role: _Checked, world_model: Component, stage: PolicyTraining) -> None:
    component, model, module = role.component, stage.roles.world_model, stage.roles.policy
    start = tree_map(lambda t: t[0], stage.example()[1])  # of the first cell
    task = Task(start.index_B, start.mask_BA, model.embed(start.index_B))
    z = model.encode(start.obs_BO, task.embedding_BE)
    action = component.predict(module, z, task, start.policy_noise_HBN[0])
    role.check("`predict`'s result", action, BATCH, ACTION_WIDTH)
    if (action.abs() > start.mask_BA).any():
        raise role.wrong("`predict`'s actions leave [-1, 1], or are not 0 where the mask is")

    def answer(t: int, z: Tensor, action: Tensor) -> Prediction:
        prediction: Prediction = world_model.predict(
            model, z, action, task, start.model_noise_HBN[t]
        )
        return prediction

    rollout = component.rollout(module, z, answer, task, start.policy_noise_HBN)
    role.check_rollout(rollout, z.shape[-1])
    reward = two_hot.decode(rollout.reward_logits_HBR)
    value = torch.zeros_like(reward[0])
    imagined = Imagined(rollout, reward, value, reward.sum(0), torch.ones_like(value[0]))
    role.check_loss(*component.loss(module, imagined))


def _one_update(role: _Checked, stage: Any) -> None:
    """One step, after which every metric is finite."""
    metrics: dict[str, Tensor] = stage.step(1)
    bad = [name for name, value in metrics.items() if not torch.isfinite(value).all()]
    if bad:
        raise UserError(
            f"{', '.join(bad)} not finite after one update",
            where=role.name,
            remedy="lower the learning rate, or see the plugin's README",
        )
