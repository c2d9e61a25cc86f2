"""A Gaussian policy that also maximises its entropy (SAC: arXiv 1812.05905), in imagination.

``a = tanh(μ(z) + σ(z) ε)``. Every step of the return earns ``-α log π(a | z)`` besides its reward,
in the actor's loss and in the critics' targets. The temperature α is a setting, or learns to keep
the entropy at a target.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from attrs.validators import and_, deep_iterable, gt, instance_of, min_len
from torch import Tensor, nn

from fmbpo import hookspecs as spec
from fmbpo.nn import blocks
from fmbpo.nn.precise import precise
from fmbpo.nn.returns import td_lambda
from fmbpo.nn.rollout import policy_rollout

_widths: Any = deep_iterable(and_(instance_of(int), gt(0)), min_len(1))


@attrs.frozen(kw_only=True)
class Config:
    """Settings of the policy."""

    units: list[int] = attrs.field(factory=lambda: [400, 200, 100], validator=_widths)
    """Hidden widths."""
    temperature: float = attrs.field(default=0.01, validator=gt(0.0))
    """α, at first if it learns."""
    learned: bool = True
    """Whether α learns."""
    target_entropy: float = -1.0
    """Entropy in nats per action dimension that a learned α aims at."""
    min_log_std: float = -3.0
    """Lower end of the range of log σ."""
    max_log_std: float = 0.5
    """Upper end of it."""

    def __attrs_post_init__(self) -> None:
        if self.min_log_std >= self.max_log_std:
            raise ValueError("min_log_std must be below max_log_std")


class Entropic(nn.Module):
    """One network for means and log standard deviations; log α, if it learns."""

    evaluations = 1

    def __init__(self, config: Config, dims: spec.PolicyDims) -> None:
        super().__init__()
        self.config, self.noise_dim = config, dims.action
        self.net = blocks.plain_mlp(dims.latent, config.units, 2 * dims.action)
        if config.learned:
            self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))

    def temperature(self) -> Tensor | float:
        """α, without gradient."""
        if not self.config.learned:
            return self.config.temperature
        return self.log_temperature.detach().exp()

    def forward(self, z: Tensor, task: spec.Task, noise: Tensor) -> tuple[Tensor, Tensor]:
        """``z_BD``, ``noise_BA`` -> ``action_BA`` and its log-density ``[B]`` over the action
        dimensions of the row's task."""
        mean, raw = precise(self.net(z)).chunk(2, -1)
        low, high = self.config.min_log_std, self.config.max_log_std
        log_std = low + (high - low) * raw.sigmoid()
        u = mean + log_std.exp() * noise
        # log(1 - tanh(u)²) without cancellation.
        slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
        log_prob = -0.5 * (noise.square() + math.log(2 * math.pi)) - log_std - slope
        return torch.tanh(u) * task.mask_BA, (log_prob * task.mask_BA).sum(-1)

    def targets(
        self, imagined: spec.Imagined, next_value_HB: Tensor, discount: float, lam: float
    ) -> Tensor:
        """TD(λ) of rewards with the entropy's bonus."""
        extras = imagined.rollout.extras
        reward_HB = imagined.reward_HB - self.temperature() * extras[spec.LOG_PROB]
        lam_HB = torch.full_like(next_value_HB, lam)
        return td_lambda(reward_HB, next_value_HB, discount, lam_HB, extras.get(spec.CONTINUE))


spec_version = 2
small: dict[str, Any] = {"units": [16, 8]}
build = Entropic


@spec.hookimpl
def predict(module: Entropic, z: Tensor, task: spec.Task, noise: Tensor) -> Tensor:
    """A reparameterised sample; the mode before tanh if the noise is zero."""
    action: Tensor = module(z, task, noise)[0]
    return action


@spec.hookimpl
def rollout(
    module: Entropic, z: Tensor, partner: spec.AnswerAction, task: spec.Task, noise: Tensor
) -> spec.Rollout:
    """Repeated ``predict`` with its log-density; the policy's input is cut."""

    def act(z: Tensor, noise: Tensor) -> tuple[Tensor, spec.Extras]:
        action, log_prob = module(z, task, noise)
        return action, {spec.LOG_PROB: log_prob}

    return policy_rollout(act, z, partner, noise)


@spec.hookimpl
def loss(
    module: Entropic, imagined: spec.Imagined, context: spec.LossContext
) -> tuple[Tensor, spec.Metrics]:
    """The negative return with the entropy's bonus and, if α learns, its own error."""
    log_prob_HB, alpha = imagined.rollout.extras[spec.LOG_PROB], module.temperature()
    bonus_B = -(imagined.weight_HB * alpha * log_prob_HB).sum(0)
    total = -((imagined.return_B + bonus_B) / imagined.scale).mean()
    entropy = -(log_prob_HB / context.task.mask_BA.sum(-1).clamp(min=1)).mean()
    metrics = {"loss": total, "return": imagined.return_B.mean(), "entropy": entropy}
    if module.config.learned:
        # Of value 0, as α has no objective of its own: it falls while there is too much entropy.
        moved = module.log_temperature - module.log_temperature.detach()
        total = total + moved * (entropy - module.config.target_entropy).detach()
        metrics["temperature"] = module.log_temperature.exp()
    return total, {name: value.detach() for name, value in metrics.items()}


@spec.hookimpl
def freeze(module: Entropic) -> None:
    """Stop every parameter from learning."""
    blocks.freeze(module)
