"""The MLP world model alone: the hook contract, and its own equation and loss."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F

from fmbpo.hookspecs import Batch, Task, WorldModelDims
from fmbpo.nn import two_hot
from fmbpo.nn.blocks import simnorm
from fmbpo.registry import load_plugin

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
B, H, LATENT = 4, 3, 16
DIMS = WorldModelDims(obs=5, action=3, tasks=3)
INDEX = torch.tensor([0, 1, 1, 0])
MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])[INDEX]
plugin = cache(lambda: load_plugin("world_model", "mlp"))


def build(**settings):
    torch.manual_seed(0)
    widths = {"encoder_units": [16], "units": [16, 16], "latent_dim": LATENT, "task_dim": 4}
    module = plugin().build(plugin().Config(**widths, **settings), DIMS)
    torch.nn.init.normal_(module.reward[-1].weight, std=0.3)  # zero at first: no gradient
    return module


def step_inputs(module, dtype=torch.float32):
    torch.manual_seed(1)
    z, action = simnorm(3 * torch.randn(B, LATENT, dtype=dtype)), torch.rand(B, 3, dtype=dtype)
    task = Task(INDEX, MASK.to(dtype), module.embed(INDEX).detach())
    return z, action, task, torch.empty(B, module.noise_dim, dtype=dtype)


def real_batch():
    torch.manual_seed(2)
    obs, action = torch.randn(H + 1, B, 5), torch.rand(H, B, 3) * 2 - 1
    return Batch(obs, action, torch.rand(H, B), INDEX, MASK), torch.empty(H, B, 0)


def test_entry_point_and_settings():
    assert plugin().distribution == "fmbpo-wm-mlp"
    for wrong in ({"latent_dim": 12}, {"units": []}, {"rho": 1.5}, {"reward_coef": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            plugin().Config(**wrong)


def test_shapes():
    module = build()
    z, action, task, noise = step_inputs(module)
    assert (module.latent_dim, module.task_dim, module.evaluations) == (LATENT, 4, 1)
    assert module.encode(torch.randn(B, 5), module.embed(INDEX)).shape == (B, LATENT)
    z_next, logits = plugin().predict(module, z, action, task, noise)
    assert (z_next.shape, logits.shape) == ((B, LATENT), (B, two_hot.BINS))


def test_prediction_is_simnorm_of_the_dynamics():
    module = build()
    z, action, task, noise = step_inputs(module)
    x = torch.cat([z, task.embedding_BE, action * MASK], -1)
    last = module.dynamics[-1]
    expected = simnorm(last.norm(last.linear(module.dynamics[:-1](x))))
    torch.testing.assert_close(plugin().predict(module, z, action, task, noise).z_BD, expected)


def test_rollout_is_repeated_predict():
    module = build()
    z, _, task, _ = step_inputs(module)
    actions, noise = torch.rand(H, B, 3), torch.empty(H, B, 0)
    rollout = plugin().rollout(module, z, lambda t, z: actions[t], task, noise)
    assert torch.equal(rollout.z_HBD[0], z)
    for t in range(H):
        z, logits = plugin().predict(module, z, actions[t], task, noise[t])
        assert torch.equal(rollout.z_HBD[t + 1], z)
        assert torch.equal(rollout.reward_logits_HBR[t], logits)
        assert torch.equal(rollout.action_HBA[t], actions[t])


def test_latents_stay_on_the_simplex():
    module = build()
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


def test_frozen_parameters_let_gradients_through():
    module = build()
    plugin().freeze(module)
    z, action, task, noise = step_inputs(module)
    z, action = z.requires_grad_(), action.requires_grad_()
    for output in plugin().predict(module, z, action, task, noise):
        grads = torch.autograd.grad((output * torch.randn_like(output)).sum(), [z, action])
        assert all((g != 0).any() for g in grads)
    assert not any(p.requires_grad or p.grad is not None for p in module.parameters())


def test_loss_is_the_formula_and_reaches_every_parameter():
    module = build(consistency_coef=3.0, reward_coef=0.7, rho=0.5)
    batch, noise = real_batch()
    loss, metrics = plugin().loss(module, batch, noise)
    task = Task(INDEX, MASK, module.embed(INDEX))
    z, expected = module.encode(batch.obs_HBO[0], task.embedding_BE), 0.0
    for t in range(H):
        z_next, logits = plugin().predict(module, z, batch.action_HBA[t], task, noise[t])
        target = module.encode(batch.obs_HBO[t + 1], task.embedding_BE).detach()
        error = F.mse_loss(z_next, target)
        reward = two_hot.cross_entropy(logits, batch.reward_HB[t]).mean()
        expected += 0.5**t * (3.0 * error + 0.7 * reward) / H
        z = z_next
    torch.testing.assert_close(loss, expected)
    assert all(m.shape == () and not m.requires_grad for m in metrics.values())
    parameters = list(module.parameters())
    ours, theirs = (torch.autograd.grad(x, parameters) for x in (loss, expected))
    assert all(g.any() for g in ours)
    torch.testing.assert_close(ours, theirs)


def test_loss_falls_on_a_fixed_batch():
    module, (batch, noise) = build(), real_batch()
    adam = torch.optim.Adam(module.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        losses.append(plugin().loss(module, batch, noise)[0])
        adam.zero_grad()
        losses[-1].backward()
        adam.step()
    assert losses[-1] < 0.6 * losses[0]


def test_gradients_are_exact():
    module = build().double()
    z, action, task, noise = step_inputs(module, torch.float64)
    call = lambda z, a: tuple(plugin().predict(module, z, a, task, noise))  # noqa: E731
    assert torch.autograd.gradcheck(call, (z.requires_grad_(), action.requires_grad_()))
