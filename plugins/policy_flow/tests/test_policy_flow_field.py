"""The flow policy's mathematics: the Gaussian limit, evaluations, the gate."""

import math

import pytest
import torch

from fmbpo.hookspecs import PolicyDims, Task
from fmbpo.nn.ode import STAGES, integrate
from fmbpo.plugins import load_plugin

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
B, LATENT, ACTION = 32, 16, 3
STD = math.exp(-1.0)
SOURCE_STD = 0.37
OPEN = 1 / (1 + math.exp(-5.0))


def build(units=(16, 8), **settings):
    component = load_plugin("policy", "flow")
    torch.manual_seed(0)
    config = component.Config(units=list(units), **settings)
    return component, component.build(config, PolicyDims(LATENT, 4, ACTION))


def blind_to_x(module):
    torch.nn.init.zeros_(module.velocity_net[0].weight[:, :ACTION])
    return module


def step_inputs():
    torch.manual_seed(1)
    task = Task(torch.zeros(B, dtype=torch.int64), torch.ones(B, ACTION), torch.randn(B, 4))
    return torch.randn(B, LATENT), task, torch.randn(B, 2 * ACTION)


def test_one_euler_step_of_a_field_blind_to_x_is_the_gaussian_policy():
    component, module = build(solver="euler", substeps=1, source_std=0)
    z, task, noise = step_inputs()
    zeros = torch.zeros(B, ACTION + 1)
    mean = blind_to_x(module).velocity_net(torch.cat([zeros[:, 1:], z, zeros[:, :1]], -1))
    action = component.predict(module, z, task, noise)
    torch.testing.assert_close(action, torch.tanh(mean + STD * noise[:, ACTION:]))


@pytest.mark.parametrize("solver", STAGES)
@pytest.mark.parametrize("substeps", [1, 2, 3])
def test_action_is_the_end_of_the_ode(solver, substeps):
    """``a = tanh(x_1 + σ ε)``; ``evaluations`` counts the passes on the way."""
    component, module = build(solver=solver, substeps=substeps)
    z, task, noise = step_inputs()
    taus = []
    count = lambda _, args: taus.append(args[0][0, -1].item())  # noqa: E731
    with module.velocity_net.register_forward_pre_hook(count):
        action = component.predict(module, z, task, noise)
    assert len(taus) == module.evaluations == STAGES[solver] * substeps
    assert min(taus) == 0
    assert max(taus) <= 1

    def field(x, tau):
        return module.velocity_net(torch.cat([x, z, torch.full((B, 1), tau)], -1))

    end = integrate(field, SOURCE_STD * noise[:, :ACTION], solver, substeps)
    torch.testing.assert_close(action, torch.tanh(end + STD * noise[:, ACTION:]))


def test_gate_starts_open():
    """``v = σ(5) (c - x)``, and the gate learns from there."""
    _, module = build(gate=True)
    z, _, noise = step_inputs()
    x = noise[:, :ACTION]
    target, gate = module.velocity_net(torch.cat([x, z, torch.full((B, 1), 0.5)], -1)).chunk(2, -1)
    assert (gate == 5).all()
    torch.testing.assert_close(module.velocity(x, z, 0.5), OPEN * (target - x))
    module.velocity(x, z, 0.5).sum().backward()
    assert module.velocity_net[-1].weight.grad[ACTION:].any()


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_a_new_gated_field_contracts(tau):
    """At the default widths: any two points approach each other, ``(x - y)·(v(x) - v(y)) < 0``."""
    _, module = build(units=(400, 200, 100), gate=True)
    z, _, noise = step_inputs()
    x = noise[:, :ACTION]
    y = torch.randn_like(x)
    approach = ((x - y) * (module.velocity(x, z, tau) - module.velocity(y, z, tau))).sum(-1)
    assert (approach < -0.5 * (x - y).square().sum(-1)).all()


# One sub-step of a linear field -σx, x's factor at step width h: the solver's polynomial in hσ.
FACTORS = {
    "euler": lambda s: 1 - s,
    "midpoint": lambda s: 1 - s + s**2 / 2,
    "heun": lambda s: 1 - s + s**2 / 2,
    "rk4": lambda s: 1 - s + s**2 / 2 - s**3 / 6 + s**4 / 24,
}


@pytest.mark.parametrize("solver", STAGES)
@pytest.mark.parametrize("substeps", [1, 2])
def test_gate_shrinks_the_source_alone(solver, substeps):
    """With c blind to x, the share of the source's noise that is left at τ = 1 is known in closed
    form; the action's own noise does not pass through the field."""
    component, module = build(solver=solver, substeps=substeps, gate=True)
    blind_to_x(module)
    z, task, noise = step_inputs()
    spread = component.predict(module, z, task, noise).atanh()
    spread = spread - component.predict(module, z, task, torch.zeros_like(noise)).atanh()
    left = FACTORS[solver](OPEN / substeps) ** substeps
    expected = left * SOURCE_STD * noise[:, :ACTION] + STD * noise[:, ACTION:]
    torch.testing.assert_close(spread, expected, rtol=1e-3, atol=1e-5)


def test_no_field_takes_the_action_below_its_noise():
    """A field that leads every source to one point leaves the Gaussian policy's floor."""
    component, module = build(solver="euler", substeps=1, gate=True, init_log_std=-9.0)
    last = module.velocity_net[-1]
    with torch.no_grad():
        last.weight[ACTION:].zero_()
        last.bias[ACTION:].fill_(50.0)  # x_1 = c
    z, task, _ = step_inputs()
    z, task = z[:1].expand(2000, -1), Task(*(x[:1].expand(2000, *x.shape[1:]) for x in task))
    action = component.predict(blind_to_x(module), z, task, torch.randn(2000, 2 * ACTION))
    spread = action.atanh().std(0)
    floor = torch.full((ACTION,), math.exp(-1.427))
    torch.testing.assert_close(spread, floor, rtol=0.1, atol=0.0)


def test_growth_through_the_sub_steps():
    """1 where the field is blind to x; where it is not, that of the whole Jacobian; and a shut
    gate's own ``(1 - g h)^K`` with Euler."""
    _, module = build()
    z, task, noise = step_inputs()
    vector = torch.randn(B, ACTION)
    _, blind = build()
    found = blind_to_x(blind).growth(z, task, noise, vector).detach()
    assert float(found) == pytest.approx(1.0)

    start = module.start(noise, task).detach()
    squares = []
    for b in range(B):
        row = slice(b, b + 1)
        one = Task(*(x[row] for x in task))
        solve = lambda x, r=row, t=one: module.solve(x, z[r], t)  # noqa: E731
        jacobian = torch.autograd.functional.jacobian(solve, start[row])[0, :, 0]
        squares.append((vector[b] @ jacobian).square().sum() / vector[b].square().sum())
    found = module.growth(z, task, noise, vector).detach()
    torch.testing.assert_close(found, torch.stack(squares).mean().sqrt())
    assert abs(float(found) - 1) > 1e-4

    _, gated = build(gate=True, solver="euler", substeps=4)
    last = gated.velocity_net[-1]
    torch.nn.init.zeros_(last.weight)  # the target and the gate no longer depend on x
    found = gated.growth(z, task, noise, vector).detach()
    assert float(found) == pytest.approx((1 - OPEN / 4) ** 4, rel=1e-4)
