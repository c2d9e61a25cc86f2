"""Shared by policies: the hooks, noise scale, input, PWM's actor loss, distance to a target."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fmbpo.base.metrics import LOSS, RETURN
from fmbpo.hookspecs import (
    SPEC_VERSION,
    AnswerAction,
    Imagined,
    LossContext,
    Metrics,
    Rollout,
    Task,
    hookimpl,
)
from fmbpo.nn.blocks import freeze
from fmbpo.nn.rollout import policy_rollout


class PWMPolicy(ABC):
    """The hooks of a policy that learns as PWM's do; a plugin adds ``Config``, ``build`` and
    ``predict``.

    If the module has an attribute ``detach`` that is false, the actor's gradient also passes
    through the policy's input.
    """

    spec_version = SPEC_VERSION

    @abstractmethod
    def predict(self, module: nn.Module, z: Tensor, task: Task, noise: Tensor) -> Tensor:
        """``z_BD``, ``noise[B, noise_dim]`` -> ``action_BA``."""

    @hookimpl
    def rollout(
        self, module: nn.Module, z: Tensor, partner: AnswerAction, task: Task, noise: Tensor
    ) -> Rollout:
        """Repeated ``predict``, each answered by the partner."""
        act = lambda z, n: self.predict(module, z, task, n)  # noqa: E731
        return policy_rollout(act, z, partner, noise, detach=getattr(module, "detach", True))

    @hookimpl
    def loss(
        self, module: nn.Module, imagined: Imagined, context: LossContext
    ) -> tuple[Tensor, Metrics]:
        """PWM's actor loss."""
        return pwm_actor_loss(imagined)

    @hookimpl
    def freeze(self, module: nn.Module) -> None:
        """Stop every parameter from learning."""
        freeze(module)


class LogStd(nn.Module):
    """A state-independent log standard deviation with a floor, one per action dimension.

    Below the floor, the value is the floor and the gradient still passes. ``project`` clamps the
    parameter after every update, so it can rise again at once (PWM's ``clamp_std`` does both in
    place).
    """

    def __init__(self, width: int, initial: float, floor: float) -> None:
        super().__init__()
        self.floor = floor
        self.value = nn.Parameter(torch.full((width,), float(initial)))

    def std(self) -> Tensor:
        """``[A]`` standard deviations."""
        raw = self.value.detach()
        return (self.value + (raw.clamp(min=self.floor) - raw)).exp()

    def project(self, value: Tensor) -> Tensor:
        """The parameter ``[A]``, not below its floor."""
        return value.clamp(min=self.floor)


def policy_input(z: Tensor, task: Task, with_embedding: bool) -> Tensor:
    """``[B, D]`` latents, or ``[B, D + E]`` with the task embedding appended."""
    return torch.cat([z, task.embedding_BE], -1) if with_embedding else z


def pwm_actor_loss(imagined: Imagined) -> tuple[Tensor, Metrics]:
    """``-mean_B (Σ_t γ^t r̂_t + γ^H V(z_H)) / scale`` (PWM, arXiv 2407.02466)."""
    loss = -(imagined.return_B / imagined.scale).mean()
    return loss, {LOSS: loss.detach(), RETURN: imagined.return_B.detach().mean()}


def action_error(action: Tensor, target: Tensor, task: Task) -> Tensor:
    """Mean squared error (0-d) of actions ``[..., B, A]`` over the rows and the action dimensions
    of their tasks. The target passes no gradient: the actions come to it, not it to them."""
    own_B = task.mask_BA.sum(-1).clamp(min=1)
    error_BA = (action - target.detach()) * task.mask_BA
    return (error_BA.square().sum(-1) / own_B).mean()
