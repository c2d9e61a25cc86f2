"""One policy update of PWM (arXiv 2407.02466): imagine, actor step, critic steps.

Every state and start has a leading dimension of cells (one cell = one task and seed, each with
its own policy, critics and optimisers), so that many policies train in one program. The functions
inside are written for one cell and mapped with ``torch.func.vmap``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.func import vmap

from fmbpo.hookspecs import Imagined, Metrics
from fmbpo.pwm.critic import ReturnScale
from fmbpo.pwm.gradient import gradient
from fmbpo.pwm.imagination import PolicySettings, Roles, Start, make_losses
from fmbpo.pwm.optim import AdamState, Params, adam_init, adam_step, clip, projection


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


class Rates(NamedTuple):
    """Learning rates (0-d)."""

    actor: Tensor
    critic: Tensor


Update: TypeAlias = Callable[..., tuple[CellState, Metrics]]
"""``(state, start, rates) -> (state, metrics)``, and behind them the world models' parameters,
stacked along the cells, where each cell has its own."""


def make_policy_update(roles: Roles, settings: PolicySettings) -> Update:
    """``update(state, start, rates) -> (state, metrics)``: a pure function, all cells at once."""
    losses = make_losses(roles, settings)
    step = vmap(
        lambda params, grads, adam, rate: adam_step(params, grads, adam, rate, settings.betas),
        in_dims=(0, 0, 0, None),
    )

    def critic_steps(
        critics: Params, adam: AdamState, imagined: Imagined, rate: Tensor
    ) -> tuple[Params, AdamState, Metrics]:
        """Passes over contiguous, time-major mini-batches, in order."""
        target = vmap(losses.targets)(critics, imagined).flatten(1)
        z = imagined.rollout.z_HBD[:, :-1].flatten(1, 2)
        minibatches = list(
            zip(*(x.chunk(settings.critic_minibatches, 1) for x in (z, target)), strict=True)
        )
        errors = []
        for z_mini, target_mini in minibatches * settings.critic_iterations:
            grads, error = gradient(losses.critic, critics, z_mini, target_mini, stacked=True)
            grads, norm = vmap(lambda g: clip(g, settings.critic_grad_clip))(grads)
            critics, adam = step(critics, grads, adam, rate)
            errors.append(error)
        metrics = {"critic_loss": torch.stack(errors).mean(0), "critic_grad_norm": norm}
        return critics, adam, metrics

    def update(
        state: CellState, start: Start, rates: Rates, models: Params | None = None
    ) -> tuple[CellState, Metrics]:
        grads, (imagined, scale, actor_metrics) = gradient(
            losses.actor, state.policy, state.critics, state.scale, start, models or {},
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
