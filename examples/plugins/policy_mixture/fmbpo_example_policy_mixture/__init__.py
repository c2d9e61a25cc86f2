"""A soft mixture of squashed Gaussians, differentiable from the choice to the action.

``w = softmax((l(z) + ξ) / T)``, ``a = tanh(Σ_k w_k (μ_k(z) + σ_k ε))``, ξ and ε standard normals
from the engine. As T goes to 0, w becomes a choice of one component (a probit model's, as ξ is
normal) and the action a sample of a mixture of squashed Gaussians.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from attrs.validators import and_, deep_iterable, ge, gt, instance_of, min_len
from torch import Tensor, nn

from fmbpo import hookspecs as spec
from fmbpo.nn import blocks
from fmbpo.nn.policy import LogStd, pwm_actor_loss
from fmbpo.nn.rollout import policy_rollout

_widths: Any = deep_iterable(and_(instance_of(int), gt(0)), min_len(1))


@attrs.frozen(kw_only=True)
class Config:
    """Settings of the mixture."""

    units: list[int] = attrs.field(factory=lambda: [400, 200, 100], validator=_widths)
    """Hidden widths."""
    components: int = attrs.field(default=3, validator=ge(2))
    """K, Gaussians."""
    temperature: float = attrs.field(default=0.5, validator=gt(0.0))
    """T of the weights: the lower, the closer to a choice of one component."""
    init_log_std: float = -1.0
    """Initial log standard deviations before tanh, one per component and action dimension."""
    min_log_std: float = -1.427
    """Their floor."""


class Mixture(nn.Module):
    """One network for weights and means; the components' standard deviations."""

    evaluations = 1

    def __init__(self, config: Config, dims: spec.PolicyDims) -> None:
        super().__init__()
        self.config = config
        self.noise_dim = config.components + dims.action
        self.net = blocks.plain_mlp(
            dims.latent, config.units, config.components * (1 + dims.action)
        )
        size = config.components * dims.action
        self.log_std = LogStd(size, config.init_log_std, config.min_log_std)

    def project(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Parameters after an update, with log standard deviations at or above their floor."""
        return {**params, "log_std.value": self.log_std.project(params["log_std.value"])}

    def heads(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``[..., D]`` -> logits of the weights ``[..., K]``, means ``[..., K, A]``."""
        k = self.config.components
        logits, means = self.net(z).tensor_split([k], -1)
        return logits, means.unflatten(-1, (k, -1))

    def forward(self, z: Tensor, task: spec.Task, noise: Tensor) -> Tensor:
        """``z_BD``, noise ``[B, K + A]`` -> ``action_BA``."""
        logits, means = self.heads(z)
        choice, within = noise.tensor_split([self.config.components], -1)
        weights = ((logits + choice) / self.config.temperature).softmax(-1).unsqueeze(-1)
        drawn = means + self.log_std.std().view_as(means[0]) * within.unsqueeze(-2)
        return torch.tanh((weights * drawn).sum(-2)) * task.mask_BA


spec_version = 2
small: dict[str, Any] = {"units": [16, 8]}


def build(config: Config, dims: spec.PolicyDims) -> Mixture:
    """A freshly initialised policy."""
    return Mixture(config, dims)


@spec.hookimpl
def predict(module: Mixture, z: Tensor, task: spec.Task, noise: Tensor) -> Tensor:
    """A reparameterised sample; if the noise is zero, the squashed weighted mean."""
    action: Tensor = module(z, task, noise)
    return action


@spec.hookimpl
def rollout(
    module: Mixture, z: Tensor, partner: spec.AnswerAction, task: spec.Task, noise: Tensor
) -> spec.Rollout:
    """Repeated ``predict``, each answered by the partner; the policy's input is cut."""
    return policy_rollout(lambda z, n: predict(module, z, task, n), z, partner, noise)


@spec.hookimpl
def loss(
    module: Mixture, imagined: spec.Imagined, context: spec.LossContext
) -> tuple[Tensor, spec.Metrics]:
    """PWM's actor loss; ``components``: the number in use, 1 to K."""
    total, metrics = pwm_actor_loss(imagined)
    with torch.no_grad():
        logits, _ = module.heads(imagined.rollout.z_HBD[:-1])
        use = (logits / module.config.temperature).softmax(-1).flatten(0, 1).mean(0)
        return total, {**metrics, "components": use.xlogy(use).sum().neg().exp()}


@spec.hookimpl
def freeze(module: Mixture) -> None:
    """Stop every parameter from learning."""
    blocks.freeze(module)
