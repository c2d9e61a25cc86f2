"""The flow world model alone, against the hook contract, for every solver."""

from functools import cache

import pytest
import torch

from fmbpo.hookspecs import Batch, Task, WorldModelDims
from fmbpo.nn import two_hot
from fmbpo.nn.blocks import simnorm
from fmbpo.nn.ode import STAGES
from fmbpo.registry import load_plugin

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
B, H, LATENT = 4, 3, 16
DIMS = WorldModelDims(obs=5, action=3, tasks=3)
INDEX = torch.tensor([0, 1, 1, 0])
MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])[INDEX]
plugin = cache(lambda: load_plugin("world_model", "flow"))
every_solver = pytest.mark.parametrize("solver", STAGES)


def build(solver="heun", substeps=2, **settings):
    torch.manual_seed(0)
    widths = {"encoder_units": [16], "units": [16, 16], "latent_dim": LATENT, "task_dim": 4}
    config = plugin().Config(**widths, solver=solver, substeps=substeps, **settings)
    module = plugin().build(config, DIMS)
    # Both are zero at first: no gradient to the actions, and a field that does not see τ.
    torch.nn.init.normal_(module.reward[-1].weight, std=0.3)
    torch.nn.init.normal_(module.dynamics[0].linear.weight[:, -1], std=0.3)
    return module


def step_inputs(module, dtype=torch.float32):
    torch.manual_seed(1)
    z, action = simnorm(3 * torch.randn(B, LATENT, dtype=dtype)), torch.rand(B, 3, dtype=dtype)
    task = Task(INDEX, MASK.to(dtype), module.embed(INDEX).detach())
    return z, action, task, torch.empty(B, module.noise_dim, dtype=dtype)


def real_batch():
    torch.manual_seed(2)
    obs, action = torch.randn(H + 1, B, 5), torch.rand(H, B, 3) * 2 - 1
    return Batch(obs, action, torch.rand(H, B), INDEX, MASK), torch.randn(H, B, 1)


def test_entry_point_and_settings():
    assert plugin().distribution == "fmbpo-wm-flow"
    for wrong in ({"solver": "leapfrog"}, {"substeps": 0}, {"tau": "late"}, {"latent_dim": 12}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            plugin().Config(**wrong)


@every_solver
def test_shapes(solver):
    module = build(solver)
    z, action, task, noise = step_inputs(module)
    assert (module.latent_dim, module.task_dim, module.loss_noise_dim) == (LATENT, 4, 1)
    assert module.encode(torch.randn(B, 5), module.embed(INDEX)).shape == (B, LATENT)
    z_next, logits = plugin().predict(module, z, action, task, noise)
    assert (z_next.shape, logits.shape) == ((B, LATENT), (B, two_hot.BINS))


@every_solver
def test_rollout_is_repeated_predict(solver):
    module = build(solver)
    z, _, task, _ = step_inputs(module)
    actions, noise = torch.rand(H, B, 3), torch.empty(H, B, 0)
    rollout = plugin().rollout(module, z, lambda t, z: actions[t], task, noise)
    assert torch.equal(rollout.z_HBD[0], z)
    for t in range(H):
        z, logits = plugin().predict(module, z, actions[t], task, noise[t])
        assert torch.equal(rollout.z_HBD[t + 1], z)
        assert torch.equal(rollout.reward_logits_HBR[t], logits)
        assert torch.equal(rollout.action_HBA[t], actions[t])


@every_solver
@pytest.mark.parametrize("substeps", [1, 2, 4])
def test_latents_stay_on_the_simplex(solver, substeps):
    module = build(solver, substeps)
    z, _, task, _ = step_inputs(module)
    noise = torch.empty(64, B, 0)
    rollout = plugin().rollout(module, z, lambda t, z: torch.randn(B, 3), task, noise)
    assert (rollout.z_HBD >= 0).all()
    sums = rollout.z_HBD.unflatten(-1, (-1, 8)).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)


def test_masked_actions_are_inert():
    module = build()
    z, action, task, noise = step_inputs(module)
    other = torch.where(MASK == 1, action, 100.0)
    step = lambda a: plugin().predict(module, z, a, task, noise)  # noqa: E731
    for a, b, changed in zip(step(action), step(other), step(-action), strict=True):
        assert torch.equal(a, b)
        assert (a != changed).any()


@every_solver
def test_frozen_parameters_let_gradients_through(solver):
    module = build(solver)
    plugin().freeze(module)
    z, action, task, noise = step_inputs(module)
    z, action = z.requires_grad_(), action.requires_grad_()
    for output in plugin().predict(module, z, action, task, noise):
        grads = torch.autograd.grad((output * torch.randn_like(output)).sum(), [z, action])
        assert all((g != 0).any() for g in grads)
    assert not any(p.requires_grad or p.grad is not None for p in module.parameters())


@every_solver
def test_loss_reaches_every_parameter(solver):
    module = build(solver)
    loss, metrics = plugin().loss(module, *real_batch())
    assert all(m.shape == loss.shape == () and not m.requires_grad for m in metrics.values())
    loss.backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_sources_in_training_are_the_models_own_solutions():
    module, (batch, noise) = build(), real_batch()
    seen = []
    module.reward.register_forward_pre_hook(lambda _, args: seen.append(args[0][..., :LATENT]))
    plugin().loss(module, batch, noise)
    task = Task(INDEX, MASK, module.embed(INDEX))
    rollout = plugin().rollout(module, seen[0][0], lambda t, z: batch.action_HBA[t], task, noise)
    torch.testing.assert_close(seen[0], rollout.z_HBD[:-1])


@pytest.mark.parametrize("tau", ["uniform", "midpoint", "logit_normal"])
def test_loss_falls_on_a_fixed_batch(tau):
    module, (batch, noise) = build("euler", tau=tau), real_batch()
    adam = torch.optim.Adam(module.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        losses.append(plugin().loss(module, batch, noise)[0])
        adam.zero_grad()
        losses[-1].backward()
        adam.step()
    assert losses[-1] < 0.6 * losses[0]


@every_solver
def test_gradients_are_exact(solver):
    module = build(solver).double()
    z, action, task, noise = step_inputs(module, torch.float64)
    call = lambda z, a: tuple(plugin().predict(module, z, a, task, noise))  # noqa: E731
    assert torch.autograd.gradcheck(call, (z.requires_grad_(), action.requires_grad_()))
