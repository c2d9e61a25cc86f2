"""What one cell's policy and critics are trained on: imagined trajectories (PWM, 2407.02466)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmbpo.hookspecs import Imagined, Metrics, Prediction, Task
from fmbpo.nn import two_hot
from fmbpo.pwm.critic import Critic, ReturnScale, ensemble_values, td_lambda
from fmbpo.pwm.optim import Params
from fmbpo.pwm.world_model import HookCall


class Start(NamedTuple):
    """Real observations that imagination starts from, their task, and the noise to use."""

    obs_BO: Tensor
    index_B: Tensor
    mask_BA: Tensor
    policy_noise_HBN: Tensor
    model_noise_HBN: Tensor


class PolicySettings(NamedTuple):
    """What stays constant over the updates of a run; the last three are conventions of
    ``fmbpo.config.conventions``."""

    discount: float
    lam: float
    betas: tuple[float, float]
    actor_grad_clip: float
    critic_grad_clip: float
    critic_iterations: int
    critic_minibatches: int
    scale_returns: bool = True
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


class Losses(NamedTuple):
    """Functions of one cell.

    ``actor(policy, critics, scale, start, model) -> (loss, (imagined, scale, metrics))``;
    ``targets(critics, imagined) -> TD(λ) targets [H, B]``;
    ``critic(critics, z[..., D], target[...]) -> (loss, loss)``.
    """

    actor: Callable[..., Any]
    targets: Callable[..., Tensor]
    critic: Callable[..., tuple[Tensor, Tensor]]


def make_losses(roles: Roles, settings: PolicySettings) -> Losses:
    """The losses that an update differentiates."""
    critic = roles.critic
    begin = HookCall(roles.world_model, encoded)
    predict = HookCall(roles.world_model, roles.predict)
    imagine = HookCall(roles.policy, roles.policy_rollout)
    actor_loss = HookCall(roles.policy, roles.policy_loss)
    decode = two_hot.decode_symlog if settings.symlog_reward else two_hot.decode
    lam = 0.0 if settings.one_step_targets else settings.lam

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
        whole = torch.full_like(scale.mean, horizon)
        divisor = scale.divisor() if settings.scale_returns else whole
        imagined = Imagined(rollout, reward, value, total, divisor)
        loss, metrics = actor_loss.with_params(policy, imagined)
        return loss, (imagined, scale, metrics)

    def critic_targets(critics: Params, imagined: Imagined) -> Tensor:
        """One cell: TD(lambda) targets ``[H, B]`` from the critics before their step."""
        next_value = ensemble_values(critic, critics, imagined.rollout.z_HBD[1:]).amin(0)
        lam_HB = torch.full_like(next_value, lam)
        return td_lambda(imagined.reward_HB, next_value, settings.discount, lam_HB)

    def critic_loss(critics: Params, z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """One cell: mean squared error over the ensemble and the mini-batch."""
        error = (ensemble_values(critic, critics, z) - target).square().mean()
        return error, error

    return Losses(imagined_loss, critic_targets, critic_loss)


def encoded(model: Any, obs: Tensor, index: Tensor, mask: Tensor) -> tuple[Tensor, Task]:
    """Latents of observations ``[B, O]``, and their task."""
    task = Task(index, mask, model.embed(index))
    return model.encode(obs, task.embedding_BE), task
