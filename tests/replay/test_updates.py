"""The engine's updates replayed equal the same updates computed step by step, to the bit."""

import pytest
import torch
from pairs import (
    DONE,
    KINDS,
    OPTIMISER,
    PAIRS,
    RATES,
    B,
    H,
    batch,
    params,
    policy,
    problem,
    stack,
    world_model,
)
from torch.utils._pytree import tree_leaves, tree_map

from fmbpo.nn.compiled import compiling
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate
from fmbpo.replay import Replayed

each_pair = pytest.mark.parametrize(("world_kind", "policy_kind"), PAIRS)


def replayed(function):
    said = []
    return Replayed(function, "it", required=False, say=said.append), said


def equal(a, b):
    return all(map(torch.equal, tree_leaves(a), tree_leaves(b)))


def with_kernels(update):
    """The update with compiled kernels."""

    def kernels(*args):
        with compiling():
            return update(*args)

    return kernels


def near(a, b):
    for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=2e-4)


@each_pair
@pytest.mark.parametrize(("own_models", "kernels"), [(False, False), (True, False), (False, True)])
def test_policies(world_kind, policy_kind, own_models, kernels, uncompiled):
    update, state, starts = problem(world_kind, policy_kind)
    if kernels:
        near(with_kernels(update)(state, starts, RATES), update(state, starts, RATES))
        assert len(set(uncompiled)) == 3
        update = with_kernels(update)
    models = {}
    if own_models:
        models = stack([params(world_model(world_kind, seed=s)[1]) for s in range(3)])
    fast, said = replayed(update)
    state = other = state.laid_out()
    for step in range(4):
        torch.manual_seed(step)
        noise = torch.randn_like(starts.policy_noise_HBN)
        inputs = starts._replace(policy_noise_HBN=noise), RATES, models
        state, metrics = update(state, *inputs)
        other, found = fast(other, *inputs)
        assert equal((state, metrics), (other, found)), step
    assert not said
    assert len(fast.programs) == 1


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_world_models(kind, kernels, stale, stacked, uncompiled):
    component, module = world_model(kind)
    update = WorldModelUpdate(module, component.loss, OPTIMISER, stacked=stacked)
    update = with_kernels(update) if kernels else update
    made = [WorldModelState.initial(params(world_model(kind, seed=s)[1]), stale) for s in (1, 2)]
    state = (stack(made) if stacked else made[0]).laid_out(stacked=stacked)
    fast, said = replayed(update)
    other = state
    for step in range(4):
        real = stack([batch(step), batch(step + 9)]) if stacked else batch(step)
        torch.manual_seed(step)
        noise = torch.randn(*([2] if stacked else []), H, B, module.loss_noise_dim)
        state, metrics = update(state, real, noise, RATES.actor, DONE)
        other, found = fast(other, real, noise, RATES.actor, DONE)
        assert equal((state, metrics), (other, found)), step
    assert not said
    assert bool(uncompiled) == kernels


def test_a_state_from_a_checkpoint_continues_to_the_bit():
    """It lies in memory as no update left it; a new process records again."""
    update, state, starts = problem("mlp", "flow")
    fast, _ = replayed(update)
    undisturbed = state.laid_out()
    for _ in range(5):
        undisturbed, _ = fast(undisturbed, starts, RATES)
    state = state.laid_out()
    for step in range(5):
        if step == 3:
            fast, _ = replayed(update)
            state = tree_map(torch.clone, state).laid_out()
        state, _ = fast(state, starts, RATES)
    assert equal(state, undisturbed)


def test_results_and_inputs_stay_as_they_are_through_later_calls():
    update, state, starts = problem("flow", "mlp")
    fast, _ = replayed(update)
    kept = [(state := state.laid_out())]
    copies = [tree_map(torch.clone, state)]
    for _ in range(4):
        state, metrics = fast(state, starts, RATES)
        kept.append((state, metrics))
        copies.append(tree_map(torch.clone, (state, metrics)))
    assert equal(kept, copies)


def test_a_replay_calls_kernels_alone():
    """A policy update in a tiny MLP model: what is recorded makes no view and draws nothing."""
    update, state, starts = problem("mlp", "mlp")
    fast, _ = replayed(update)
    fast(state.laid_out(), starts, RATES)
    (program,) = fast.programs.values()
    names = {call.func.overloadpacket.__name__ for call in program.replay.calls if
             isinstance(call.func, torch._ops.OpOverload)}  # fmt: skip
    assert {"mm", "bmm", "sigmoid", "_fused_adam_"} <= names
    assert not names & {"view", "expand", "transpose", "detach", "select", "split", "full_like"}


def test_the_policy_of_a_pair_is_that_of_the_record():
    """The frozen model's parameters are read in each call, not kept as they were."""
    update, state, starts = problem("mlp", "mlp")
    fast, _ = replayed(update)
    state = state.laid_out()
    for _ in range(2):
        fast(state, starts, RATES)
    with torch.no_grad():
        for parameter in update.pair.world_model.parameters():
            parameter.mul_(1.1)
    assert policy("mlp") is not None
    assert equal(fast(state, starts, RATES), update(state, starts, RATES))
