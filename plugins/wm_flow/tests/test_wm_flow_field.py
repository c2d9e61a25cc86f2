"""The flow world model's mathematics: velocity field, endpoint loss, simplex, parity."""

import math
from functools import cache

import pytest
import torch
from torch import nn

import fmbpo_wm_flow.field
import fmbpo_wm_flow.model
from fmbpo.hookspecs import Batch, Task, WorldModelDims
from fmbpo.nn.blocks import simnorm
from fmbpo.nn.ode import STAGES
from fmbpo.nn.world_model import LatentWorldModel, WorldModelConfig
from fmbpo.plugins import load_plugin

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
B, LATENT = 64, 16
DIMS = WorldModelDims(obs=5, action=3, tasks=2)
WIDTHS = {"encoder_units": [16], "units": [16, 16], "latent_dim": LATENT, "task_dim": 4}
INDEX = torch.arange(B) % 2
MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])[INDEX]
plugin = cache(lambda: load_plugin("world_model", "flow"))


def build(sees_tau=False, **settings):
    torch.manual_seed(0)
    module = plugin().build(plugin().Config(**WIDTHS, **settings), DIMS)
    if sees_tau:
        nn.init.normal_(module.dynamics[0].linear.weight[:, -1], std=1.0)
    return module


def step_inputs(module):
    torch.manual_seed(1)
    task = Task(INDEX, MASK, module.embed(INDEX).detach())
    return simnorm(3 * torch.randn(B, LATENT)), torch.rand(B, 3), task


def without_tau(module):
    """``SimNorm(D(z, e, a))`` of the same weights, in a model of ``fmbpo.nn`` alone."""
    plain = LatentWorldModel(WorldModelConfig(**WIDTHS), DIMS)
    state, first = module.state_dict(), "dynamics.0.linear.weight"
    plain.load_state_dict(state | {first: state[first][:, :-1]})
    return plain.dynamics(plain.step_input(*step_inputs(module)))


def velocity_of(module, monkeypatch):
    """The field that ``predict`` hands to the solver, and the step it belongs to."""
    z, action, task = step_inputs(module)
    fields = []
    with monkeypatch.context() as patch:
        patch.setattr(
            fmbpo_wm_flow.model, "integrate", lambda v, z, *_, **__: fields.append(v) or z
        )
        plugin().predict(module, z, action, task, torch.empty(B, 0))
    return fields[0], z, action, task


def test_a_new_model_does_not_see_tau():
    module = build()
    z, action, task = step_inputs(module)
    for tau in (0.0, 0.3, 1.0):
        endpoint = module.output(z, torch.full((B, 1), tau), module.tail(z, action, task))
        torch.testing.assert_close(endpoint, without_tau(module), rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_one_sub_step_is_the_mlp_model(solver):
    """Whatever the τ column has learnt: it is read at τ = 0 alone."""
    module = build(True, solver=solver, substeps=1)
    z_next = plugin().predict(module, *step_inputs(module), torch.empty(B, 0)).state
    torch.testing.assert_close(z_next, without_tau(module), rtol=0, atol=1e-6)


def test_parameter_parity():
    """One column more than the MLP model, at the default (48M) size too: far below 2 %."""
    with torch.device("meta"):
        flow = plugin().build(plugin().Config(), DIMS)
        plain = LatentWorldModel(WorldModelConfig(), DIMS)
    ours, theirs = (sum(p.numel() for p in m.parameters()) for m in (flow, plain))
    assert ours - theirs == 1792 < 0.001 * theirs


@pytest.mark.parametrize("tau", [0.0, 0.5, 0.9])
def test_each_group_of_a_velocity_sums_to_zero(tau, monkeypatch):
    velocity, z, *_ = velocity_of(build(True), monkeypatch)
    sums = velocity(z, tau).unflatten(-1, (-1, 8)).sum(-1)
    torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["uniform", "midpoint", "logit_normal"])
def test_loss_is_weighted_flow_matching(kind, monkeypatch):
    """``(1 - τ)² |v - v*|² = |ê - z*|²`` on the straight path, and the loss hook is this."""
    module = build(True, tau=kind, endpoint_coef=0.0)
    velocity, *_, action, task = velocity_of(module, monkeypatch)
    tau = {
        "uniform": 0.5 * (1 + math.erf(0.7 / 2**0.5)),
        "midpoint": 0.5,
        "logit_normal": 1 / (1 + math.exp(-0.7)),
    }[kind]
    obs = torch.randn(2, B, 5)
    source, target = module.encode(obs, task.embedding_BE)
    on_path = (1 - tau) * source + tau * target
    weighted = (1 - tau) ** 2 * (velocity(on_path, tau) - (target - source)).square()
    tail = module.tail(source, action, task)
    direct = (module.output(on_path, torch.full((B, 1), tau), tail) - target).square()
    torch.testing.assert_close(weighted, direct, rtol=1e-4, atol=1e-7)
    none = torch.zeros(1, B)
    batch = Batch(obs, action[None], none, INDEX, MASK, none)
    _, metrics = plugin().loss(module, batch, torch.full((1, B, 2), 0.7), torch.tensor(0.5))
    torch.testing.assert_close(metrics["consistency"], weighted.mean(), rtol=1e-4, atol=1e-7)


def test_the_solved_endpoint_is_trained_beside_the_field():
    none = torch.zeros(1, B)
    batch = Batch(torch.randn(2, B, 5), torch.rand(1, B, 3), none, INDEX, MASK, none)
    noise = torch.randn(1, B, 2)

    def consistency(coef):
        module = build(True, endpoint_coef=coef)
        return plugin().loss(module, batch, noise, torch.tensor(0.5))[1]["consistency"]

    module = build(True)
    task = Task(INDEX, MASK, module.embed(INDEX))
    source, target = module.encode(batch.obs_HBO, task.embedding_BE)
    solved = module.advance(source, batch.action_HBA[0], task, noise[0])
    error = (solved - target).square().mean()
    torch.testing.assert_close(consistency(2.0) - consistency(0.0), 2 * error)


class AnyVertices(nn.Module):
    """The worst dynamics: a random vertex of the simplex at each pass; remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        assert x[0, -1] < 1
        self.seen.append(x[:, :LATENT])
        return nn.functional.one_hot(torch.randint(8, (len(x), LATENT // 8)), 8).flatten(-2).float()


@pytest.mark.parametrize("solver", STAGES)
@pytest.mark.parametrize("substeps", [1, 2, 4, 5])
def test_who_leaves_the_simplex_is_projected_back(solver, substeps, monkeypatch):
    """Euler and Heun are convex combinations at every stage, whatever the network says."""
    module = build(solver=solver, substeps=substeps)
    module.dynamics = AnyVertices()
    projected = module.advance(*step_inputs(module), torch.empty(B, 0))
    assert len(module.dynamics.seen) == module.evaluations
    assert (projected >= 0).all()
    sums = projected.unflatten(-1, (-1, 8)).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)
    monkeypatch.setattr(fmbpo_wm_flow.field, "onto_simplex", lambda z: z)
    raw = module.advance(*step_inputs(module), torch.empty(B, 0))
    if solver in ("euler", "heun"):
        assert min(z.min() for z in [*module.dynamics.seen, raw]) > -1e-6
    else:
        assert raw.min() < -0.1


def test_evaluations():
    """Heun's and RK4's last stage would lie at τ = 1 and is not evaluated: K = 4, 7 passes."""
    settings = [("euler", 1), ("heun", 4), ("midpoint", 4), ("rk4", 2)]
    assert [build(solver=s, substeps=k).evaluations for s, k in settings] == [1, 7, 8, 7]
