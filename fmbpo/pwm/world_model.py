"""One world-model update: loss, gradient, clipping, Adam. A pure function over tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fmbpo.hookspecs import Batch, Metrics
from fmbpo.pwm.gradient import gradient
from fmbpo.pwm.optim import AdamState, Params, adam_init, adam_step, clip, projection


class HookCall(nn.Module):
    """Lets ``functional_call`` put given parameters into a hook's module."""

    def __init__(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.hook = module, hook

    def forward(self, *args: Any) -> Any:
        """The hook's result with ``self.module`` as its module."""
        return self.hook(self.module, *args)

    def with_params(self, params: Params, *args: Any) -> Any:
        """The hook's result with ``params`` in place of the module's own parameters of the same
        names; with none, the module's own."""
        if not params:
            return self.hook(self.module, *args)
        return functional_call(self, {f"module.{k}": v for k, v in params.items()}, args)


class WorldModelState(NamedTuple):
    """All that a world-model update changes. ``stale``: gradients that are never cleared."""

    params: Params
    adam: AdamState
    stale: Params

    @staticmethod
    def initial(params: Params, stale_embedding: bool = False) -> WorldModelState:
        """Given parameters, no optimiser history."""
        stale = {k: torch.zeros_like(v) for k, v in params.items() if _is_embedding(k)}
        learns = {k: v for k, v in params.items() if not (stale_embedding and _is_embedding(k))}
        return WorldModelState(params, adam_init(learns), stale if stale_embedding else {})


class WorldModelSettings(NamedTuple):
    """What stays constant over the updates of a run.

    ``stale_embedding`` is PWM's released behaviour: the task embedding is in no optimiser, and its
    gradient, never cleared, counts when the others are clipped.
    """

    betas: tuple[float, float]
    grad_clip: float
    encoder_scale: float
    stale_embedding: bool = False


Update: TypeAlias = Callable[
    [WorldModelState, Batch, Tensor, Tensor], tuple[WorldModelState, Metrics]
]


def make_world_model_update(
    module: nn.Module,
    loss_hook: Callable[..., Any],
    settings: WorldModelSettings,
    *,
    stacked: bool = False,
) -> Update:
    """``update(state, batch, noise_HBN, learning_rate []) -> (state, metrics)``.

    Parameters whose name begins with ``encoder.`` learn at ``encoder_scale`` times the rate
    (TD-MPC2). ``stacked``: state, batch and noise have a leading dimension of models, each of
    which learns on its own.
    """
    loss, project = HookCall(module, loss_hook), projection(module)
    scales = {
        name: settings.encoder_scale
        for name, _ in module.named_parameters()
        if name.startswith("encoder.")
    }

    def step(
        state: WorldModelState, grads: Params, learning_rate: Tensor
    ) -> tuple[WorldModelState, Tensor]:
        """One model: clipping, Adam, projection."""
        total = {k: g + state.stale[k] if k in state.stale else g for k, g in grads.items()}
        clipped, norm = clip(total, settings.grad_clip)
        params, adam = adam_step(
            state.params, clipped, state.adam, learning_rate, settings.betas, scales
        )
        stale = {k: clipped[k] for k in state.stale}
        return WorldModelState(project({**state.params, **params}), adam, stale), norm

    finish = vmap(step, in_dims=(0, 0, None)) if stacked else step

    def update(
        state: WorldModelState, batch: Batch, noise: Tensor, learning_rate: Tensor
    ) -> tuple[WorldModelState, Metrics]:
        grads, metrics = gradient(loss.with_params, state.params, batch, noise, stacked=stacked)
        state, norm = finish(state, grads, learning_rate)
        return state, {**metrics, "grad_norm": norm}

    return update


def _is_embedding(name: str) -> bool:
    return name.startswith("task_embedding.")
