"""The MLP world model: ``z' = SimNorm(D(z, e, a))`` (TD-MPC2, arXiv 2310.16828)."""

from __future__ import annotations

from torch import Tensor

from fmbpo.hookspecs import (
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
from fmbpo.nn.world_model import (
    SMALL,
    LatentWorldModel,
    WorldModelConfig,
    mean_squared,
    prediction,
    sub_trajectory_loss,
)


class MLPWorldModel:
    """The plugin."""

    spec_version = 2
    Config = WorldModelConfig
    small = SMALL

    def build(self, config: WorldModelConfig, dims: WorldModelDims) -> LatentWorldModel:
        """A freshly initialised model."""
        return LatentWorldModel(config, dims)

    @hookimpl
    def predict(
        self, module: LatentWorldModel, state: Tensor, action: Tensor, task: Task, noise: Tensor
    ) -> Prediction:
        """One pass through the dynamics and the reward head."""
        z_next = module.dynamics(module.step_input(state, action, task))
        return prediction(module, state, z_next, action, task)

    @hookimpl
    def rollout(
        self,
        module: LatentWorldModel,
        state: Tensor,
        partner: ChooseAction,
        task: Task,
        noise: Tensor,
    ) -> Rollout:
        """Repeated ``predict``."""
        step = lambda z, a, n: self.predict(module, z, a, task, n)  # noqa: E731
        return model_rollout(step, state, partner, noise)

    @hookimpl
    def loss(
        self, module: LatentWorldModel, batch: Batch, noise: Tensor, done: Tensor
    ) -> tuple[Tensor, Metrics]:
        """TD-MPC2's loss: mean squared error of predicted latents, cross-entropy of rewards."""
        return sub_trajectory_loss(
            module,
            batch,
            lambda t, z, task: module.dynamics(module.step_input(z, batch.action_HBA[t], task)),
            lambda source, predicted, target, task: mean_squared(predicted - target),
        )

    @hookimpl
    def freeze(self, module: LatentWorldModel) -> None:
        """Stop every parameter from learning."""
        freeze(module)


plugin = MLPWorldModel()
