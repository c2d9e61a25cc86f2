"""The world-model update: pure, and the loss falls."""

import re
from pathlib import Path

import pytest
import torch
from pairs import DONE, KINDS, OPTIMISER, B, H, batch, params, world_model
from torch.utils._pytree import tree_leaves, tree_map

from fmbpo.nn.world_model import mean_squared, sub_trajectory_loss
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate

GUIDE = Path(__file__).parents[2] / "docs" / "write-a-plugin.md"
RATE = torch.tensor(3e-3)


def prepared(kind):
    component, module = world_model(kind)
    update = WorldModelUpdate(module, component.loss, OPTIMISER)
    torch.manual_seed(0)
    noise = torch.randn(H, B, module.loss_noise_dim)
    return update, WorldModelState.initial(params(module)), batch(), noise


@pytest.mark.parametrize("kind", KINDS)
def test_is_pure(kind):
    update, state, real, noise = prepared(kind)
    copies = tree_map(torch.clone, (state, real, noise))
    update(state, real, noise, RATE, DONE)
    for x, y in zip(tree_leaves((state, real, noise)), tree_leaves(copies), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_falls_and_every_parameter_moves(kind):
    update, state, real, noise = prepared(kind)
    first = state
    losses = []
    for _ in range(100):
        state, metrics = update(state, real, noise, RATE, DONE)
        losses.append(metrics["loss"])
    assert losses[-1] < 0.5 * losses[0]
    for name, p in state.params.items():
        assert (p != first.params[name]).any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_learns_at_its_own_rate(kind):
    update, state, real, noise = prepared(kind)
    new, _ = update(state, real, noise, RATE, DONE)
    for name, p in new.params.items():
        # Adam's first step is the learning rate wherever the gradient is not tiny.
        largest = (p - state.params[name]).abs().max()
        wanted = RATE * (OPTIMISER.encoder_scale if name.startswith("encoder.") else 1.0)
        torch.testing.assert_close(largest, wanted, rtol=0.02, atol=0)


def test_the_parts_of_an_error_reach_the_updates_metrics():
    """By the function in the guide."""
    text = GUIDE.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(def errors.*?)^```$", text, re.MULTILINE | re.DOTALL)
    given = {"mean_squared": mean_squared}
    exec(code, given)
    _, module = world_model("mlp")

    def loss(module, batch, noise, done):
        step = lambda t, z, task: module.dynamics(module.step_input(z, batch.action_HBA[t], task))  # noqa: E731
        return sub_trajectory_loss(module, batch, step, given["errors"])

    update, real = WorldModelUpdate(module, loss, OPTIMISER), batch()
    noise = torch.zeros(H, B, 0)
    _, metrics = update(WorldModelState.initial(params(module)), real, noise, RATE, DONE)
    assert set(metrics) == {"near", "far", "loss", "consistency", "reward_loss", "grad_norm"}
    assert not any(value.requires_grad for value in metrics.values())
    rho = module.config.rho ** torch.arange(float(H))
    assert metrics["near"] != metrics["far"]
    whole = metrics["near"] + 0.1 * metrics["far"]
    torch.testing.assert_close(metrics["consistency"], whole, rtol=1 - float(rho[-1]), atol=0)
