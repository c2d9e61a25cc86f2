"""The flow world model: a velocity field carries ``z_t`` to ``z_{t+1}``.

Flow matching: Lipman et al. 2023, arXiv 2210.02747; Liu et al. 2023, arXiv 2209.03003. The rest
of the model is TD-MPC2's, shared with the MLP world model.
"""

from __future__ import annotations

import torch
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
from fmbpo.nn.world_model import SMALL, mean_squared, prediction, sub_trajectory_loss
from fmbpo_wm_flow.field import path_times
from fmbpo_wm_flow.model import FlowConfig, FlowWorldModel


class FlowPlugin:
    """The plugin."""

    spec_version = 2
    Config = FlowConfig
    small = SMALL

    def build(self, config: FlowConfig, dims: WorldModelDims) -> FlowWorldModel:
        """A freshly initialised model."""
        return FlowWorldModel(config, dims)

    @hookimpl
    def predict(
        self, module: FlowWorldModel, state: Tensor, action: Tensor, task: Task, noise: Tensor
    ) -> Prediction:
        """Solve the flow for the next latent; one pass through the reward head."""
        z_next = module.advance(state, action, task, noise)
        return prediction(module, state, z_next, action, task)

    @hookimpl
    def rollout(
        self,
        module: FlowWorldModel,
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
        self, module: FlowWorldModel, batch: Batch, noise: Tensor, done: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Flow matching on the straight path to the real next latent, and the solved endpoint.

        ``x_τ = (1 - τ) x_s + τ x*``, error ``weight(τ)² |v(x_τ, τ) - v*|²``: with the endpoint
        parameterisation ``|ê(z_τ) - z*|²``, in the MLP model's units; ``matching_coef`` weights it.
        A point on the path at τ > 0 reveals the path's end, but a rollout starts at τ = 0.
        ``endpoint_coef`` therefore weights the error of the solution ``|z_{t+1} - z*|²``, which
        trains the field on the points of rollouts. ``train_solver`` and ``train_substeps`` choose
        the solver in the loss.
        """
        config, field = module.config, module.field
        tau, which, start = noise[..., :1], noise[..., 1:2], noise[..., 2:]

        def errors(own: Tensor, predicted: Tensor, target: Tensor, task: Task) -> Tensor:
            endpoint = own.new_zeros(len(own))
            if config.endpoint_coef:
                endpoint = config.endpoint_coef * mean_squared(predicted - target)
            if not config.matching_coef:
                return endpoint
            z = own
            if config.trained_from != "rollout":
                recorded = module.encode(batch.obs_HBO[:-1], task.embedding_BE)
                mixed = torch.where(which < 0.0, own, recorded)
                z = mixed if config.trained_from == "mixed" else recorded
            source, wanted = module.start(z, start), field.enter(target)
            time = path_times(tau, config.tau)
            x = (1.0 - time) * source + time * wanted
            output = module.output(x, time, module.tail(z, batch.action_HBA, task))
            velocity = wanted - (source.detach() if config.detach_velocity else source)
            matching = mean_squared(field.residual(output, x, 1.0 - time, velocity))
            return config.matching_coef * matching + endpoint

        return sub_trajectory_loss(
            module,
            batch,
            lambda t, z, task: module.advance_in_training(z, batch.action_HBA[t], task, start[t]),
            errors,
        )

    @hookimpl
    def freeze(self, module: FlowWorldModel) -> None:
        """Stop every parameter from learning."""
        freeze(module)


plugin = FlowPlugin()
