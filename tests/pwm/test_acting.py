"""Stacked policies as actors: their noise, and its size."""

import numpy as np
import pytest
import torch
from pairs import pair, params, policy, stack, world_model

from fmbpo.data.sampler import action_masks
from fmbpo.pwm.acting import Actors
from fmbpo.pwm.start import Past
from fmbpo.tasks.mt30 import MT30, SUITE

STDS = 0.3, 0.9


def actors(tasks, kind="mlp", masked=True):
    """Two policies whose actions are tanh(σ noise), in every state."""
    both = pair(world_model("mlp"), policy(kind))
    modules = [params(both.policy) for _ in STDS]
    for module, std in zip(modules, STDS, strict=True):
        if kind == "mlp":
            module["mean.6.weight"].zero_()
            module["mean.6.bias"].zero_()
        module["log_std.value"].fill_(np.log(std))
    width = torch.tensor([MT30[task].action_dim if masked else 6 for task in tasks])
    mask_TA = (torch.arange(6) < width.unsqueeze(1)).float()
    index_T = torch.tensor([MT30[task].index for task in tasks])
    return Actors(both, stack(modules), {}, index_T, mask_TA)


def wanted(std):
    """The standard deviation of tanh(σ n), by quadrature."""
    at, weight = np.polynomial.hermite_e.hermegauss(80)
    return np.sqrt((weight * np.tanh(std * at) ** 2).sum() / weight.sum())


@pytest.mark.parametrize("masked", [True, False])
def test_the_noise_of_an_action_is_that_of_the_tasks_dimensions(masked):
    """Of padded dimensions, which are 0 or move nothing, it takes no account."""
    given = actors(["cheetah-run", "cartpole-balance"], masked=masked)
    given.policy["log_std.value"][1, 1:] = 1.0  # of padding, if it counted
    real_TA = action_masks(SUITE)[given.index_T]
    past, other = (Past(torch.randn(2, 1, 500, 24), torch.empty(2, 0, 500, 6)) for _ in range(2))
    found = given.action_noise([past], real_TA, seed=3)
    np.testing.assert_allclose(found, [wanted(std) for std in STDS], rtol=0.02)
    assert torch.equal(found, given.action_noise([other], real_TA, seed=3))


@pytest.mark.parametrize("kind", ["mlp", "flow"])
def test_drawn_noise_is_the_same_for_every_policy_and_begins_anew(kind):
    given = actors(["cheetah-run", "cheetah-run"], kind)
    given.policy["log_std.value"][1] = given.policy["log_std.value"][0]
    obs = np.ones((2, 3, 24), np.float32)
    act = given.stochastic(5)
    first, second = act(obs, 0), act(obs, 1)
    np.testing.assert_allclose(first[0], first[1], atol=1e-6)
    assert len(np.unique(np.stack([first[0], second[0]]))) == 2 * 3 * 6  # steps, episodes, entries
    np.testing.assert_array_equal(act(obs, 0), first)
    np.testing.assert_array_equal(given.stochastic(5)(obs, 0), first)
    assert (given.stochastic(6)(obs, 0) != first).all()
    assert (given.deterministic()(obs, 0) != first).all()
