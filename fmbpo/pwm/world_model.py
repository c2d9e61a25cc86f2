"""One world-model update: loss, gradient, clipping, Adam. A pure function over tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from fmbpo.base.metrics import GRAD_NORM
from fmbpo.config.protocols import ModelOptimiser
from fmbpo.hookspecs import Batch, Metrics, WorldModel
from fmbpo.pwm.optim import (
    AdamState,
    Params,
    adam_init,
    adam_step,
    clip,
    gradient,
    linear_decay,
    projection,
)
from fmbpo.pwm.pair import HookCall


class WorldModelState(NamedTuple):
    """Everything that a world-model update changes. ``stale``: gradients that are never cleared."""

    params: Params
    adam: AdamState
    stale: Params

    @staticmethod
    def initial(params: Params, stale_embedding: bool = False) -> WorldModelState:
        """These parameters, without optimiser history.

        ``stale_embedding`` is PWM's released behaviour: the task embedding is in no optimiser, and
        its gradient, which is never cleared, counts when the others are clipped.
        """
        held = [k for k in params if stale_embedding and k.startswith("task_embedding.")]
        learns = {k: v for k, v in params.items() if k not in held}
        stale = {k: torch.zeros_like(params[k]) for k in held}
        return WorldModelState(params, adam_init(learns), stale)


class WorldModelUpdate:
    """``update(state, batch, noise_HBN, learning_rate []) -> (state, metrics)``.

    Parameters whose name begins with ``encoder.`` learn at ``encoder_scale`` times the rate
    (TD-MPC2). ``stacked``: state, batch and noise have a leading dimension of models, which learn
    independently.
    """

    def __init__(
        self,
        module: WorldModel,
        loss: Callable[..., tuple[Tensor, Metrics]],
        optimiser: ModelOptimiser,
        *,
        stacked: bool = False,
    ) -> None:
        """``loss``: the plugin's hook."""
        self.loss, self.project = HookCall(module, loss), projection(module)
        self.optimiser, self.stacked = optimiser, stacked
        names = [name for name, _ in module.named_parameters() if name.startswith("encoder.")]
        self.scales = dict.fromkeys(names, optimiser.encoder_scale)

    def __call__(
        self, state: WorldModelState, batch: Batch, noise: Tensor, learning_rate: Tensor
    ) -> tuple[WorldModelState, Metrics]:
        """One update, of every model if they are stacked."""
        grads, metrics = gradient(
            self.loss.with_params, state.params, batch, noise, stacked=self.stacked
        )
        step = vmap(self._step, in_dims=(0, 0, None)) if self.stacked else self._step
        state, norm = step(state, grads, learning_rate)
        return state, {**metrics, GRAD_NORM: norm}

    def _step(
        self, state: WorldModelState, grads: Params, learning_rate: Tensor
    ) -> tuple[WorldModelState, Tensor]:
        """One model: clipping, Adam, projection; also returns the norm of its gradient (0-d)."""
        total = {k: g + state.stale[k] if k in state.stale else g for k, g in grads.items()}
        clipped, norm = clip(total, self.optimiser.grad_clip)
        params, adam = adam_step(
            state.params, clipped, state.adam, learning_rate, self.optimiser.betas, self.scales
        )
        stale = {k: clipped[k] for k in state.stale}
        return WorldModelState(self.project({**state.params, **params}), adam, stale), norm


def model_rate(optimiser: ModelOptimiser, done: float, device: torch.device) -> Tensor:
    """The learning rate (0-d) when this share of the updates is done."""
    rate = linear_decay(optimiser.learning_rate, optimiser.final_learning_rate, done)
    return torch.tensor(rate, device=device)
