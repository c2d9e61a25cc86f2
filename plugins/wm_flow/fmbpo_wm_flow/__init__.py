"""The flow world model: a velocity field carries ``z_t`` to ``z_{t+1}``.

Flow matching: Lipman et al. 2023, arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003. The rest
of the model is TD-MPC2's, shared with the MLP world model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fmbpo.hookspecs import (
    SPEC_VERSION,
    Batch,
    ChooseAction,
    Metrics,
    Prediction,
    Rollout,
    Task,
    WorldModelDims,
    hookimpl,
)
from fmbpo.nn.blocks import freeze
from fmbpo.nn.rollout import model_rollout
from fmbpo.nn.world_model import sub_trajectory_loss
from fmbpo_wm_flow.model import FlowConfig, FlowWorldModel


class FlowPlugin:
    """The plugin."""

    spec_version = SPEC_VERSION
    Config = FlowConfig

    def build(self, config: FlowConfig, dims: WorldModelDims) -> FlowWorldModel:
        """A freshly initialised model."""
        return FlowWorldModel(config, dims)

    @hookimpl
    def predict(
        self, module: FlowWorldModel, z: Tensor, action: Tensor, task: Task, noise: Tensor
    ) -> Prediction:
        """Solve the flow for the next latent; one pass of the reward head."""
        return Prediction(module.advance(z, action, task), module.reward_logits(z, action, task))

    @hookimpl
    def rollout(
        self, module: FlowWorldModel, z: Tensor, partner: ChooseAction, task: Task, noise: Tensor
    ) -> Rollout:
        """Repeated ``predict``."""
        return model_rollout(lambda z, a, n: self.predict(module, z, a, task, n), z, partner, noise)

    @hookimpl
    def loss(self, module: FlowWorldModel, batch: Batch, noise: Tensor) -> tuple[Tensor, Metrics]:
        """Flow matching along the straight path from the model's own latent to the real next one.

        ``z_τ = (1 - τ) z + τ z*``; with the endpoint parameterisation the weighted loss
        ``(1 - τ)² |v - v*|²`` is ``|ê(z_τ) - z*|²``: the MLP model's units. The next source is
        the model's own solution, so the error of a rollout is trained too.
        """

        def advance(
            z: Tensor, action: Tensor, target: Tensor, task: Task, noise_B1: Tensor
        ) -> tuple[Tensor, Tensor]:
            tau = _tau(noise_B1, module.config.tau)
            on_path = (1.0 - tau) * z + tau * target
            predicted = module.endpoint(on_path, module.step_tail(z, action, task), tau)
            solved = module.advance(z, action, task)
            error = F.mse_loss(predicted, target)
            return solved, error + module.config.endpoint_coef * F.mse_loss(solved, target)

        return sub_trajectory_loss(module, batch, noise, advance)

    @hookimpl
    def freeze(self, module: FlowWorldModel) -> None:
        """No parameter learns any more."""
        freeze(module)


def _tau(noise: Tensor, kind: str) -> Tensor:
    """Standard normals -> path times in [0, 1]."""
    if kind == "uniform":
        return torch.special.ndtr(noise)
    return noise.sigmoid() if kind == "logit_normal" else torch.full_like(noise, 0.5)


plugin = FlowPlugin()
