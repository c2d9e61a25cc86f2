"""One world-model update: loss, gradient, clipping, Adam. A pure function over tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.func import functional_call

from fmbpo.engine.adam import AdamState, Params, adam_init, adam_step, clip, projection
from fmbpo.engine.gradient import gradient
from fmbpo.hookspecs import Batch, Metrics


class HookCall(nn.Module):
    """Lets ``functional_call`` put given parameters into a hook's module."""

    def __init__(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.hook = module, hook

    def forward(self, *args: Any) -> Any:
        """The hook's result with ``self.module`` as its module."""
        return self.hook(self.module, *args)

    def with_params(self, params: Params, *args: Any) -> Any:
        """The hook's result with ``params`` in place of the module's own parameters."""
        return functional_call(self, {f"module.{k}": v for k, v in params.items()}, args)


class WorldModelState(NamedTuple):
    """All that a world-model update changes."""

    params: Params
    adam: AdamState

    @staticmethod
    def initial(params: Params) -> WorldModelState:
        """Given parameters, no optimiser history."""
        return WorldModelState(params, adam_init(params))


class WorldModelSettings(NamedTuple):
    """What stays constant over the updates of a run."""

    betas: tuple[float, float]
    grad_clip: float
    encoder_scale: float


def make_world_model_update(
    module: nn.Module, loss_hook: Callable[..., Any], settings: WorldModelSettings
) -> Callable[[WorldModelState, Batch, Tensor, Tensor], tuple[WorldModelState, Metrics]]:
    """``update(state, batch, noise_HBN, learning_rate []) -> (state, metrics)``.

    Parameters whose name begins with ``encoder.`` learn at ``encoder_scale`` times the rate
    (TD-MPC2).
    """
    loss, project = HookCall(module, loss_hook), projection(module)
    scales = {
        name: settings.encoder_scale
        for name, _ in module.named_parameters()
        if name.startswith("encoder.")
    }

    def update(
        state: WorldModelState, batch: Batch, noise: Tensor, learning_rate: Tensor
    ) -> tuple[WorldModelState, Metrics]:
        grads, metrics = gradient(loss.with_params, state.params, batch, noise)
        grads, norm = clip(grads, settings.grad_clip)
        params, adam = adam_step(
            state.params, grads, state.adam, learning_rate, settings.betas, scales
        )
        return WorldModelState(project(params), adam), {**metrics, "grad_norm": norm}

    return update
