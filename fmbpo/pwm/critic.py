"""PWM's critic: an ensemble of value functions of the latent."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call, vmap

from fmbpo.nn.blocks import plain_mlp
from fmbpo.nn.precise import precise
from fmbpo.pwm.optim import Params


class Critic(nn.Module):
    """A value function ``V(z)``: Linear -> Mish -> LayerNorm blocks with orthogonal weights."""

    def __init__(self, latent_dim: int, units: Sequence[int]) -> None:
        super().__init__()
        self.net = plain_mlp(latent_dim, units, 1)
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight, gain=2.0**0.5)
                nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor) -> Tensor:
        """``[..., D]`` -> ``[...]``."""
        value: Tensor = precise(self.net(z).squeeze(-1))
        return value

    def error(self, z: Tensor, target: Tensor) -> Tensor:
        """The squared error ``[...]`` of the values of ``[..., D]``."""
        error: Tensor = (self(z) - target).square()
        return error


def ensemble_values(critic: nn.Module, params: Params, *given: Tensor) -> Tensor:
    """The values of all critics, parameters stacked along C, of ``z[..., D]`` (and of
    ``action[..., A]`` if the critic takes actions): ``[C, ...]``."""
    values: Tensor = vmap(lambda p: functional_call(critic, p, given))(params)
    return values
