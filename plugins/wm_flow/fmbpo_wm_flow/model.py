"""The flow world model's network and its one-step solution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs
import torch
from attrs.validators import ge, gt, in_
from torch import Tensor, nn

from fmbpo.hookspecs import Task, WorldModelDims
from fmbpo.nn.blocks import NormedLinear, simnorm
from fmbpo.nn.ode import STAGES, Solver, Velocity, evaluations, integrate
from fmbpo.nn.world_model import LatentWorldModel, WorldModelConfig
from fmbpo_wm_flow.field import PARAMETERISATIONS, Name

_CURVATURE_STEPS = 16


@attrs.frozen(kw_only=True)
class FlowConfig(WorldModelConfig):
    """The shared settings of a world model, and how the flow is solved and trained."""

    solver: Solver = attrs.field(default="heun", validator=in_(list(STAGES)))
    """Method that integrates from the source (τ = 0) to z_{t+1} (τ = 1) in every prediction."""
    substeps: int = attrs.field(default=4, validator=gt(0))
    """K, the number of equal solver steps; Euler with K = 1 is exactly the MLP world model."""
    parameterisation: Name = attrs.field(default="endpoint", validator=in_(list(PARAMETERISATIONS)))
    """The network's prediction: the path's end, the velocity, or the velocity of the logits."""
    source: Literal["latent", "noise"] = attrs.field(
        default="latent", validator=in_(["latent", "noise"])
    )
    """Start of the flow: z_t, or a random point (a stochastic model with z_t as another input)."""
    trained_from: Literal["rollout", "teacher", "mixed"] = attrs.field(
        default="rollout", validator=in_(["rollout", "teacher", "mixed"])
    )
    """Latents z_t of the flow-matching loss: the model's own predictions, E(o_t), or either."""
    tau: Literal["uniform", "midpoint", "logit_normal"] = attrs.field(
        default="uniform", validator=in_(["uniform", "midpoint", "logit_normal"])
    )
    """Distribution of the times τ at which the field is trained."""
    detach_velocity: bool = False
    """Whether v* = z* - z_s passes no gradient to the source z_s."""
    matching_coef: float = attrs.field(default=1.0, validator=ge(0.0))
    """Weight of the flow-matching error; 0 omits it, which leaves a network that is applied several
    times with tied weights and learns from the solved endpoint alone."""
    endpoint_coef: float = attrs.field(default=0.0, validator=ge(0.0))
    """Weight of the solved endpoint's error, added to the flow-matching error; 0 omits it."""
    train_solver: Literal["same", Solver] = attrs.field(
        default="same", validator=in_(["same", *STAGES])
    )
    """Method in the loss, for its rollout and the solved endpoint; ``same``: as ``solver``."""
    train_substeps: int = attrs.field(default=0, validator=ge(0))
    """Number of steps of that method; 0: the same as ``substeps``."""

    @property
    def of_training(self) -> tuple[Solver, int]:
        """The loss's method and its number of steps."""
        solver = self.solver if self.train_solver == "same" else self.train_solver
        return solver, self.train_substeps or self.substeps

    def __attrs_post_init__(self) -> None:
        if self.source == "noise" and self.endpoint_coef:
            raise ValueError(
                'endpoint_coef must be 0 if source is "noise": it would pull every sample to '
                "the mean"
            )
        if not (self.matching_coef or self.endpoint_coef):
            raise ValueError("matching_coef and endpoint_coef must not both be 0")


class FlowWorldModel(LatentWorldModel):
    """The MLP model's networks with an additional input column, τ, in the dynamics.

    Input of the dynamics: ``[x, e, a, τ]``, followed by ``z`` if the source is noise.
    """

    config: FlowConfig

    def __init__(self, config: FlowConfig, dims: WorldModelDims) -> None:
        field = PARAMETERISATIONS[config.parameterisation]
        stochastic = config.source == "noise"
        behind = config.latent_dim if stochastic else 0
        super().__init__(config, dims, 1 + behind, field.linear_head)
        self.field, self.stochastic = field, stochastic
        first = self.dynamics[0]
        assert isinstance(first, NormedLinear)
        columns = first.linear.weight
        nn.init.zeros_(columns[:, columns.shape[1] - behind - 1])  # τ's
        self.noise_dim = behind
        # For τ, the choice of z_t, and the flow's start.
        self.loss_noise_dim = 2 + behind if config.matching_coef else 0
        self.evaluations = evaluations(config.solver, config.substeps, open_end=field.open_end)

    def adopt(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As ``LatentWorldModel.adopt``; ``ValueError`` if the source is noise."""
        if self.stochastic:
            raise ValueError('source = "noise" puts noise where an MLP model has its latent')
        return super().adopt(weights)

    def tail(self, z: Tensor, action: Tensor, task: Task) -> tuple[Tensor, Tensor]:
        """The input columns that are constant along the path: those before τ, and those after."""
        step = self.step_input(z, action, task)[..., self.latent_dim :]
        return step, z if self.stochastic else z[..., :0]

    def output(self, x: Tensor, tau: Tensor, tail: tuple[Tensor, Tensor]) -> Tensor:
        """The network at flow state ``[..., D]`` and time ``[..., 1]``: ``[..., D]``."""
        y: Tensor = self.dynamics(torch.cat([x, tail[0], tau, tail[1]], -1))
        return y

    def start(self, z: Tensor, noise: Tensor) -> Tensor:
        """The flow's state at τ = 0, from the latent or from standard normals ``[..., D]``."""
        return self.field.enter(simnorm(noise) if self.stochastic else z)

    def velocity(self, z: Tensor, action: Tensor, task: Task) -> Velocity:
        """The field of one step from ``z_BD``: ``(x_BD, τ) -> dx/dτ [B, D]``."""
        tail = self.tail(z, action, task)

        def velocity(x: Tensor, tau: float) -> Tensor:
            output = self.output(x, torch.full_like(x[..., :1], tau), tail)
            return self.field.velocity(output, x, 1.0 - tau)

        return velocity

    def curvature(self, z: Tensor, action: Tensor, task: Task, noise: Tensor) -> Tensor:
        """``mean_τ |v(x_τ, τ) - (x_1 - x_0)|² / |x_1 - x_0|²`` (0-d) along the learned path.

        The straightness of rectified flow (Liu et al. 2023, arXiv 2209.03003), normalised; 0 if
        one Euler step is exact.
        """
        velocity, start = self.velocity(z, action, task), self.start(z, noise)
        x, seen = start, []
        for k in range(_CURVATURE_STEPS):
            seen.append(velocity(x, k / _CURVATURE_STEPS))
            x = x + seen[-1] / _CURVATURE_STEPS
        whole = x - start
        bend = (torch.stack(seen) - whole).square().sum(-1).mean(0)
        return (bend.mean() / whole.square().sum(-1).mean().clamp(min=1e-12)).detach()

    def advance(self, z: Tensor, action: Tensor, task: Task, noise: Tensor) -> Tensor:
        """Solve the flow from ``z_BD`` to the next latent ``[B, D]``, as predictions do."""
        return self._solved(z, action, task, noise, self.config.solver, self.config.substeps)

    def advance_in_training(self, z: Tensor, action: Tensor, task: Task, noise: Tensor) -> Tensor:
        """The same with the loss's method."""
        return self._solved(z, action, task, noise, *self.config.of_training)

    def _solved(
        self, z: Tensor, action: Tensor, task: Task, noise: Tensor, solver: Solver, substeps: int
    ) -> Tensor:
        velocity, x = self.velocity(z, action, task), self.start(z, noise)
        x = integrate(velocity, x, solver, substeps, open_end=self.field.open_end)
        return self.field.leave(x)
