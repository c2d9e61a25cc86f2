"""The solvers have their textbook order, and count their evaluations."""

import math

import pytest
import torch

from fmbpo.nn.ode import STAGES, evaluations, integrate


@pytest.mark.parametrize(("solver", "order"), STAGES.items())
def test_order_of_convergence(solver, order):
    """``dx/dτ = -2 τ x`` has the solution ``exp(-τ²)``."""
    exact = math.exp(-1.0)

    def error(steps):
        x = integrate(
            lambda x, tau: -2 * tau * x,
            torch.ones((), dtype=torch.float64),
            solver,
            steps,
        )
        return abs(x.item() - exact)

    # midpoint and Heun: 2; RK4: 4; Euler: 1.
    expected = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}[solver]
    measured = math.log2(error(32) / error(64))
    assert measured == pytest.approx(expected, abs=0.15)
    assert order >= expected


@pytest.mark.parametrize("solver", STAGES)
@pytest.mark.parametrize("substeps", [1, 2, 5])
@pytest.mark.parametrize("open_end", [False, True])
def test_evaluations_are_counted(solver, substeps, open_end):
    times = []

    def velocity(x, tau):
        times.append(tau)
        return -x

    integrate(velocity, torch.ones(3), solver, substeps, open_end=open_end)
    assert len(times) == evaluations(solver, substeps, open_end=open_end)
    assert all(0 <= tau <= 1 for tau in times)
    if open_end:
        assert all(tau < 1 - 1e-9 for tau in times)


def test_open_end_turns_heuns_last_step_into_eulers():
    x = torch.ones((), dtype=torch.float64)
    heun = integrate(lambda x, tau: -x, x, "heun", 1, open_end=True)
    euler = integrate(lambda x, tau: -x, x, "euler", 1)
    assert heun == euler
