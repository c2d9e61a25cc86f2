"""Checks an experiment's plugins: shapes, finite numbers, a tiny update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fmbpo.config import Frozen
from fmbpo.config.schema import Experiment
from fmbpo.hookspecs import Metrics, Module, Prediction, Rollout, Task
from fmbpo.measure.evaluation import Evaluator
from fmbpo.measure.sizes import size_line
from fmbpo.nn.state import begin, latent
from fmbpo.pwm.optim import buffers_of, split
from fmbpo.pwm.pair import reward_dim
from fmbpo.running.blame import Role, reporting
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.training.cells import grid_cells, stages
from fmbpo.training.context import Context
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.pretraining import Pretraining

BATCH, HORIZON = 4, 3
LOWER = "lower the learning rate, or see the plugin's README"


def try_plugins(
    context: Context, tasks: Sequence[str], runner: EpisodeRunner, traceback: Path | None = None
) -> Iterator[tuple[str, str]]:
    """Make one tiny update of everything that learns; yields (part, work done).

    ``tasks``: the grid's. ``traceback``: the folder for a plugin's traceback, if it is kept. Raises
    ``UserError`` for the first hook that breaks its contract.
    """
    e = _tiny(context.experiment)
    context = attrs.evolve(context, experiment=e)
    model = _Checked("world model", e.world_model)
    with reporting(traceback, model, otherwise=model):
        stage = Pretraining(context, e.grid.seeds[0])
        _check_world_model(model, stage)
        _one_update(model, stage)
        try:
            stage.evaluate(1)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise model.error("a measure cannot be computed after one update", LOWER) from error
    yield "parameters", size_line("world model", e.world_model, stage.module, context.data.suite)
    yield "world model", f"one update and one validation of {e.world_model.plugin!r}"
    if e.policy is None:
        return
    policy = _Checked("policy", e.policy)
    with reporting(traceback, policy, model, otherwise=policy):
        model.component.freeze(stage.module)
        if any(p.requires_grad for p in stage.module.parameters()):
            raise model.error("the hook `freeze` leaves parameters that learn")
        cells = next(iter(stages(e, grid_cells(e, tasks)).values()))
        if not isinstance(e.protocol, Frozen):  # each has its own world model: one is enough
            cells = cells[:1]
        evaluator = Evaluator(runner, e.evaluation.seed)
        policies = PolicyTraining("check", cells, context, stage.module, evaluator)
        _check_policy(policy, policies)
        _one_update(policy, policies)
        policies.returns(1, steps=2)
        done = f"one update of {len(cells)} stacked {e.policy.plugin!r}"
        yield "policies", f"{done}, two steps in each simulator"
        if e.evaluation.planner == "mppi":
            policies.planned_returns(lambda *_: None, steps=2)
            yield "planning", f"two steps of planning with {e.planning.samples} sequences"


def _tiny(experiment: Experiment) -> Experiment:
    """The experiment with small batches and horizons: an update takes milliseconds."""
    e = experiment
    learning = e.policy_learning and attrs.evolve(
        e.policy_learning, batch=BATCH, horizon=HORIZON, critic_minibatches=1, critic_iterations=1
    )
    return attrs.evolve(
        e,
        pretrain=attrs.evolve(e.pretrain, batch=BATCH, horizon=HORIZON),
        policy_learning=learning,
        planning=attrs.evolve(e.planning, episodes=1),
    )


class _Checked(Role):
    """A role whose results are checked against the contract."""

    def check(self, what: str, value: object, *shape: int) -> None:
        """Check that ``value`` is a tensor of this shape with finite entries."""
        if not isinstance(value, Tensor):
            raise self.error(f"{what} is a {type(value).__name__}, not a tensor")
        if tuple(value.shape) != shape:
            raise self.error(f"{what} has shape {list(value.shape)}, not {list(shape)}")
        if not torch.isfinite(value).all():
            raise self.error(f"{what} is not finite")

    def check_rollout(self, rollout: Rollout, latent: int, rewards: int, action: int) -> None:
        """Check a rollout of ``HORIZON`` steps from ``BATCH`` latents, of these widths."""
        self.check("the latent of `rollout`", rollout.z_HBD, HORIZON + 1, BATCH, latent)
        self.check("the action of `rollout`", rollout.action_HBA, HORIZON, BATCH, action)
        self.check("the reward of `rollout`", rollout.reward_HBR, HORIZON, BATCH, rewards)
        for name, value in rollout.extras.items():
            self.check(f"{name!r} of `rollout`", value, HORIZON, BATCH)

    def check_loss(self, module: Module, loss: object, metrics: Metrics) -> None:
        """Check that the loss and the metrics are finite 0-d tensors."""
        _, metrics = split(metrics, buffers_of(module))
        for name, value in [("the loss", loss), *metrics.items()]:
            self.check(f"{name} of `loss`", value)


def _check_world_model(role: _Checked, stage: Pretraining) -> None:
    component, module = role.component, stage.module
    _, batch, loss_noise, _, done = stage.example()
    wide, rewards = module.latent_dim, reward_dim(module)
    embedding = module.embed(batch.index_B)
    role.check("`embed`'s result", embedding, BATCH, module.task_dim)
    task = Task(batch.index_B, batch.mask_BA, embedding)
    state = begin(module, batch.obs_HBO[0], task)
    role.check("the latent of an observation", latent(module, state), BATCH, wide)
    noise = embedding.new_zeros(HORIZON, BATCH, module.noise_dim)
    prediction: Prediction = component.predict(module, state, batch.action_HBA[0], task, noise[0])
    role.check("the latent of `predict`", latent(module, prediction.state), BATCH, wide)
    role.check("the reward of `predict`", prediction.reward_BR, BATCH, rewards)
    rollout = component.rollout(module, state, lambda t, _: batch.action_HBA[t], task, noise)
    role.check_rollout(rollout, wide, rewards, batch.mask_BA.shape[1])
    role.check_loss(module, *component.loss(module, batch, loss_noise, done))


def _check_policy(role: _Checked, stage: PolicyTraining) -> None:
    pair, (training, starts, _, models) = stage.pair, stage.example()
    first = training.policy, training.critics, starts, models
    policy, critics, start, model = tree_map(lambda t: t[0], first)  # of the first cell
    past = start.past(pair.warm_up)
    state, task = pair.behind(model, past, start.index_B, start.mask_BA)
    z = pair.latent(model, state)
    action = pair.act(policy, z, task, start.policy_noise_HBN[0])
    width = start.mask_BA.shape[1]
    role.check("`predict`'s result", action, BATCH, width)
    if (action.abs() > start.mask_BA).any():
        raise role.error("`predict`'s actions leave [-1, 1], or are not 0 where the mask is 0")
    partner = pair.partner(model, state, task, start.model_noise_HBN)
    rollout = pair.rollout(policy, z, partner, task, start.policy_noise_HBN)
    role.check_rollout(rollout, z.shape[-1], reward_dim(pair.world_model), width)
    imagined, context = stage.eager_update.imagine(policy, critics, start, model)
    role.check_loss(pair.policy, *pair.loss(policy, imagined, context))


def _one_update(role: _Checked, stage: Pretraining | PolicyTraining) -> None:
    """Make one step; every metric and every parameter must be finite."""
    found: dict[str, Tensor] = {**stage.step(1), **stage.weights()}
    bad = [name for name, value in found.items() if not torch.isfinite(value).all()]
    if bad:
        raise role.error(f"{', '.join(bad[:3])} not finite after one update", LOWER)
