"""TD(λ), the critics' ensemble and the return scale against closed forms."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmbpo.nn.returns import td_lambda
from fmbpo.pwm.critic import Critic, ensemble_values
from fmbpo.pwm.policy import ReturnScale

H, B = 16, 5


def rollout():
    torch.manual_seed(0)
    return torch.rand(H, B, dtype=torch.float64), torch.randn(H, B, dtype=torch.float64)


def test_lambda_one_is_the_discounted_sum():
    reward, value = rollout()
    weights = 0.99 ** torch.arange(H, dtype=torch.float64)
    expected = (weights[:, None] * reward).sum(0) + 0.99**H * value[-1]
    torch.testing.assert_close(td_lambda(reward, value, 0.99, torch.ones_like(value))[0], expected)


def test_lambda_zero_is_one_step():
    reward, value = rollout()
    torch.testing.assert_close(
        td_lambda(reward, value, 0.99, torch.zeros_like(value)), reward + 0.99 * value
    )


@settings(max_examples=30, deadline=None)
@given(gamma=st.floats(0.1, 1.0), lam=st.floats(0.0, 1.0))
def test_td_lambda_is_the_weighted_mean_of_n_step_returns(gamma, lam):
    """``G_0 = Σ_{n<H} (1 - λ) λ^(n-1) G^(n) + λ^(H-1) G^(H)`` (Sutton & Barto, 12.1)."""
    reward, value = rollout()
    n_step = []
    for n in range(1, H + 1):
        total = sum(gamma**t * reward[t] for t in range(n))
        n_step.append(total + gamma**n * value[n - 1])
    expected = sum((1 - lam) * lam ** (n - 1) * n_step[n - 1] for n in range(1, H))
    expected = expected + lam ** (H - 1) * n_step[-1]
    torch.testing.assert_close(
        td_lambda(reward, value, gamma, torch.full_like(value, lam))[0], expected
    )


def test_return_scale_is_the_running_variance():
    torch.manual_seed(0)
    batches = [torch.randn(8, dtype=torch.float64) * 3 + i for i in range(6)]
    scale = ReturnScale.initial(batches[0])
    for returns in batches:
        scale = scale.updated(returns)
    everything = torch.cat(batches)
    # The initial pseudo-observation (mean 0, variance 1, number 1e-4) hardly counts.
    np.testing.assert_allclose(scale.mean, everything.mean(), rtol=1e-4)
    np.testing.assert_allclose(scale.variance, everything.var(correction=0), rtol=1e-4)
    np.testing.assert_allclose(scale.divisor(), (scale.variance + 1e-5).sqrt())


def test_ensemble_is_its_members():
    torch.manual_seed(0)
    critics = [Critic(8, [16]) for _ in range(3)]
    stacked = {
        name: torch.stack([dict(c.named_parameters())[name].detach() for c in critics])
        for name, _ in critics[0].named_parameters()
    }
    z = torch.randn(4, 8)
    together = ensemble_values(critics[0], stacked, z)
    torch.testing.assert_close(together, torch.stack([c(z) for c in critics]))
