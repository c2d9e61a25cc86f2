"""The box, the disagreement and the pessimism, which the contract does not check."""

import pytest
import torch
from fmbpo_example_wm_ensemble import disagreement, lowered

from fmbpo.hookspecs import Task, WorldModelDims
from fmbpo.nn import two_hot
from fmbpo.plugins import load_plugin

B = 5


def build(**settings):
    plugin = load_plugin("world_model", "ensemble")
    torch.manual_seed(0)
    module = plugin.build(plugin.Config(**{**plugin.small, **settings}), WorldModelDims(4, 2, 3))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        index = torch.arange(B) % 3
        task = Task(index, torch.ones(B, 2), module.embed(index))
        z = module.encode(10 * torch.randn(B, 4), task.embedding_BE)
    return plugin, module, z, task


@torch.no_grad()
def test_latents_stay_in_the_box_without_dying_out():
    plugin, module, z, task = build()
    noise = torch.empty(64, B, 0)
    rollout = plugin.rollout(module, z, lambda t, z: torch.ones(B, 2), task, noise)
    assert rollout.z_HBD.abs().max() <= 1
    assert rollout.z_HBD[-1].std(0).mean() > 0.01


def test_disagreement_is_the_distance_from_the_mean():
    apart = torch.tensor([[[0.0, 1.0]], [[2.0, 1.0]]])
    torch.testing.assert_close(disagreement(apart), torch.tensor([0.5**0.5]))
    same = torch.ones(3, B, 4, requires_grad=True)
    disagreement(same).sum().backward()
    assert torch.isfinite(same.grad).all()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_discrete_normal_reward_falls_by_the_share_of_a_bin(share):
    bins = torch.linspace(-two_hot.BOUND, two_hot.BOUND, two_hot.BINS)
    centre = torch.tensor([-1.0, 0.3, 2.0]).unsqueeze(1)
    logits = -((bins - centre) ** 2) / (2 * 0.3**2)
    found = two_hot.decode_symlog(lowered(logits, torch.full((3,), share)))
    torch.testing.assert_close(found, centre.squeeze(1) - share * two_hot.step())


@torch.no_grad()
def test_pessimism_changes_the_reward_alone():
    found = {}
    for pessimism in (0.0, 5.0):
        plugin, module, z, task = build(pessimism=pessimism)
        prediction = plugin.predict(module, z, torch.ones(B, 2), task, torch.empty(B, 0))
        found[pessimism] = prediction.state, two_hot.decode_symlog(prediction.reward_BR)
    assert torch.equal(found[0.0][0], found[5.0][0])
    assert not torch.equal(found[0.0][1], found[5.0][1])
