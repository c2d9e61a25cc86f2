"""The MLP world model's own equation, loss and settings; the contract is in test_contract.py."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F

from fmbpo.hookspecs import Batch, Task, WorldModelDims
from fmbpo.nn import two_hot
from fmbpo.nn.blocks import simnorm
from fmbpo.plugins import load_plugin

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
B, H, LATENT = 4, 3, 16
DIMS = WorldModelDims(obs=5, action=3, tasks=3)
INDEX = torch.tensor([0, 1, 1, 0])
DONE = torch.tensor(0.5)
MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])[INDEX]
plugin = cache(lambda: load_plugin("world_model", "mlp"))


def build(**settings):
    torch.manual_seed(0)
    widths = {"encoder_units": [16], "units": [16, 16], "latent_dim": LATENT, "task_dim": 4}
    module = plugin().build(plugin().Config(**widths, **settings), DIMS)
    torch.nn.init.normal_(module.reward[-1].weight, std=0.3)  # zero at first: no gradient
    return module


def step_inputs(module):
    torch.manual_seed(1)
    task = Task(INDEX, MASK, module.embed(INDEX).detach())
    return simnorm(3 * torch.randn(B, LATENT)), torch.rand(B, 3), task, torch.empty(B, 0)


def real_batch():
    torch.manual_seed(2)
    obs, action = torch.randn(H + 1, B, 5), torch.rand(H, B, 3) * 2 - 1
    batch = Batch(obs, action, torch.rand(H, B), INDEX, MASK, torch.zeros(H, B))
    return batch, torch.empty(H, B, 0)


def test_entry_point_and_settings():
    assert plugin().distribution == "fmbpo-wm-mlp"
    for wrong in ({"latent_dim": 12}, {"units": []}, {"rho": 1.5}, {"reward_coef": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            plugin().Config(**wrong)


def test_prediction_is_simnorm_of_the_dynamics():
    module = build()
    z, action, task, noise = step_inputs(module)
    x = torch.cat([z, task.embedding_BE, action * MASK], -1)
    last = module.dynamics[-1]
    expected = simnorm(last.norm(last.linear(module.dynamics[:-1](x))))
    torch.testing.assert_close(plugin().predict(module, z, action, task, noise).state, expected)


@pytest.mark.parametrize("ends", [0.0, 2.0])
def test_loss_is_the_formula(ends):
    module = build(consistency_coef=3.0, reward_coef=0.7, rho=0.5, continuation_coef=ends)
    batch, noise = real_batch()
    batch = batch._replace(terminated_HB=torch.eye(H, B))
    loss, _ = plugin().loss(module, batch, noise, DONE)
    task = Task(INDEX, MASK, module.embed(INDEX))
    z, expected = module.encode(batch.obs_HBO[0], task.embedding_BE), 0.0
    for t in range(H):
        z_next, logits, extras = plugin().predict(module, z, batch.action_HBA[t], task, noise[t])
        target = module.encode(batch.obs_HBO[t + 1], task.embedding_BE).detach()
        error = F.mse_loss(z_next, target)
        reward = two_hot.cross_entropy(logits, batch.reward_HB[t]).mean()
        expected += 0.5**t * (3.0 * error + 0.7 * reward) / H
        if ends:
            goes_on = F.binary_cross_entropy(extras["continue"], 1 - batch.terminated_HB[t])
            expected += 0.5**t * ends * goes_on / H
        z = z_next
    torch.testing.assert_close(loss, expected)
    parameters = list(module.parameters())
    ours, theirs = (torch.autograd.grad(x, parameters) for x in (loss, expected))
    torch.testing.assert_close(ours, theirs)
