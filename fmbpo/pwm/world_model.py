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
    adam_step_,
    buffers_of,
    clip,
    flatten,
    gradient,
    in_one_vector,
    linear_decay,
    projected,
    projection,
    split,
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
        stale = in_one_vector(self.stale, int(stacked)) if self.stale else self.stale
        params = {**self.params, **in_one_vector(learns, int(stacked))}
        return self._replace(params=params, stale=stale)


class WorldModelUpdate:
    """``update(state, batch, noise_HBN, learning_rate [], done []) -> (state, metrics)``.

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
        self.buffers = buffers_of(module)
        self.optimiser, self.stacked = optimiser, stacked

    def __call__(
        self,
        state: WorldModelState,
        batch: Batch,
        noise: Tensor,
        learning_rate: Tensor,
        done: Tensor,
    ) -> tuple[WorldModelState, Metrics]:
        """One update, of every model if they are stacked; ``done``: the fraction of training."""
        grads, metrics = self.gradient(state.params, batch, noise, done)
        return self.step(state, grads, metrics, learning_rate)

    def gradient(
        self, params: Params, batch: Batch, noise: Tensor, done: Tensor
    ) -> tuple[Params, Metrics]:
        """The first half of an update: the gradient of the loss, and what it returns beside it."""
        if self.stacked:
            done = done.expand(len(noise))
        return gradient(
            self.loss.with_params, params, batch, noise, done,
            stacked=self.stacked, buffers=self.buffers,
        )  # fmt: skip

    def step(
        self, state: WorldModelState, grads: Params, metrics: Metrics, learning_rate: Tensor
    ) -> tuple[WorldModelState, Metrics]:
        """The second half: clipping, Adam, buffers, projection; the metrics, with the norms of the
        gradients ``[...]``."""
        new, metrics = split(metrics, self.buffers)
        lead = int(self.stacked)
        learns = {k: p for k, p in state.params.items() if k not in state.stale}
        grad = flatten({k: grads[k] for k in learns}, lead)
        kept = [flatten({k: grads[k] + g}, lead) for k, g in sorted(state.stale.items())]
        clipped, norm = clip(torch.cat([grad, *kept], -1), self.optimiser.grad_clip)
        grad, rest = clipped[..., : grad.shape[-1]], clipped[..., grad.shape[-1] :]
        flat, adam = flatten(learns, lead), state.adam.clone()
        adam_step_(
            flat, grad, adam, learning_rate, self.optimiser.betas, self._scales(learns, lead)
        )
        project = vmap(self._projected) if self.stacked else self._projected
        params = project(unflatten(flat, learns), state.params, new)
        state = WorldModelState(params, adam, unflatten(rest.clone(), state.stale))
        return state, {**metrics, GRAD_NORM: norm}

    def _projected(self, learns: Params, params: Params, new: Params) -> Params:
        return projected(learns, self.project, params, new)

    def _scales(self, learns: Params, lead: int) -> list[tuple[int, float]]:
        """``scales`` of ``adam_step_``."""
        scales: list[tuple[int, float]] = []
        for name in sorted(learns):
            entries = learns[name].shape[lead:].numel()
            factor = self.optimiser.encoder_scale if name.startswith("encoder.") else 1.0
            if scales and scales[-1][1] == factor:
                entries += scales.pop()[0]
            scales.append((entries, factor))
        return scales


def model_rate(optimiser: ModelOptimiser, done: float) -> Tensor:
    """The learning rate (0-d) when this share of the updates is done."""
    return torch.tensor(linear_decay(optimiser.learning_rate, optimiser.final_learning_rate, done))
