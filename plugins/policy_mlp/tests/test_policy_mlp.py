"""The Gaussian policy alone: the hook contract, its own equation, and its noise scale's floor."""

from functools import cache

import pytest
import torch

from fmbpo.hookspecs import Imagined, PolicyDims, Prediction, Task
from fmbpo.registry import load_plugin

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
B, H, LATENT, ACTION = 4, 3, 16, 3
DIMS = PolicyDims(latent=LATENT, task=4, action=ACTION)
MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
plugin = cache(lambda: load_plugin("policy", "mlp"))


def build(**settings):
    torch.manual_seed(0)
    return plugin().build(plugin().Config(units=[16, 8], **settings), DIMS)


def step_inputs(dtype=torch.float32):
    torch.manual_seed(1)
    task = Task(torch.zeros(B, dtype=torch.int64), MASK.to(dtype), torch.randn(B, 4, dtype=dtype))
    return torch.randn(B, LATENT, dtype=dtype), task, torch.randn(B, ACTION, dtype=dtype)


def act(module, z, task, noise):
    return plugin().predict(module, z, task, noise)


def answer(t, z, action):
    """A world with a gradient path from the action and from the latent to the next latent."""
    return Prediction(z + action.sum(-1, keepdim=True) * (t + 1), action)


def imagine(module):
    """A rollout in ``answer``'s world that is paid for its distance to 0.5."""
    z, task, _ = step_inputs()
    noise = torch.randn(H, B, ACTION)
    rollout = plugin().rollout(module, z, answer, task, noise)
    reward = -((rollout.action_HBA - 0.5) * MASK).square().sum(-1)
    return Imagined(rollout, reward, torch.zeros(B), reward.sum(0), torch.tensor(2.0))


def test_entry_point():
    assert plugin().distribution == "fmbpo-policy-mlp"
    with pytest.raises(ValueError, match="units"):
        plugin().Config(units=[])


def test_action_is_the_squashed_gaussian():
    module = build()
    z, task, noise = step_inputs()
    expected = torch.tanh(module.mean(z) + torch.exp(torch.tensor(-1.0)) * noise) * MASK
    assert expected.shape == (B, module.noise_dim)
    assert module.evaluations == 1
    torch.testing.assert_close(act(module, z, task, noise), expected)


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_actions_are_bounded_and_masked(scale):
    module = build()
    z, task, noise = step_inputs()
    action = act(module, 10 * z, task, scale * noise)
    assert (action.abs() <= 1).all()
    assert (action[MASK == 0] == 0).all()
    assert (action[MASK == 1] != 0).all()


def test_noise_is_the_only_randomness():
    module = build()
    z, task, noise = step_inputs()
    zero = torch.zeros_like(noise)
    assert torch.equal(act(module, z, task, zero), act(module, z, task, zero))
    differ = act(module, z, task, noise) != act(module, z, task, -noise)
    assert torch.equal(differ, MASK == 1)


def test_log_std_has_a_floor_that_gradients_pass():
    module = build(min_log_std=-1.5)
    z, task, noise = step_inputs()
    with torch.no_grad():
        module.log_std.value.copy_(torch.tensor([-5.0, -1.5, 0.3]))
    torch.testing.assert_close(module.log_std.std(), torch.tensor([-1.5, -1.5, 0.3]).exp())
    act(module, z, task, noise).sum().backward()
    assert (module.log_std.value.grad != 0).all()


@pytest.mark.parametrize("seen", [False, True])
def test_task_embedding_is_seen_only_on_request(seen):
    module = build(task_embedding=seen)
    z, task, noise = step_inputs()
    other = task._replace(embedding_BE=-task.embedding_BE)
    assert torch.equal(act(module, z, task, noise), act(module, z, other, noise)) is not seen


def test_rollout_is_repeated_predict_and_cuts_the_policys_input():
    module = build()
    z, task, _ = step_inputs()
    start, noise = z.requires_grad_(), torch.randn(H, B, ACTION)
    rollout = plugin().rollout(module, z, answer, task, noise)
    for t in range(H):
        assert torch.equal(rollout.z_HBD[t], z)
        assert torch.equal(rollout.action_HBA[t], act(module, z, task, noise[t]))
        z, logits = answer(t, z, rollout.action_HBA[t])
        assert torch.equal(rollout.reward_logits_HBR[t], logits)
    (through_world,) = torch.autograd.grad(rollout.z_HBD[-1].sum(), start, retain_graph=True)
    assert torch.equal(through_world, torch.ones_like(start))
    assert torch.autograd.grad(rollout.action_HBA.sum(), start, allow_unused=True) == (None,)


def test_loss_is_minus_the_scaled_return_and_reaches_every_parameter():
    module = build()
    imagined = imagine(module)
    loss, metrics = plugin().loss(module, imagined)
    torch.testing.assert_close(loss, -imagined.return_B.mean() / 2)
    assert all(m.shape == () and not m.requires_grad for m in metrics.values())
    loss.backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_loss_falls():
    module = build()
    adam = torch.optim.Adam(module.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        losses.append(plugin().loss(module, imagine(module))[0])
        adam.zero_grad()
        losses[-1].backward()
        adam.step()
    assert losses[-1] < 0.6 * losses[0]


def test_frozen_parameters_let_gradients_through():
    module = build()
    plugin().freeze(module)
    z, task, noise = step_inputs()
    (grad,) = torch.autograd.grad(act(module, z.requires_grad_(), task, noise).sum(), z)
    assert (grad != 0).any()
    assert not any(p.requires_grad or p.grad is not None for p in module.parameters())


def test_gradients_are_exact():
    module = build().double()
    z, task, noise = step_inputs(torch.float64)
    call = lambda z, noise: act(module, z, task, noise)  # noqa: E731
    assert torch.autograd.gradcheck(call, (z.requires_grad_(), noise.requires_grad_()))
