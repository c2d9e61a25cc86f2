"""PWM's critic ensemble, its TD(λ) targets, and the running scale of returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fmbpo.nn.blocks import plain_mlp
from fmbpo.pwm.optim import Params


class Critic(nn.Module):
    """One value function ``V(z)``: Linear -> Mish -> LayerNorm blocks, orthogonal weights."""

    def __init__(self, latent_dim: int, units: Sequence[int]) -> None:
        super().__init__()
        self.net = plain_mlp(latent_dim, units, 1)
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight, gain=2.0**0.5)
                nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor) -> Tensor:
        """``[..., D]`` -> ``[...]``."""
        value: Tensor = self.net(z).squeeze(-1)
        return value


def ensemble_values(critic: Critic, params: Params, z: Tensor) -> Tensor:
    """Parameters stacked along C, ``z[..., D]`` -> ``[C, ...]``."""
    values: Tensor = vmap(lambda p: functional_call(critic, p, (z,)))(params)
    return values


def td_lambda(reward_HB: Tensor, next_value_HB: Tensor, discount: float, lam_HB: Tensor) -> Tensor:
    """TD(λ) targets ``[H, B]`` over an imagined rollout; λ = 0 where a return is to end.

    ``G_t = r_t + γ ((1 - λ_t) V(z_{t+1}) + λ_t G_{t+1})``, ``G_{H-1} = r_{H-1} + γ V(z_H)``.
    """
    target = next_value_HB[-1]
    targets = []
    rows = zip(reward_HB.flip(0), next_value_HB.flip(0), lam_HB.flip(0), strict=True)
    for reward, value, lam in rows:
        target = reward + discount * ((1 - lam) * value + lam * target)
        targets.append(target)
    return torch.stack(targets).flip(0)


class ReturnScale(NamedTuple):
    """Running mean and (biased) variance of returns, and their number; 0-d (PWM's ``ret_rms``)."""

    mean: Tensor
    variance: Tensor
    seen: Tensor

    @staticmethod
    def initial(like: Tensor) -> ReturnScale:
        """Mean 0, variance 1, number 1e-4, on the device and in the type of ``like``."""
        return ReturnScale(like.new_zeros(()), like.new_ones(()), like.new_full((), 1e-4))

    def updated(self, return_B: Tensor) -> ReturnScale:
        """With one more batch of returns (Chan's parallel variance)."""
        n = return_B.shape[0]
        mean, variance = return_B.mean(), return_B.var(correction=0)
        total = self.seen + n
        delta = mean - self.mean
        m2 = self.variance * self.seen + variance * n + delta**2 * self.seen * n / total
        return ReturnScale(self.mean + delta * n / total, m2 / total, total)

    def divisor(self) -> Tensor:
        """``sqrt(variance + 1e-5)``; the mean is not subtracted."""
        return (self.variance + 1e-5).sqrt()
