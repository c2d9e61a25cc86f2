"""Two-hot rewards: round trips, bounds, and the gradient that an earlier study lost."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmbpo.nn import two_hot

rewards = st.floats(-2e4, 2e4, allow_nan=False)


@given(rewards)
def test_symlog_and_symexp_are_inverse(x):
    value = torch.tensor(x, dtype=torch.float64)
    torch.testing.assert_close(two_hot.symexp(two_hot.symlog(value)), value, rtol=1e-9, atol=1e-9)


@given(rewards)
def test_weights_are_a_distribution_with_the_right_mean(x):
    value = torch.tensor(x, dtype=torch.float64)
    weights = two_hot.two_hot(value)
    assert weights.shape == (101,)
    assert (weights >= 0).all()
    assert (weights > 0).sum() <= 2
    assert weights.sum().item() == pytest.approx(1.0)
    bins = torch.linspace(-10, 10, 101, dtype=torch.float64)
    assert (weights * bins).sum().item() == pytest.approx(two_hot.symlog(value).item(), abs=1e-9)


def test_values_outside_are_clamped():
    weights = two_hot.two_hot(torch.tensor([1e9, -1e9]))
    assert weights[0, -1] == 1
    assert weights[1, 0] == 1


def test_decoding_a_sure_prediction_gives_the_reward_back():
    reward = torch.tensor([0.0, 0.3, 1.0, 2.0, -1.5])
    logits = (two_hot.two_hot(reward) + 1e-12).log()
    torch.testing.assert_close(two_hot.decode(logits), reward, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("scale", "bound"), [(1e-4, 4e-4), (1.0, 10.0), (1e7, 17.0)])
def test_rewards_of_any_scale_are_learned_in_fitting_bins(scale, bound):
    """A regression by the cross-entropy explains rewards in (1, 3) times the scale."""
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 200).unsqueeze(1)
    reward = scale * (2 + torch.sin(3 * x.squeeze(1)))
    net = torch.nn.Sequential(torch.nn.Linear(1, 64), torch.nn.Tanh(), torch.nn.Linear(64, 101))
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(1000):
        optimiser.zero_grad()
        two_hot.cross_entropy(net(x), reward, bound).mean().backward()
        optimiser.step()
    with torch.no_grad():
        error = two_hot.symlog(two_hot.decode(net(x), bound)) - two_hot.symlog(reward)
    assert error.square().mean() < 0.1 * two_hot.symlog(reward).var()


def test_cross_entropy_is_least_at_the_target():
    reward = torch.tensor([0.7])
    target = two_hot.two_hot(reward)
    logits = torch.zeros(1, 101, requires_grad=True)
    for _ in range(2000):
        (g,) = torch.autograd.grad(two_hot.cross_entropy(logits, reward).sum(), logits)
        logits = (logits - 2.0 * g).detach().requires_grad_()
    torch.testing.assert_close(two_hot.decode(logits), reward, rtol=0, atol=0.02)
    entropy = -(target * target.clamp(min=1e-30).log()).sum()
    assert two_hot.cross_entropy(logits, reward).item() >= entropy.item() - 1e-6
