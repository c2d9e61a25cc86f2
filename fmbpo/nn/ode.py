"""Fixed-step solvers for ``dx/dτ = v(x, τ)`` on τ in [0, 1] (explicit Runge-Kutta methods)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Solver: TypeAlias = Literal["euler", "midpoint", "heun", "rk4"]

STAGES: dict[Solver, int] = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
"""Velocity evaluations per sub-step; for all four, this is also the order of convergence."""

Velocity: TypeAlias = Callable[[Tensor, float], Tensor]
"""``(x, τ) -> dx/dτ``; τ is a Python float because the grid is fixed."""


def evaluations(solver: Solver, substeps: int, *, open_end: bool = False) -> int:
    """Number of velocity evaluations of ``integrate``."""
    return STAGES[solver] * substeps - int(open_end and solver in ("heun", "rk4"))


def integrate(
    velocity: Velocity, x: Tensor, solver: Solver, substeps: int, *, open_end: bool = False
) -> Tensor:
    """Carry ``x`` from τ = 0 to τ = 1 in ``substeps`` equal steps.

    ``open_end``: the field is not defined at τ = 1 (the endpoint parameterisation divides by
    1 - τ), so the stage at τ = 1 re-uses the stage before it: Heun's last sub-step becomes Euler's.
    """
    h = 1.0 / substeps
    for k in range(substeps):
        end_is_open = open_end and k == substeps - 1
        x = _step(velocity, x, k * h, h, solver, end_is_open)
    return x


def _step(
    velocity: Velocity, x: Tensor, tau: float, h: float, solver: Solver, end_is_open: bool
) -> Tensor:
    """One sub-step from τ to τ + h."""
    v1 = velocity(x, tau)
    if solver == "euler" or (solver == "heun" and end_is_open):
        return _moved(x, v1, h)
    if solver == "heun":
        v2 = velocity(_moved(x, v1, h), tau + h)
        return _moved(x, v1 + v2, h / 2)
    v2 = velocity(_moved(x, v1, h / 2), tau + h / 2)
    if solver == "midpoint":
        return _moved(x, v2, h)
    v3 = velocity(_moved(x, v2, h / 2), tau + h / 2)
    v4 = v3 if end_is_open else velocity(_moved(x, v3, h), tau + h)
    return _moved(x, v1 + v4 + 2 * (v2 + v3), h / 6)


def _moved(x: Tensor, v: Tensor, h: float) -> Tensor:
    """``x + h v`` in one operation."""
    return torch.add(x, v, alpha=h)
