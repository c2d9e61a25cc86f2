"""Discounted returns of imagined trajectories."""

from __future__ import annotations

import torch
from torch import Tensor


def weights(discount: float, rewards: Tensor, continues: Tensor | None = None) -> Tensor:
    """``[H, 1]`` γ^t for rewards ``[H, B]``; ``[H, B]`` if the probabilities ``continues[H, B]``
    say whether an episode goes on after step t: γ^t times those of the steps before."""
    steps = torch.arange(len(rewards), device=rewards.device, dtype=rewards.dtype)
    weight_H1 = (discount**steps).unsqueeze(-1)
    if continues is None:
        return weight_H1
    return weight_H1 * survival(continues)[:-1]


def survival(continues: Tensor) -> Tensor:
    """``[H + 1, B]``: the probabilities that an episode has not ended before step t, t = 0..H.

    Products one by one: the gradient of ``torch.cumprod`` looks for zeros, which no graph can.
    """
    alive = [torch.ones_like(continues[0])]
    for goes_on in continues:
        alive.append(alive[-1] * goes_on)
    return torch.stack(alive)


def td_lambda(
    reward_HB: Tensor,
    next_value_HB: Tensor,
    discount: float,
    lam_HB: Tensor,
    continue_HB: Tensor | None = None,
) -> Tensor:
    """TD(λ) targets ``[H, B]`` over an imagined rollout; λ = 0 at steps where a return ends.

    ``G_t = r_t + γ c_t ((1 - λ_t) V(z_{t+1}) + λ_t G_{t+1})``, ``G_{H-1} = r_{H-1} + γ c_{H-1}
    V(z_H)``; c_t is the probability that the episode goes on after step t, 1 by default.
    """
    target = next_value_HB[-1]
    targets = []
    for t in reversed(range(len(reward_HB))):
        lam = lam_HB[t]
        ahead = (1 - lam) * next_value_HB[t] + lam * target
        if continue_HB is not None:
            ahead = continue_HB[t] * ahead
        target = reward_HB[t] + discount * ahead
        targets.append(target)
    return torch.stack(targets).flip(0)
