"""Rewards as soft two-hot bins in symlog space (DreamerV3, arXiv 2301.04104; TD-MPC2)."""

from __future__ import annotations

import torch
from torch import Tensor

from fmbpo.nn.precise import precise

BINS = 101
BOUND = 10.0
"""PWM's outer bins, in symlog: they reach rewards of ±22,025."""


def symlog(x: Tensor) -> Tensor:
    """``sign(x) ln(1 + |x|)``, elementwise."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of ``symlog``: ``sign(x) (exp|x| - 1)``, elementwise."""
    return x.sign() * x.abs().expm1()


def two_hot(reward: Tensor, bound: float = BOUND) -> Tensor:
    """``[...]`` rewards -> ``[..., 101]`` weights of the two bins around ``symlog(reward)``, which
    is clamped to the outer bins, ±``bound``."""
    position = (symlog(reward).clamp(-bound, bound) + bound) / step(bound)
    bins = torch.arange(BINS, device=reward.device, dtype=reward.dtype)
    return (1.0 - (position.unsqueeze(-1) - bins).abs()).clamp(min=0.0)


def step(bound: float = BOUND) -> float:
    """The distance of neighbouring bins, in symlog."""
    return 2 * bound / (BINS - 1)


def decode_symlog(logits: Tensor, bound: float = BOUND) -> Tensor:
    """``[..., 101]`` logits -> ``[...]`` symlog reward (softmax expectation)."""
    logits = precise(logits)
    bins = torch.linspace(-bound, bound, BINS, device=logits.device, dtype=logits.dtype)
    return (logits.softmax(-1) * bins).sum(-1)


def decode(logits: Tensor, bound: float = BOUND) -> Tensor:
    """``[..., 101]`` logits -> ``[...]`` reward in the environment's units."""
    return symexp(decode_symlog(logits, bound))


def cross_entropy(logits: Tensor, reward: Tensor, bound: float = BOUND) -> Tensor:
    """``[..., 101]`` logits and ``[...]`` rewards -> ``[...]`` soft cross-entropy in nats."""
    return -(two_hot(reward, bound) * precise(logits).log_softmax(-1)).sum(-1)
