"""Jumps, their halves and their losses, which the contract does not check."""

import torch
from fmbpo_example_wm_shortcut import jumps

from fmbpo.hookspecs import Batch, Task, WorldModelDims
from fmbpo.nn.blocks import simnorm
from fmbpo.nn.world_model import LatentWorldModel, mean_squared, sub_trajectory_loss
from fmbpo.plugins import load_plugin

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
B, D, H = 6, 16, 3


def build(**settings):
    plugin = load_plugin("world_model", "shortcut")
    torch.manual_seed(0)
    module = plugin.build(plugin.Config(**{**plugin.small, **settings}), WorldModelDims(4, 2, 3))
    index = torch.arange(B) % 3
    return plugin, module, Task(index, torch.ones(B, 2), module.embed(index).detach())


def real(task):
    obs, action, reward = torch.randn(H + 1, B, 4), torch.randn(H, B, 2), torch.randn(H, B)
    return Batch(obs, action, reward, task.index_B, task.mask_BA, torch.zeros(H, B))


def test_jumps_of_every_length_lie_on_their_grid():
    u = torch.linspace(0, 1, 25)
    tau, length = jumps(*torch.cartesian_prod(u, u).chunk(2, -1), halvings=3)
    assert length.unique().tolist() == [0.25, 0.5, 1.0]
    assert set(tau[length == 0.25].tolist()) == {0.0, 0.25, 0.5, 0.75}
    assert set(tau[length == 1].tolist()) == {0.0}


@torch.no_grad()
def test_the_target_of_a_jump_leads_to_where_its_halves_lead():
    _, module, task = build()
    given = module.step_input(simnorm(torch.randn(B, D)), torch.randn(B, 2), task)
    start = simnorm(torch.randn(B, D))
    for tau, length in ((0.0, 1.0), (0.0, 0.5), (0.5, 0.5), (0.25, 0.25)):
        x, half = start, length / 2
        for at in (tau, tau + half):
            end = module.end(given, x, *(torch.full((B, 1), v) for v in (at, half)))
            x = x + half / (1 - at) * (end - x)
        found = module.halved(given, start, *(torch.full((B, 1), v) for v in (tau, length)))
        torch.testing.assert_close(start + length / (1 - tau) * (found - start), x)
        assert found.min() >= 0
        torch.testing.assert_close(found.view(B, -1, 8).sum(-1), torch.ones(B, 2))


@torch.no_grad()
def test_it_begins_as_the_mlp_world_model_whose_parameters_it_adopts():
    """So is its loss: jumps that ignore their start agree with their halves."""
    plugin, module, task = build()
    given = LatentWorldModel(module.config, WorldModelDims(4, 2, 3))
    module.load_state_dict(module.adopt(dict(given.named_parameters())))
    z, action = simnorm(torch.randn(B, D)), torch.randn(B, 2)
    wanted = given.dynamics(given.step_input(z, action, task))
    for noise in (torch.zeros(B, D), torch.randn(B, D)):
        torch.testing.assert_close(module.advance(z, action, task, noise), wanted)
    batch = real(task)
    done, noise = torch.tensor(0.5), torch.randn(H, B, module.loss_noise_dim)
    loss, _ = plugin.loss(module, batch, noise, done)
    ahead = lambda z, a, task: given.dynamics(given.step_input(z, a, task))  # noqa: E731
    wanted, _ = sub_trajectory_loss(
        given,
        batch,
        lambda t, z, task: ahead(z, batch.action_HBA[t], task),
        lambda z, predicted, target, task: mean_squared(predicted - target),
    )
    torch.testing.assert_close(loss, wanted)


@torch.no_grad()
def test_longer_jumps_are_held_against_their_halves():
    plugin, module, task = build(shortcut_coef=1.0)
    without = build(shortcut_coef=0.0)[1]
    batch = real(task)
    done, noise = torch.tensor(0.5), torch.randn(H, B, module.loss_noise_dim)
    with_jumps, alone = (plugin.loss(m, batch, noise, done)[0] for m in (module, without))
    for m in (module, without):
        m.dynamics[0].linear.weight[:, -D - 2 :] = 0.0  # blind to x, τ and d
    blind = [plugin.loss(m, batch, noise, done)[0] for m in (module, without)]
    assert with_jumps > alone + 1e-4
    torch.testing.assert_close(*blind)
