"""The memory and the two sources of s, which the contract does not check."""

import torch
from fmbpo_example_wm_rssm import normal

from fmbpo.hookspecs import Batch, Task, WorldModelDims
from fmbpo.plugins import load_plugin

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
B, H = 5, 3


def build(**settings):
    plugin = load_plugin("world_model", "rssm")
    torch.manual_seed(0)
    module = plugin.build(plugin.Config(**{**plugin.small, **settings}), WorldModelDims(4, 2, 3))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    index = torch.arange(B) % 3
    return plugin, module, Task(index, torch.ones(B, 2), module.embed(index).detach())


@torch.no_grad()
def test_the_same_observation_after_another_past_is_another_state():
    _, module, task = build()
    first, last, action = torch.randn(2, B, 4), torch.randn(B, 4), torch.randn(B, 2)
    states = [module.observe(module.begin(o, task), action, last, task) for o in first]
    apart = (module.latent(states[0]) - module.latent(states[1])).abs().amax(-1)
    assert (apart > 1e-3).all()


@torch.no_grad()
def test_h_stays_in_its_box():
    _, module, task = build()
    state = module.begin(100 * torch.randn(B, 4), task)
    for _ in range(30):
        state = module.observe(state, torch.ones(B, 2), 100 * torch.randn(B, 4), task)
    assert state.h.abs().max() <= 1


@torch.no_grad()
def test_imagination_draws_s_from_the_prior():
    plugin, module, task = build()
    state, action = module.begin(torch.randn(B, 4), task), torch.randn(B, 2)
    noise = torch.randn(B, module.noise_dim)
    following = plugin.predict(module, state, action, task, noise).state
    seen = module.observe(state, action, torch.randn(B, 4), task)
    assert torch.equal(following.h, seen.h)
    prior = normal(module.prior(following.h))
    torch.testing.assert_close(following.s, prior.mean + prior.stddev * noise)
    assert not torch.allclose(seen.s, prior.mean)


@torch.no_grad()
def test_the_bound_is_tight_if_observations_say_nothing_new():
    """KL(q || p) = 0 if q equals p, and it is the only part that its weight changes."""
    plugin, module, task = build()
    other = build(kl_coef=3.0)[1]
    batch = Batch(
        torch.randn(H + 1, B, 4), torch.randn(H, B, 2), torch.randn(H, B),
        task.index_B, task.mask_BA, torch.zeros(H, B),
    )  # fmt: skip
    noise, done = torch.randn(H, B, module.loss_noise_dim), torch.tensor(0.5)
    (loss, metrics), (more, _) = (plugin.loss(m, batch, noise, done) for m in (module, other))
    torch.testing.assert_close(more - loss, (3.0 - module.config.kl_coef) * metrics["kl"])
    assert metrics["kl"] > 0.01
    for net in (module.prior, module.posterior):
        net[-1].weight.zero_()
        net[-1].bias.zero_()
    assert plugin.loss(module, batch, noise, done)[1]["kl"] == 0
