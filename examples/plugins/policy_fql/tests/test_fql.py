"""The losses of the two networks, which the contract does not check."""

import torch

from fmbpo.hookspecs import Imagined, LossContext, PolicyDims, Prediction, Real, Task
from fmbpo.plugins import load_plugin

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
A, B, D, H = 2, 6, 5, 3


def build(rows=B, **settings):
    plugin = load_plugin("policy", "fql")
    torch.manual_seed(0)
    module = plugin.build(plugin.Config(**{**plugin.small, **settings}), PolicyDims(D, 4, A))
    return plugin, module, Task(torch.zeros(rows).long(), torch.ones(rows, A), torch.zeros(rows, 4))


def loss(plugin, module, task):
    """In a world that actions do not move and that pays nothing."""
    torch.manual_seed(1)
    noise, z = torch.randn(H, B, A), torch.randn(B, D)
    still = lambda t, z, action: Prediction(z, 0 * action[:, :1])  # noqa: E731
    rollout = plugin.rollout(module, z, still, task, noise)
    nothing, one = torch.zeros(B), torch.tensor(1.0)
    imagined = Imagined(
        rollout, rollout.action_HBA, torch.zeros(H, B), torch.ones(H, 1), nothing, nothing, one
    )
    data = Real(torch.randn(2, B, D), torch.rand(1, B, A), torch.zeros(1, B), torch.zeros(1, B))
    own = torch.randn(B, module.loss_noise_dim)
    context = LossContext(task, noise, one, None, data, own)
    found, metrics = plugin.loss(module, imagined, context)
    return found, metrics, rollout, noise


def test_the_loss_is_the_formula():
    plugin, module, task = build(anchor=3.0)
    found, metrics, rollout, noise = loss(plugin, module, task)
    x, step = noise, 1 / 10
    for k in range(10):
        at = torch.full((H, B, 1), k * step)
        x = x + step * module.velocity(torch.cat([x, rollout.z_HBD[:-1], at], -1))
    distance = (rollout.action_HBA - x.clamp(-1, 1)).square().mean()
    torch.testing.assert_close(metrics["distance"], distance.detach())
    torch.testing.assert_close(found.detach(), 3 * distance.detach() + metrics["behaviour_loss"])


def test_the_anchor_moves_the_policy_alone_and_the_data_the_flow_alone():
    plugin, module, task = build(anchor=0.0)
    loss(plugin, module, task)[0].backward()
    assert not any(p.grad is not None and p.grad.any() for p in module.policy.parameters())
    flow = [p.grad.clone() for p in module.velocity.parameters()]
    assert all(grad.any() for grad in flow)
    plugin, module, task = build(anchor=3.0)
    loss(plugin, module, task)[0].backward()
    assert all(p.grad.any() for p in module.policy.parameters())
    torch.testing.assert_close([p.grad for p in module.velocity.parameters()], flow)


@torch.no_grad()
def test_the_flow_of_a_true_field_ends_in_the_data():
    """Where every action is 0.5, the velocity is (0.5 - x) / (1 - τ), and Euler is exact."""
    _, module, task = build()
    module.velocity.forward = lambda x: (0.5 - x[..., :A]) / (1 - x[..., -1:])
    found = module.behaviour(torch.randn(B, D), task, torch.randn(B, A))
    torch.testing.assert_close(found, torch.full((B, A), 0.5))
    error = module.matching(torch.randn(B, D), found, task, torch.randn(B, module.loss_noise_dim))
    torch.testing.assert_close(error, torch.tensor(0.0), atol=1e-6, rtol=0)


def test_the_flow_learns_two_ways_to_act():
    """Real actions are -0.7 or 0.7, whatever the latent: no Gaussian's mean."""
    rows = 128
    _, module, task = build(rows, units=[32, 32])
    z, adam = torch.zeros(rows, D), torch.optim.Adam(module.velocity.parameters(), 1e-2)
    for _ in range(150):
        action = 1.4 * torch.randint(2, (rows, 1)).expand(rows, A) - 0.7
        error = module.matching(z, action, task, torch.randn(rows, module.loss_noise_dim))
        adam.zero_grad()
        error.backward()
        adam.step()
    found = module.behaviour(z, task, torch.randn(rows, A))
    assert ((found.abs() - 0.7).abs() < 0.3).float().mean() > 0.8
    assert 0.2 < (found[:, 0] > 0).float().mean() < 0.8
