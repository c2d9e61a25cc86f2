"""One policy update of PWM (arXiv 2407.02466): imagine, actor step, critic steps.

Every state and start has a leading dimension of cells (one cell = one task and seed, each with
its own policy, critics and optimisers), so that many policies train in one program. The functions
inside are written for one cell and mapped with ``torch.func.vmap``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.func import vmap

from fmbpo.engine.adam import AdamState, Params, adam_init, adam_step, clip, projection
from fmbpo.engine.critic import Critic, ReturnScale, ensemble_values, td_lambda
from fmbpo.engine.gradient import gradient
from fmbpo.engine.world_model_update import HookCall
from fmbpo.hookspecs import Imagined, Metrics, Prediction, Task
from fmbpo.nn import two_hot


class CellState(NamedTuple):
    """All that an update of one cell changes."""

    policy: Params
    policy_adam: AdamState
    critics: Params
    critic_adam: AdamState
    scale: ReturnScale

    @staticmethod
    def initial(policy: Params, critics: Params) -> CellState:
        """Given parameters (critics stacked along C), no history."""
        like = next(iter(policy.values()))
        return CellState(
            policy, adam_init(policy), critics, adam_init(critics), ReturnScale.initial(like)
        )


class Start(NamedTuple):
    """Real observations that imagination starts from, their task, and the noise to use."""

    obs_BO: Tensor
    index_B: Tensor
    mask_BA: Tensor
    policy_noise_HBN: Tensor
    model_noise_HBN: Tensor


class Rates(NamedTuple):
    """Learning rates (0-d)."""

    actor: Tensor
    critic: Tensor


class PolicySettings(NamedTuple):
    """What stays constant over the updates of a run; the last three are conventions of
    ``fmbpo.experiment.conventions``."""

    discount: float
    lam: float
    betas: tuple[float, float]
    actor_grad_clip: float
    critic_grad_clip: float
    critic_iterations: int
    critic_minibatches: int
    one_step_targets: bool = False
    late_bootstrap: bool = False
    symlog_reward: bool = False


class Roles(NamedTuple):
    """Modules and resolved hooks that an update composes."""

    world_model: Any
    predict: Callable[..., Prediction]
    policy: Any
    policy_rollout: Callable[..., Any]
    policy_loss: Callable[..., tuple[Tensor, Metrics]]
    critic: Critic


Update: TypeAlias = Callable[..., tuple[CellState, Metrics]]
"""``(state, start, rates) -> (state, metrics)``, and behind them the world models' parameters,
stacked along the cells, where each cell has its own."""


def make_policy_update(roles: Roles, settings: PolicySettings) -> Update:
    """``update(state, start, rates) -> (state, metrics)``: a pure function, all cells at once."""
    critic = roles.critic
    begin = HookCall(roles.world_model, encoded)
    predict = HookCall(roles.world_model, roles.predict)
    decode = two_hot.decode_symlog if settings.symlog_reward else two_hot.decode
    lam = 0.0 if settings.one_step_targets else settings.lam
    imagine = HookCall(roles.policy, roles.policy_rollout)
    actor_loss = HookCall(roles.policy, roles.policy_loss)
    step = vmap(
        lambda params, grads, adam, rate: adam_step(params, grads, adam, rate, settings.betas),
        in_dims=(0, 0, 0, None),
    )

    def imagined_loss(
        policy: Params, critics: Params, scale: ReturnScale, start: Start, model: Params
    ) -> tuple[Tensor, tuple[Imagined, ReturnScale, Metrics]]:
        """One cell: roll the policy out in the world model and rate what it imagined."""
        z, task = begin.with_params(model, start.obs_BO, start.index_B, start.mask_BA)

        def answer(t: int, z: Tensor, action: Tensor) -> Prediction:
            prediction: Prediction = predict.with_params(
                model, z, action, task, start.model_noise_HBN[t]
            )
            return prediction

        rollout = imagine.with_params(policy, z, answer, task, start.policy_noise_HBN)
        reward = decode(rollout.reward_logits_HBR)
        value = ensemble_values(critic, critics, rollout.z_HBD[-1]).amin(0)
        horizon = len(reward)
        weights = settings.discount ** torch.arange(horizon, device=z.device, dtype=z.dtype)
        bootstrap = settings.discount ** (horizon + settings.late_bootstrap)
        total = (weights.unsqueeze(-1) * reward).sum(0) + bootstrap * value
        scale = scale.updated(total.detach())
        imagined = Imagined(rollout, reward, value, total, scale.divisor())
        loss, metrics = actor_loss.with_params(policy, imagined)
        return loss, (imagined, scale, metrics)

    def critic_targets(critics: Params, imagined: Imagined) -> Tensor:
        """One cell: TD(lambda) targets ``[H, B]`` from the critics before their step."""
        next_value = ensemble_values(critic, critics, imagined.rollout.z_HBD[1:]).amin(0)
        return td_lambda(imagined.reward_HB, next_value, settings.discount, lam)

    def critic_loss(critics: Params, z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """One cell: mean squared error over the ensemble and the mini-batch."""
        error = (ensemble_values(critic, critics, z) - target).square().mean()
        return error, error

    def critic_steps(
        critics: Params, adam: AdamState, imagined: Imagined, rate: Tensor
    ) -> tuple[Params, AdamState, Metrics]:
        """Passes over contiguous, time-major mini-batches, in order."""
        target = vmap(critic_targets)(critics, imagined).flatten(1)
        z = imagined.rollout.z_HBD[:, :-1].flatten(1, 2)
        minibatches = list(
            zip(*(x.chunk(settings.critic_minibatches, 1) for x in (z, target)), strict=True)
        )
        for z_mini, target_mini in minibatches * settings.critic_iterations:
            grads, error = gradient(critic_loss, critics, z_mini, target_mini, stacked=True)
            grads, norm = vmap(lambda g: clip(g, settings.critic_grad_clip))(grads)
            critics, adam = step(critics, grads, adam, rate)
        return critics, adam, {"critic_loss": error, "critic_grad_norm": norm}

    def update(
        state: CellState, start: Start, rates: Rates, models: Params | None = None
    ) -> tuple[CellState, Metrics]:
        grads, (imagined, scale, actor_metrics) = gradient(
            imagined_loss, state.policy, state.critics, state.scale, start, models or {},
            stacked=True,
        )  # fmt: skip
        grads, norm = vmap(lambda g: clip(g, settings.actor_grad_clip))(grads)
        policy, policy_adam = step(state.policy, grads, state.policy_adam, rates.actor)
        policy = vmap(projection(roles.policy))(policy)
        critics, critic_adam, critic_metrics = critic_steps(
            state.critics, state.critic_adam, imagined, rates.critic
        )
        metrics = {
            **{f"actor_{name}": value for name, value in actor_metrics.items()},
            "actor_grad_norm": norm,
            "imagined_reward": imagined.reward_HB.mean((1, 2)),
            **critic_metrics,
        }
        return CellState(policy, policy_adam, critics, critic_adam, scale), metrics

    return update


def encoded(model: Any, obs: Tensor, index: Tensor, mask: Tensor) -> tuple[Tensor, Task]:
    """Latents of observations ``[B, O]``, and their task."""
    task = Task(index, mask, model.embed(index))
    return model.encode(obs, task.embedding_BE), task
