"""The kernels that an update launches on a GPU, views excluded, are bounded: launching one takes
longer there than most of them compute. Steps are the paper's; widths do not count.

The kernels are those that the CPU runs, with the two layers that differ there as on a GPU.
"""

import pytest
import torch
import torch.nn.functional as F
from pairs import DONE, OPTIMISER, B, batch, pair, params, policy, problem, stack, world_model
from torch.utils._pytree import tree_flatten, tree_unflatten

from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.schema import PolicyLearningConfig
from fmbpo.nn import blocks
from fmbpo.nn.compiled import compiling
from fmbpo.nn.mish import Mish
from fmbpo.pwm.critic import Critic
from fmbpo.pwm.policy import CellState, PolicyUpdate, Rates
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate
from fmbpo.replay.recorder import Recording

H = 16
SETTINGS = {"mlp": {}, "flow": {"solver": "heun", "substeps": 4}}
RATE = torch.tensor(1e-3)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch, uncompiled):
    monkeypatch.setattr(Mish, "forward", lambda self, x: F.mish(x))
    monkeypatch.setattr(
        blocks, "simnorm", lambda x, n=8: x.unflatten(-1, (-1, n)).softmax(-1).flatten(-2)
    )


def check(most, update, *args):
    """``most``: without compiled kernels, and with them."""
    leaves, spec = tree_flatten(args)
    for bound, on in zip(most, (False, True), strict=True):

        def flat(*inputs, on=on):
            with compiling(on):
                return tree_flatten(update(*tree_unflatten(list(inputs), spec)))[0]

        with torch.no_grad():
            assert 0.9 * bound < len(Recording(flat, leaves).recorder.kernels) <= bound


@pytest.mark.parametrize(("kind", "most"), [("mlp", (580, 490)), ("flow", (4050, 3550))])
def test_pretraining(kind, most):
    component, module = world_model(kind, **SETTINGS[kind])
    update = WorldModelUpdate(module, component.loss, OPTIMISER)
    noise = torch.randn(H, B, module.loss_noise_dim)
    check(
        most, update, WorldModelState.initial(params(module)), batch(horizon=H), noise, RATE, DONE
    )


MOST = {
    ("mlp", "mlp"): (3300, 2550),
    ("mlp", "flow"): (4600, 3450),
    ("flow", "mlp"): (6800, 5700),
    ("flow", "flow"): (8100, 6550),
}


@pytest.mark.parametrize(
    ("world_kind", "policy_kind", "most", "cells"),
    [
        *((*pair, most, 3) for pair, most in MOST.items()),
        ("mlp", "mlp", MOST["mlp", "mlp"], 1),
        *(
            pytest.param(*pair, most, 1, marks=pytest.mark.endurance)
            for pair, most in MOST.items()
            if "flow" in pair
        ),
    ],
)
def test_policies(world_kind, policy_kind, most, cells):
    """32 critic steps of critics with two hidden layers; stacking cells adds few."""
    model = world_model(world_kind, **SETTINGS[world_kind])
    learning = PolicyLearningConfig(batch=B, horizon=H)
    critic, conventions = Critic(16, [16, 16]), ConventionsConfig()
    update = PolicyUpdate(pair(model, policy(policy_kind)), critic, learning, conventions)
    critics = stack([params(Critic(16, [16, 16])) for _ in range(3)])
    state = stack([CellState.initial(params(policy(policy_kind)[1]), critics)] * cells)
    _, _, start = problem(world_kind, policy_kind, cells=cells)
    widths = update.pair.policy.noise_dim, update.pair.world_model.noise_dim
    drawn = [torch.randn(cells, H, B, width) for width in widths]
    start = start._replace(policy_noise_HBN=drawn[0], model_noise_HBN=drawn[1])
    check(most, update, state, start, Rates(RATE, RATE))
