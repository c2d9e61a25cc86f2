"""Cells with world models of their own (finetuned, scratch): stacked equals apart, one graph."""

import attrs
import pytest
import torch
from pairs import (
    DONE,
    LEARNING,
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
    """The updates of models and policies, and the arguments of both (see ``both``)."""
    policy_update, states, starts = problem(world, policy, cells=CELLS, learning=learning)
    component, module = world_model(world)
    optimiser = attrs.evolve(OPTIMISER, encoder_scale=1.0)
    model_update = WorldModelUpdate(module, component.loss, optimiser, stacked=True)

    models = stack(
        [WorldModelState.initial(params(world_model(world, seed=s)[1]), stale) for s in (1, 2)]
    )
    batches = stack([batch(seed) for seed in (3, 4)])
    torch.manual_seed(0)
    noise = torch.randn(CELLS, H, B, module.loss_noise_dim)
    return model_update, policy_update, (models, states, batches, noise, starts)


def both(*arguments, **options):
    """A joint step as ``PolicyTraining.step`` makes it, and its arguments."""
    model_update, policy_update, given = prepared(*arguments, **options)

    def step(models, states, batches, noise, starts):
        models, measured = model_update(models, batches, noise, RATES.actor, DONE)
        states, metrics = policy_update(states, starts, RATES, models.params)
        return models, states, measured, metrics

    return step, given


def close(a, b):
    for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=2e-5)


@each_pair
@stale
def test_training_stacked_equals_training_apart(world, policy, stale):
    step, given = both(world, policy, stale)
    together = step(*given)
    together = step(together[0], together[1], *given[2:])
    for cell in range(CELLS):
        one = tree_map(lambda t, c=cell: t[c : c + 1], given)
        alone = step(*one)
        alone = step(alone[0], alone[1], *one[2:])
        close(tree_map(lambda t, c=cell: t[c : c + 1], together), alone)


@each_pair
def test_the_policy_learns_in_its_own_model_and_the_shared_one_stays(world, policy):
    step, given = both(world, policy)
    models, states, *_ = step(*given)
    swapped = tree_map(lambda t: t.flip(0), given[0])
    _, others, *_ = step(swapped, *given[1:])
    for name in states.policy:
        if name.endswith("weight"):
            assert not torch.equal(states.policy[name], others.policy[name]), name
    assert all((models.params[k] != given[0].params[k]).any() for k in models.params)
