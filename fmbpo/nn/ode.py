"""Fixed-step solvers for ``dx/dτ = v(x, τ)`` on τ in [0, 1] (explicit Runge-Kutta methods)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

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
        x = x + h * _increment(velocity, x, k * h, h, solver, end_is_open)
    return x


def _increment(
    velocity: Velocity, x: Tensor, tau: float, h: float, solver: Solver, end_is_open: bool
) -> Tensor:
    """The mean velocity of one sub-step from τ to τ + h."""
    v1 = velocity(x, tau)
    if solver == "euler":
        return v1
    if solver == "heun":
        v2 = v1 if end_is_open else velocity(x + h * v1, tau + h)
        return (v1 + v2) / 2
    v2 = velocity(x + h / 2 * v1, tau + h / 2)
    if solver == "midpoint":
        return v2
    v3 = velocity(x + h / 2 * v2, tau + h / 2)
    v4 = v3 if end_is_open else velocity(x + h * v3, tau + h)
    return (v1 + 2 * v2 + 2 * v3 + v4) / 6
