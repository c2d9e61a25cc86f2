"""The flow policy alone, against the hook contract, for every solver, with and without gate."""

from functools import cache

import pytest
import torch

from fmbpo.hookspecs import Imagined, PolicyDims, Prediction, Task
from fmbpo.nn.ode import STAGES
from fmbpo.registry import load_plugin

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
B, H, LATENT, ACTION = 4, 3, 16, 3
DIMS = PolicyDims(latent=LATENT, task=4, action=ACTION)
MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
plugin = cache(lambda: load_plugin("policy", "flow"))
every_field = pytest.mark.parametrize(
    ("solver", "gate"), [(solver, gate) for solver in STAGES for gate in (False, True)]
)


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
    assert plugin().distribution == "fmbpo-policy-flow"
    for wrong in ({"units": []}, {"solver": "leapfrog"}, {"substeps": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            plugin().Config(**wrong)


@every_field
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_actions_are_bounded_and_masked(solver, gate, scale):
    module = build(solver=solver, gate=gate)
    z, task, noise = step_inputs()
    assert noise.shape == (B, module.noise_dim)
    action = act(module, 10 * z, task, scale * noise)
    assert action.shape == (B, ACTION)
    assert (action.abs() <= 1).all()
    assert (action[MASK == 0] == 0).all()
    assert (action[MASK == 1] != 0).all()


@every_field
def test_noise_is_the_only_randomness(solver, gate):
    module = build(solver=solver, gate=gate)
    z, task, noise = step_inputs()
    zero = torch.zeros_like(noise)
    assert torch.equal(act(module, z, task, zero), act(module, z, task, zero))
    differ = act(module, z, task, noise) != act(module, z, task, -noise)
    assert torch.equal(differ, MASK == 1)


def test_masked_noise_is_inert():
    module = build()
    z, task, noise = step_inputs()
    other = torch.where(MASK == 1, noise, 100.0)
    assert torch.equal(act(module, z, task, noise), act(module, z, task, other))


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


@every_field
def test_loss_falls_and_reaches_every_parameter(solver, gate):
    module = build(solver=solver, gate=gate)
    adam = torch.optim.Adam(module.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        imagined = imagine(module)
        loss, metrics = plugin().loss(module, imagined)
        torch.testing.assert_close(loss, -imagined.return_B.mean() / 2)
        losses.append(loss.item())
        adam.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in module.parameters())
        adam.step()
    assert losses[-1] < 0.6 * losses[0]
    assert all(m.shape == () and not m.requires_grad for m in metrics.values())


@every_field
def test_frozen_exact_gradients(solver, gate):
    module = build(solver=solver, gate=gate).double()
    plugin().freeze(module)
    z, task, noise = step_inputs(torch.float64)
    z, noise = z.requires_grad_(), noise.requires_grad_()
    assert torch.autograd.gradcheck(lambda z, noise: act(module, z, task, noise), (z, noise))
    (grad,) = torch.autograd.grad(act(module, z, task, noise).sum(), z)
    assert (grad != 0).any()
    assert not any(p.requires_grad or p.grad is not None for p in module.parameters())
