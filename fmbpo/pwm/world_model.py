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
    flatten,
    gradient,
    in_one_vector,
    linear_decay,
    projected,
    projection,
    unflatten,
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
        return WorldModelState(params, adam_init(flatten(learns)), stale)

    def laid_out(self, *, stacked: bool = False) -> WorldModelState:
        """The same state as it lies in memory after an update (``in_one_vector``)."""
        learns = {k: v for k, v in self.params.items() if k not in self.stale}
        lay = vmap(in_one_vector) if stacked else in_one_vector
        stale = lay(self.stale) if self.stale else self.stale
        return self._replace(params={**self.params, **lay(learns)}, stale=stale)


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
        learns = {k: p for k, p in state.params.items() if k not in state.stale}
        own = flatten({k: grads[k] for k in learns})
        kept = [flatten({k: grads[k] + g}) for k, g in sorted(state.stale.items())]
        clipped, norm = clip(torch.cat([own, *kept]), self.optimiser.grad_clip)
        own, rest = clipped[: len(own)], clipped[len(own) :]
        rate = self._rates(learns, learning_rate)
        flat, adam = adam_step(flatten(learns), own, state.adam, rate, self.optimiser.betas)
        params = projected(unflatten(flat, learns), self.project, state.params)
        return WorldModelState(params, adam, unflatten(rest.clone(), state.stale)), norm

    def _rates(self, learns: Params, learning_rate: Tensor) -> Tensor:
        """The learning rate of each entry of ``flatten(learns)``; 0-d if all are equal."""
        scale = self.optimiser.encoder_scale
        if scale == 1.0:
            return learning_rate
        parts = [
            (learning_rate * scale if name.startswith("encoder.") else learning_rate).expand(
                learns[name].numel()
            )
            for name in sorted(learns)
        ]
        return torch.cat(parts)


def model_rate(optimiser: ModelOptimiser, done: float, device: torch.device) -> Tensor:
    """The learning rate (0-d) when this share of the updates is done."""
    rate = linear_decay(optimiser.learning_rate, optimiser.final_learning_rate, done)
    return torch.tensor(rate, device=device)
