"""The density, the bonus and the temperature, which the contract does not check."""

import math

import pytest
import torch

from fmbpo.hookspecs import LOG_PROB, Imagined, LossContext, PolicyDims, Rollout, Task
from fmbpo.plugins import load_plugin

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
A, B, D, H = 2, 5, 6, 3
GAMMA, LAM = 0.9, 0.7


def build(rows=B, **settings):
    plugin = load_plugin("policy", "entropy")
    torch.manual_seed(0)
    module = plugin.build(plugin.Config(**{**plugin.small, **settings}), PolicyDims(D, 4, A))
    return plugin, module, Task(torch.zeros(rows).long(), torch.ones(rows, A), torch.zeros(rows, 4))


def trajectory(module, log_prob, **extras):
    """Rewards of 1 and values of 0."""
    made = Rollout(torch.zeros(H + 1, B, D), torch.zeros(H, B, A), torch.zeros(H, B, 1))
    made = made._replace(extras={LOG_PROB: log_prob, **extras})
    weight = (GAMMA ** torch.arange(H)).unsqueeze(1)
    total = weight.sum().expand(B)
    scale = torch.tensor(2.0)
    return Imagined(made, made.action_HBA, torch.ones(H, B), weight, torch.zeros(B), total, scale)


@torch.no_grad()
def test_the_density_of_actions_integrates_to_one():
    """Over a fine grid of noise, the densities of the actions times their distances."""
    rows = 20_001
    _, module, task = build(rows)
    task.mask_BA[:, 1] = 0.0  # a task of one dimension
    noise = torch.linspace(-8, 8, rows).unsqueeze(1).expand(rows, A)
    action, log_prob = module(torch.randn(1, D).expand(rows, D), task, noise)
    assert not action[:, 1].any()
    total = torch.trapezoid(log_prob.exp(), action[:, 0])
    torch.testing.assert_close(total, torch.tensor(1.0), atol=1e-3, rtol=0)


@torch.no_grad()
def test_saturated_actions_have_a_finite_density():
    _, module, task = build()
    module.net[-1].bias[:A] = 50.0
    action, log_prob = module(torch.randn(B, D), task, torch.randn(B, A))
    assert (action == 1).all()
    assert log_prob.isfinite().all()


def test_targets_and_loss_add_the_entropy_to_every_reward():
    plugin, module, task = build(temperature=0.5, learned=False)
    log_prob, value = torch.randn(H, B), torch.randn(H, B)
    imagined = trajectory(module, log_prob, **{"continue": torch.full((H, B), 0.8)})
    found = module.targets(imagined, value, GAMMA, LAM)
    wanted, ahead = [], value[-1]
    for t in reversed(range(H)):
        mixed = (1 - LAM) * value[t] + LAM * ahead
        ahead = 1 - 0.5 * log_prob[t] + GAMMA * 0.8 * mixed
        wanted.insert(0, ahead)
    torch.testing.assert_close(found, torch.stack(wanted))
    loss, _ = plugin.loss(module, imagined, LossContext(task, None, None, None, None))
    soft = (imagined.weight_HB * (1 - 0.5 * log_prob)).sum(0)
    torch.testing.assert_close(loss, -soft.mean() / 2)


@pytest.mark.parametrize(("entropy", "sign"), [(-3.0, -1.0), (1.0, 1.0)])
def test_the_temperature_rises_only_if_there_is_too_little_entropy(entropy, sign):
    """An update goes against the gradient. The actor's loss does not move the temperature."""
    plugin, module, task = build(temperature=0.5, target_entropy=-1.0)
    imagined = trajectory(module, torch.full((H, B), -entropy * A))
    loss, metrics = plugin.loss(module, imagined, LossContext(task, None, None, None, None))
    loss.backward()
    torch.testing.assert_close(module.log_temperature.grad, torch.tensor(sign * abs(entropy + 1)))
    assert metrics["temperature"].item() == pytest.approx(0.5)
    assert metrics["entropy"].item() == pytest.approx(entropy)


def test_settings():
    plugin = load_plugin("policy", "entropy")
    with pytest.raises(ValueError, match="min_log_std"):
        plugin.Config(min_log_std=1.0)
    with pytest.raises(ValueError, match="temperature"):
        plugin.Config(temperature=0.0)
    _, module, _ = build(learned=False, temperature=0.3)
    assert math.isclose(module.temperature(), 0.3)
    assert "log_temperature" not in dict(module.named_parameters())
