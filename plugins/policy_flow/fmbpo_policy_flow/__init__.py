"""The flow ODE policy: a learned velocity field carries noise to x_1, and ``a = tanh(x_1 + σ ε)``.

The field may contract the noise of its source to nothing. The noise ε after the solver does not
pass through it, so the action's noise has the Gaussian policy's floor.

It is trained by first-order gradients through the imagined rollout and through the solver. It has
no log-density, which PWM's loss does not need.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from attrs.validators import and_, deep_iterable, ge, gt, in_, instance_of, min_len
from torch import Tensor, nn
from torch.func import vjp

from fmbpo.hookspecs import PolicyDims, Task, hookimpl
from fmbpo.nn.blocks import plain_mlp
from fmbpo.nn.ode import STAGES, Solver, evaluations, integrate
from fmbpo.nn.policy import LogStd, PWMPolicy, policy_input


@attrs.frozen(kw_only=True)
class FlowPolicyConfig:
    """Settings of the flow policy. Default widths and noise: the Gaussian policy's."""

    units: list[int] = attrs.field(
        factory=lambda: [400, 200, 100],
        validator=deep_iterable(and_(instance_of(int), gt(0)), min_len(1)),
    )
    """Hidden widths of the velocity network."""
    solver: Solver = attrs.field(default="heun", validator=in_(list(STAGES)))
    """Method that integrates from x_0 (τ = 0) to x_1 (τ = 1)."""
    substeps: int = attrs.field(default=2, validator=gt(0))
    """K, the number of equal solver steps."""
    gate: bool = False
    """Use ``v = σ(g) (c - x)`` instead of ``v = u``: bounds the field's growth along the
    sub-steps (SAC-Flow's Flow-G, arXiv 2509.25756)."""
    source_std: float = attrs.field(default=0.37, validator=ge(0))
    """Standard deviation of x_0; the default is the noise that the Gaussian policy starts with."""
    init_log_std: float = -1.0
    """Initial log standard deviation, before tanh, of the noise after the solver."""
    min_log_std: float = -1.427
    """Floor of the log standard deviation."""
    task_embedding: bool = False
    """Whether the policy also receives the world model's task embedding."""
    detach: bool = True
    """Whether the actor's gradient stops at the policy's input, the latent (PWM)."""


GATE_BIAS = 5.0
"""Initial bias of the gate, nearly open: σ(5) = 0.993."""


class FlowPolicy(nn.Module):
    """Velocity network ``u(x, z, e, τ)`` and the scale of the noise after the solver.

    The first half of a step's noise is the source's, the second the action's own.
    """

    def __init__(self, config: FlowPolicyConfig, dims: PolicyDims) -> None:
        super().__init__()
        self.config = config
        self.noise_dim, self.detach = 2 * dims.action, config.detach
        self.evaluations = evaluations(config.solver, config.substeps)
        inputs = dims.action + dims.latent + (dims.task if config.task_embedding else 0) + 1
        outputs = dims.action * (2 if config.gate else 1)
        self.velocity_net = plain_mlp(inputs, config.units, outputs)
        self.log_std = LogStd(dims.action, config.init_log_std, config.min_log_std)
        if config.gate:
            last = self.velocity_net[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight[dims.action :])
            nn.init.constant_(last.bias[dims.action :], GATE_BIAS)

    def velocity(self, x: Tensor, condition: Tensor, tau: float) -> Tensor:
        """``x_BA``, ``[B, D (+ E)]``, τ -> ``dx/dτ`` ``[B, A]``."""
        at = torch.full_like(x[..., :1], tau)
        u: Tensor = self.velocity_net(torch.cat([x, condition, at], -1))
        if not self.config.gate:
            return u
        target, gate = u.chunk(2, -1)
        return gate.sigmoid() * (target - x)

    def project(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Parameters after an update, with the log standard deviation raised to its floor."""
        return {**params, "log_std.value": self.log_std.project(params["log_std.value"])}

    def start(self, noise: Tensor, task: Task) -> Tensor:
        """x_0 ``[B, A]`` from a step's standard normals ``[B, 2 A]``."""
        source, _ = noise.chunk(2, -1)
        return self.config.source_std * source * task.mask_BA

    def solve(self, start: Tensor, z: Tensor, task: Task) -> Tensor:
        """x_0 ``[B, A]`` -> x_1 ``[B, A]``."""
        condition = policy_input(z, task, self.config.task_embedding)
        solver, substeps = self.config.solver, self.config.substeps
        return integrate(lambda x, tau: self.velocity(x, condition, tau), start, solver, substeps)

    def growth(self, z: Tensor, task: Task, noise: Tensor, vector: Tensor) -> Tensor:
        """Root mean square (0-d) of ``|vᵀ ∂x_1/∂x_0| / |v|`` for the rows of ``vector_BA``.

        The factor by which the sub-steps scale a gradient that passes through them; 1 keeps its
        norm. Only the task's action dimensions count.
        """
        vector = vector * task.mask_BA
        found: Any = vjp(lambda x: self.solve(x, z, task), self.start(noise, task))
        back: Tensor = found[1](vector)[0] * task.mask_BA
        return (back.square().sum(-1) / vector.square().sum(-1).clamp(min=1e-12)).mean().sqrt()

    def forward(self, z: Tensor, task: Task, noise: Tensor) -> Tensor:
        """``z_BD``, ``noise[B, 2 A]`` -> ``action_BA``."""
        _, own = noise.chunk(2, -1)
        end = self.solve(self.start(noise, task), z, task)
        return torch.tanh(end + self.log_std.std() * own) * task.mask_BA


class FlowPolicyPlugin(PWMPolicy):
    """The plugin."""

    Config = FlowPolicyConfig
    small: Mapping[str, Any] = {"units": [16, 8]}

    def build(self, config: FlowPolicyConfig, dims: PolicyDims) -> FlowPolicy:
        """A freshly initialised policy."""
        return FlowPolicy(config, dims)

    @hookimpl
    def predict(self, module: nn.Module, z: Tensor, task: Task, noise: Tensor) -> Tensor:
        """A reparameterised sample; from x_0 = 0 and without noise if the noise is zero."""
        action: Tensor = module(z, task, noise)
        return action


plugin = FlowPolicyPlugin()
