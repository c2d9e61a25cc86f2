"""The flow world model's network, velocity field and one-step solution."""

from __future__ import annotations

from typing import Literal

import attrs
import torch
from attrs.validators import ge, gt, in_
from torch import Tensor, nn

from fmbpo.hookspecs import Task, WorldModelDims
from fmbpo.nn.blocks import SIMPLEX_DIM
from fmbpo.nn.ode import STAGES, Solver, evaluations, integrate
from fmbpo.nn.world_model import LatentWorldModel, WorldModelConfig


@attrs.frozen(kw_only=True)
class FlowConfig(WorldModelConfig):
    """The shared settings of a world model, and how the flow is solved and trained."""

    solver: Solver = attrs.field(default="heun", validator=in_(list(STAGES)))
    """Method that carries z_t (τ = 0) to z_{t+1} (τ = 1)."""
    substeps: int = attrs.field(default=4, validator=gt(0))
    """K, equal steps of the solver; with Euler, K = 1 is exactly the MLP world model."""
    tau: Literal["uniform", "midpoint", "logit_normal"] = attrs.field(
        default="uniform", validator=in_(["uniform", "midpoint", "logit_normal"])
    )
    """Where along the path the field is trained."""
    endpoint_coef: float = attrs.field(default=1.0, validator=ge(0.0))
    """Weight of the solved endpoint's own error beside the flow-matching error; 0 leaves it out."""


class FlowWorldModel(LatentWorldModel):
    """The MLP model's networks with one more input column, τ, in the dynamics.

    The network predicts the *endpoint* ``ê(z_τ, e, a, τ) = SimNorm(D(z_τ, e, a, τ))``; the
    velocity is ``v = (ê - z_τ) / (1 - τ)``. Each group of a velocity sums to 0.
    """

    loss_noise_dim = 1
    config: FlowConfig

    def __init__(self, config: FlowConfig, dims: WorldModelDims) -> None:
        super().__init__(config, dims, extra_inputs=1)
        first = self.dynamics[0].linear
        nn.init.zeros_(first.weight[:, -1:])
        self.evaluations = evaluations(config.solver, config.substeps, open_end=True)

    def endpoint(self, z: Tensor, step_tail: Tensor, tau: Tensor) -> Tensor:
        """``ê``: ``z_BD``, the step's other inputs ``[B, E + A]``, ``tau_B1`` -> ``[B, D]``."""
        e: Tensor = self.dynamics(torch.cat([z, step_tail, tau], -1))
        return e

    def step_tail(self, z: Tensor, action: Tensor, task: Task) -> Tensor:
        """``[e, a]`` of the step's input, constant along the path."""
        return self.step_input(z, action, task)[..., self.latent_dim :]

    def advance(self, z: Tensor, action: Tensor, task: Task) -> Tensor:
        """Solve the flow from ``z_BD`` to the next latent ``[B, D]``."""
        tail = self.step_tail(z, action, task)

        def velocity(x: Tensor, tau: float) -> Tensor:
            at = torch.full_like(x[..., :1], tau)
            return (self.endpoint(x, tail, at) - x) / (1.0 - tau)

        z = integrate(velocity, z, self.config.solver, self.config.substeps, open_end=True)
        return onto_simplex(z)


def onto_simplex(z: Tensor) -> Tensor:
    """Clamp at 0 and renormalise each group: ``[..., D]`` -> ``[..., D]``.

    Euler and Heun make convex combinations of points of the simplex, for which this only removes
    rounding; midpoint and RK4 weigh a stage negatively and can step outside.
    """
    groups = z.unflatten(-1, (-1, SIMPLEX_DIM)).clamp(min=0.0)
    return (groups / groups.sum(-1, keepdim=True).clamp(min=1e-12)).flatten(-2)
