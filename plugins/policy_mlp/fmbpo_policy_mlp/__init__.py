"""The Gaussian MLP policy of PWM (arXiv 2407.02466): ``a = tanh(μ(z) + σ ε)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from attrs.validators import and_, deep_iterable, gt, instance_of, min_len
from torch import Tensor, nn

from fmbpo.hookspecs import PolicyDims, Task, hookimpl
from fmbpo.nn.blocks import plain_mlp
from fmbpo.nn.policy import LogStd, PWMPolicy, policy_input


@attrs.frozen(kw_only=True)
class GaussianConfig:
    """Settings of the Gaussian policy. Defaults: PWM's."""

    units: list[int] = attrs.field(
        factory=lambda: [400, 200, 100],
        validator=deep_iterable(and_(instance_of(int), gt(0)), min_len(1)),
    )
    """Hidden widths."""
    init_log_std: float = -1.0
    """Initial log standard deviation, before tanh, of every action dimension."""
    min_log_std: float = -1.427
    """Floor of the log standard deviation."""
    task_embedding: bool = False
    """Whether the policy also receives the world model's task embedding."""
    detach: bool = True
    """Whether the actor's gradient stops at the policy's input, the latent (PWM)."""


class GaussianPolicy(nn.Module):
    """Mean network and state-independent log standard deviation."""

    evaluations = 1

    def __init__(self, config: GaussianConfig, dims: PolicyDims) -> None:
        super().__init__()
        self.config = config
        self.noise_dim, self.detach = dims.action, config.detach
        inputs = dims.latent + (dims.task if config.task_embedding else 0)
        self.mean = plain_mlp(inputs, config.units, dims.action)
        self.log_std = LogStd(dims.action, config.init_log_std, config.min_log_std)

    def project(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Parameters after an update, with the log standard deviation raised to its floor."""
        return {**params, "log_std.value": self.log_std.project(params["log_std.value"])}

    def forward(self, z: Tensor, task: Task, noise: Tensor) -> Tensor:
        """``z_BD``, ``noise_BA`` -> ``action_BA``."""
        mean = self.mean(policy_input(z, task, self.config.task_embedding))
        return torch.tanh(mean + self.log_std.std() * noise) * task.mask_BA


class GaussianPlugin(PWMPolicy):
    """The plugin."""

    Config = GaussianConfig
    small: Mapping[str, Any] = {"units": [16, 8]}

    def build(self, config: GaussianConfig, dims: PolicyDims) -> GaussianPolicy:
        """A freshly initialised policy."""
        return GaussianPolicy(config, dims)

    @hookimpl
    def predict(self, module: nn.Module, z: Tensor, task: Task, noise: Tensor) -> Tensor:
        """A reparameterised sample; the mode if the noise is zero."""
        action: Tensor = module(z, task, noise)
        return action


plugin = GaussianPlugin()
