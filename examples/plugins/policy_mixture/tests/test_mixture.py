"""Properties of a mixture, which the contract does not check."""

import torch

from fmbpo.hookspecs import PolicyDims, Task
from fmbpo.plugins import load_plugin

A, D, K = 2, 6, 3


def build(rows, **settings):
    plugin = load_plugin("policy", "mixture")
    torch.manual_seed(0)
    module = plugin.build(plugin.Config(**{**plugin.small, **settings}), PolicyDims(D, 4, A))
    task = Task(torch.zeros(rows, dtype=torch.int64), torch.ones(rows, A), torch.zeros(rows, 4))
    return plugin, module, task


@torch.no_grad()
def test_a_cold_mixture_samples_every_component_as_often_as_its_weight_says():
    rows = 20_000
    plugin, module, task = build(rows, temperature=1e-3)
    z = torch.randn(1, D).expand(rows, D)
    noise = torch.randn(rows, K + A)
    noise[:, K:] = 0
    action = plugin.predict(module, z, task, noise)
    logits, means = module.heads(z[:1])
    modes = torch.tanh(means[0])
    distance = (action.unsqueeze(1) - modes).norm(dim=-1)
    assert (distance.amin(1) < 1e-3).float().mean() > 0.99
    share = distance.argmin(1).bincount(minlength=K) / rows
    drawn = (logits + torch.randn(rows, K)).argmax(1).bincount(minlength=K) / rows
    torch.testing.assert_close(share, drawn, atol=0.02, rtol=0)
    assert share.min() > 0.1


def test_the_choice_learns():
    plugin, module, task = build(64)
    action = plugin.predict(module, torch.randn(64, D), task, torch.randn(64, K + A))
    action.sum().backward()
    assert (module.net[-1].weight.grad[:K] != 0).any(1).all()
    assert (module.log_std.value.grad != 0).all()


@torch.no_grad()
def test_noise_of_zeros_is_the_weighted_mean():
    plugin, module, task = build(4)
    z = torch.randn(4, D)
    logits, means = module.heads(z)
    wanted = torch.tanh(((logits / 0.5).softmax(-1).unsqueeze(-1) * means).sum(1))
    torch.testing.assert_close(plugin.predict(module, z, task, torch.zeros(4, K + A)), wanted)
