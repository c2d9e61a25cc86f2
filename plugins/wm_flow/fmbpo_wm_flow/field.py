"""Parameterisations of the velocity field: the space of the flow, and the network's output.

A latent is a row of groups of 8, each on the probability simplex. ``x`` is the flow's state,
``z*`` the target, ``v* = x* - x_s`` the velocity of the straight path from the source ``x_s``.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from fmbpo.nn.blocks import SIMPLEX_DIM, simnorm

Name: TypeAlias = Literal["endpoint", "tangent", "logit"]

_SMALLEST = 1e-4
"""Smaller probabilities are raised to this value, which bounds the flow's coordinates."""


class Parameterisation(Protocol):
    """All tensors are ``[..., D]``, except times ``[..., 1]``; ``remaining`` is 1 - τ."""

    open_end: bool
    """Whether the field is undefined at τ = 1."""
    linear_head: bool
    """Whether the network ends in a plain Linear instead of SimNorm."""

    def enter(self, z: Tensor) -> Tensor:
        """Latent -> flow state."""

    def leave(self, x: Tensor) -> Tensor:
        """Flow state -> latent, exactly on the simplex."""

    def velocity(self, output: Tensor, x: Tensor, remaining: float) -> Tensor:
        """The network's output at ``x`` -> dx/dτ."""

    def residual(self, output: Tensor, x: Tensor, remaining: Tensor, wanted: Tensor) -> Tensor:
        """``weight(τ) (v - v*)`` for ``wanted`` = v*, which the flow-matching loss squares."""


class Endpoint:
    """The output is the end of the path: ``v = (ê - x) / (1 - τ)``, weight ``1 - τ``."""

    open_end, linear_head = True, False

    def enter(self, z: Tensor) -> Tensor:
        """The latent itself."""
        return z

    def leave(self, x: Tensor) -> Tensor:
        """Returned to the simplex, which rounding, midpoint and RK4 (negative weights) leave."""
        return onto_simplex(x)

    def velocity(self, output: Tensor, x: Tensor, remaining: float) -> Tensor:
        """Towards the predicted end, reached at τ = 1."""
        return (output - x) / remaining

    def residual(self, output: Tensor, x: Tensor, remaining: Tensor, wanted: Tensor) -> Tensor:
        """``ê - z*`` on the straight path, in the latent's units and without division."""
        return output - x - remaining * wanted


class Tangent:
    """The output is the velocity minus each group's mean, so that groups keep their sum."""

    open_end, linear_head = False, True

    def enter(self, z: Tensor) -> Tensor:
        """The latent itself."""
        return z

    def leave(self, x: Tensor) -> Tensor:
        """Clamped and renormalised, since a straight step can leave the simplex."""
        return onto_simplex(x)

    def velocity(self, output: Tensor, x: Tensor, remaining: float) -> Tensor:
        """Tangent to the simplex."""
        return centred(output)

    def residual(self, output: Tensor, x: Tensor, remaining: Tensor, wanted: Tensor) -> Tensor:
        """``v - v*``."""
        return centred(output) - wanted


class Logit(Tangent):
    """As `Tangent`, in coordinates before the softmax: ``x = log z`` minus each group's mean."""

    def enter(self, z: Tensor) -> Tensor:
        """Bounded, centred logits."""
        return centred(z.clamp(min=_SMALLEST).log())

    def leave(self, x: Tensor) -> Tensor:
        """SimNorm."""
        return simnorm(x)


PARAMETERISATIONS: dict[Name, Parameterisation] = {
    "endpoint": Endpoint(),
    "tangent": Tangent(),
    "logit": Logit(),
}


def centred(x: Tensor) -> Tensor:
    """Subtract each group's mean: ``[..., D]`` -> ``[..., D]``, with groups of sum 0."""
    groups = _groups(x)
    return (groups - groups.mean(-1, keepdim=True)).flatten(-2)


def onto_simplex(z: Tensor) -> Tensor:
    """Clamp at 0 and renormalise each group: ``[..., D]`` -> ``[..., D]``."""
    groups = _groups(z).clamp(min=0.0)
    return (groups / groups.sum(-1, keepdim=True).clamp(min=1e-12)).flatten(-2)


def _groups(x: Tensor) -> Tensor:
    return x.reshape(*x.shape[:-1], -1, SIMPLEX_DIM)


def path_times(noise: Tensor, kind: str) -> Tensor:
    """Standard normals -> times τ in [0, 1]."""
    if kind == "uniform":
        times: Tensor = torch.special.ndtr(noise)
        return times
    return noise.sigmoid() if kind == "logit_normal" else torch.full_like(noise, 0.5)
