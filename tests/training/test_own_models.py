"""Cells with world models of their own (finetuned, scratch): stacked equals apart, one graph."""

import attrs
import pytest
import torch
from pairs import (
    LEARNING,
    ONE_PASS,
    OPTIMISER,
    PAIRS,
    RATES,
    B,
    H,
    batch,
    params,
    problem,
    stack,
    world_model,
)
from torch.utils._pytree import tree_leaves, tree_map

from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate

CELLS = 2
each_pair = pytest.mark.parametrize(("world", "policy"), PAIRS)
stale = pytest.mark.parametrize("stale", [False, True])


def prepared(world, policy, stale=False, learning=LEARNING):
    """A joint step as ``PolicyTraining.step`` makes it, and its arguments."""
    policy_update, states, starts = problem(world, policy, cells=CELLS, learning=learning)
    component, module = world_model(world)
    optimiser = attrs.evolve(OPTIMISER, encoder_scale=1.0)
    model_update = WorldModelUpdate(module, component.loss, optimiser, stacked=True)

    def step(models, states, batches, noise, starts):
        models, measured = model_update(models, batches, noise, RATES.actor)
        states, metrics = policy_update(states, starts, RATES, models.params)
        return models, states, measured, metrics

    models = stack(
        [WorldModelState.initial(params(world_model(world, seed=s)[1]), stale) for s in (1, 2)]
    )
    batches = stack([batch(seed) for seed in (3, 4)])
    torch.manual_seed(0)
    noise = torch.randn(CELLS, H, B, module.loss_noise_dim)
    return step, (models, states, batches, noise, starts)


def close(a, b):
    for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=2e-5)


@each_pair
@stale
def test_training_stacked_equals_training_apart(world, policy, stale):
    step, given = prepared(world, policy, stale)
    together = step(*given)
    together = step(together[0], together[1], *given[2:])
    for cell in range(CELLS):
        one = tree_map(lambda t, c=cell: t[c : c + 1], given)
        alone = step(*one)
        alone = step(alone[0], alone[1], *one[2:])
        close(tree_map(lambda t, c=cell: t[c : c + 1], together), alone)


@pytest.mark.parametrize(("world", "policy"), [("mlp", "mlp"), ("flow", "flow")])
def test_compiles_as_one_graph_and_equals_eager(world, policy):
    """One pair of each kind: in tests/pwm/test_policy.py every pair's policy update compiles."""
    torch._dynamo.reset()
    step, given = prepared(world, policy, learning=ONE_PASS)
    compiled = torch.compile(step, fullgraph=True, backend="eager")
    close(compiled(*given), step(*given))


@each_pair
def test_the_policy_learns_in_its_own_model_and_the_shared_one_stays(world, policy):
    step, given = prepared(world, policy)
    models, states, *_ = step(*given)
    swapped = tree_map(lambda t: t.flip(0), given[0])
    _, others, *_ = step(swapped, *given[1:])
    for name in states.policy:
        if name.endswith("weight"):
            assert not torch.equal(states.policy[name], others.policy[name]), name
    assert all((models.params[k] != given[0].params[k]).any() for k in models.params)
