"""Flow Q-learning (arXiv 2502.02538) in imagination: a one-step policy near the data's actions.

A behaviour flow learns the data's actions by flow matching from real latents and actions. The
policy that acts maps the same noise to an action in one pass. It maximises the imagined return, and
stays near the action at the end of the flow: it can be as varied as the data, and no gradient
passes through the flow's steps.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from attrs.validators import and_, deep_iterable, ge, gt, instance_of, min_len
from torch import Tensor, nn

from fmbpo import hookspecs as spec
from fmbpo.nn import blocks
from fmbpo.nn.ode import integrate
from fmbpo.nn.policy import action_error, pwm_actor_loss
from fmbpo.nn.rollout import policy_rollout

DRAWS = 16
"""Starts and times per real action from which the flow learns."""
_widths: Any = deep_iterable(and_(instance_of(int), gt(0)), min_len(1))


@attrs.frozen(kw_only=True)
class Config:
    """Settings of both networks."""

    units: list[int] = attrs.field(factory=lambda: [400, 200, 100], validator=_widths)
    """Hidden widths of each."""
    anchor: float = attrs.field(default=0.1, validator=ge(0.0))
    """α, weight of the distance between the policy's action and the flow's."""
    substeps: int = attrs.field(default=10, validator=gt(0))
    """Euler steps of the flow."""


class FlowQ(nn.Module):
    """The policy ``μ(z, ε)``, and the velocity ``v(x, z, τ)`` of the behaviour flow."""

    evaluations, real_steps = 1, 1

    def __init__(self, config: Config, dims: spec.PolicyDims) -> None:
        super().__init__()
        self.config, self.noise_dim = config, dims.action
        self.loss_noise_dim = DRAWS * (dims.action + 1)
        self.policy = blocks.plain_mlp(dims.latent + dims.action, config.units, dims.action)
        inputs = dims.action + dims.latent + 1
        self.velocity = blocks.plain_mlp(inputs, config.units, dims.action)

    def forward(self, z: Tensor, task: spec.Task, noise: Tensor) -> Tensor:
        """``z_BD``, noise ``[B, A]`` -> ``action_BA``."""
        out = self.policy(torch.cat([z, noise * task.mask_BA], -1))
        return torch.tanh(out) * task.mask_BA

    @torch.no_grad()
    def behaviour(self, z: Tensor, task: spec.Task, noise: Tensor) -> Tensor:
        """The flow's actions, from the same noise: ``[..., B, D]`` -> ``[..., B, A]``."""

        def velocity(x: Tensor, tau: float) -> Tensor:
            v: Tensor = self.velocity(torch.cat([x, z, torch.full_like(z[..., :1], tau)], -1))
            return v

        end = integrate(velocity, noise * task.mask_BA, "euler", self.config.substeps)
        return end.clamp(-1, 1) * task.mask_BA

    def matching(self, z: Tensor, action: Tensor, task: spec.Task, noise: Tensor) -> Tensor:
        """The flow's error (0-d) for real latents ``z_BD`` and actions ``[B, A]``, each with
        ``DRAWS`` starts and times from the noise ``[B, DRAWS * (A + 1)]``."""
        noise = noise.reshape(*noise.shape[:-1], DRAWS, -1).movedim(-2, 0)
        start, tau = noise[..., :-1] * task.mask_BA, torch.special.ndtr(noise[..., -1:])
        wanted = action - start
        x = torch.cat([start + tau * wanted, z.expand(*tau.shape[:-1], -1), tau], -1)
        return action_error(self.velocity(x), wanted, task)


spec_version = 2
small: dict[str, Any] = {"units": [16, 8]}


def build(config: Config, dims: spec.PolicyDims) -> FlowQ:
    """A freshly initialised policy."""
    return FlowQ(config, dims)


@spec.hookimpl
def predict(module: FlowQ, z: Tensor, task: spec.Task, noise: Tensor) -> Tensor:
    """The one-step policy's action."""
    action: Tensor = module(z, task, noise)
    return action


@spec.hookimpl
def rollout(
    module: FlowQ, z: Tensor, partner: spec.AnswerAction, task: spec.Task, noise: Tensor
) -> spec.Rollout:
    """Repeated ``predict``, each answered by the partner; the policy's input is cut."""
    return policy_rollout(lambda z, n: predict(module, z, task, n), z, partner, noise)


@spec.hookimpl
def loss(
    module: FlowQ, imagined: spec.Imagined, context: spec.LossContext
) -> tuple[Tensor, spec.Metrics]:
    """PWM's actor loss, the distance from the flow's actions, and the flow's own error."""
    task, rollout, real, noise = context.task, imagined.rollout, context.real, context.loss_noise_BN
    assert real is not None
    assert noise is not None
    wanted = module.behaviour(rollout.z_HBD[:-1].detach(), task, context.noise_HBN)
    distance = action_error(rollout.action_HBA, wanted, task)
    matching = module.matching(real.z_HBD[0].detach(), real.action_HBA[0], task, noise)
    total, metrics = pwm_actor_loss(imagined)
    total = total + module.config.anchor * distance + matching
    more = {"loss": total, "distance": distance, "behaviour_loss": matching}
    return total, {**metrics, **{name: value.detach() for name, value in more.items()}}


@spec.hookimpl
def freeze(module: FlowQ) -> None:
    """Stop every parameter from learning."""
    blocks.freeze(module)
