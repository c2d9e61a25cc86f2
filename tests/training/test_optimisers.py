"""Every trainable parameter is in exactly one optimiser and receives a gradient."""

import attrs
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
    one_cell,
    pair,
    params,
    policy,
    policy_update,
    problem,
    stack,
    world_model,
)
from torch import nn
from torch.utils._pytree import tree_map

from fmbpo.pwm.optim import unflatten
from fmbpo.pwm.policy import CellState
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate

CELLS = 2
EMBEDDING = "task_embedding.weight"
each_pair = pytest.mark.parametrize(("world", "kind"), PAIRS)
each_kind = pytest.mark.parametrize("kind", KINDS)
each_way = pytest.mark.parametrize("use", [False, True], ids=["unused", "without effect"])


def names(module):
    """Parameters that a module declares."""
    return {name for name, _ in module.named_parameters()}


def second_moments(adam, params):
    """By name, for the parameters that have moments, of one model or stacked."""
    assert adam.first.shape == adam.second.shape
    return unflatten(adam.second, params)


def unlearnt(adam, params, lead=1):
    """Parameters whose second moment is 0 throughout for one of the models that are stacked
    along the first ``lead`` dimensions. There is an error if ``params`` are not those that have
    moments."""
    moments = second_moments(adam, params).items()
    moments = {name: m.flatten(0, lead - 1) if lead else m[None] for name, m in moments}
    return {name for name, m in moments.items() if not m.flatten(1).any(1).all()}


def own_models(kind, stale=False):
    """A joint world-model update as the learning protocols make it, freshly initialised models
    (the last weight of a reward head is 0), and its other arguments."""
    component, module = world_model(kind)
    initial = []
    for seed in range(CELLS):
        weights = params(world_model(kind, seed=seed)[1])
        weights["reward.2.weight"].zero_()
        initial.append(WorldModelState.initial(weights, stale))
    update = WorldModelUpdate(module, component.loss, OPTIMISER, stacked=True)
    torch.manual_seed(0)
    noise = torch.randn(CELLS, H, B, module.loss_noise_dim)
    return module, update, stack(initial), (stack([batch(s) for s in range(CELLS)]), noise)


def check_policies(update, state, lead=1):
    """Actor's and critics' optimisers have their own module's parameters, and all learnt."""
    for module, adam, learnt, depth in (
        (update.pair.policy, state.policy_adam, state.policy, lead),
        (update.critic, state.critic_adam, state.critics, lead + 1),
    ):
        assert learnt.keys() == names(module)
        assert unlearnt(adam, learnt, depth) == set()


@each_pair
def test_policies_and_critics_in_a_frozen_model(world, kind):
    update, states, starts = problem(world, kind, cells=CELLS)
    model = update.pair.world_model
    before = params(model)
    states, _ = update(states, starts, RATES)
    check_policies(update, states)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]), name
        assert not p.requires_grad, name
        assert p.grad is None, name
    # No parameter is another module's, too.
    modules = (model, update.pair.policy, update.critic)
    owners = [{p.data_ptr() for p in module.parameters()} for module in modules]
    assert len(set.union(*owners)) == sum(map(len, owners))


@each_pair
def test_policies_critics_and_models_where_models_learn(world, kind):
    update, states, starts = problem(world, kind, cells=CELLS)
    module, model_update, models, inputs = own_models(world)
    for _ in range(2):
        models, _ = model_update(models, *inputs, RATES.actor, DONE)
        # The policy's step is none of the model's: it begins after, and leaves the model alone.
        before = tree_map(torch.clone, models.params)
        states, _ = update(states, starts, RATES, models.params)
        assert all(torch.equal(models.params[name], before[name]) for name in before)
    check_policies(update, states)
    assert models.params.keys() == names(module)
    assert unlearnt(models.adam, models.params) == set()


@each_kind
def test_world_models_learn_all_of_their_parameters(kind):
    """The reward head's last weight begins at 0, so what is before it learns one update later."""
    module, update, states, inputs = own_models(kind)
    hidden = {n for n in names(module) if n.startswith("reward.")} - {
        "reward.2.weight",
        "reward.2.bias",
    }
    assert len(hidden) == 8
    states, _ = update(states, *inputs, RATES.actor, DONE)
    assert unlearnt(states.adam, states.params) == hidden
    states, _ = update(states, *inputs, RATES.actor, DONE)
    assert states.params.keys() == names(module)
    assert unlearnt(states.adam, states.params) == set()


def test_a_flow_models_time_column_learns_at_once():
    """It begins at 0, but not its gradient: every hidden unit's weight of τ has one."""
    _, update, states, inputs = own_models("flow")
    column = "dynamics.0.linear.weight"
    assert not states.params[column][..., -1].any()
    states, _ = update(states, *inputs, RATES.actor, DONE)
    assert (second_moments(states.adam, states.params)[column][..., -1] > 0).all()
    assert states.params[column][..., -1].all()


@each_kind
def test_a_stale_task_embedding_is_in_no_optimiser(kind):
    """PWM's released convention, and the one declared exception."""
    module, update, states, inputs = own_models(kind, stale=True)
    before = states.params[EMBEDDING]
    for _ in range(2):
        states, _ = update(states, *inputs, RATES.actor, DONE)
    learns = {name: p for name, p in states.params.items() if name != EMBEDDING}
    assert learns.keys() == names(module) - {EMBEDDING}
    assert unlearnt(states.adam, learns) == set()
    torch.testing.assert_close(states.params[EMBEDDING], before, rtol=0, atol=1e-7)
    assert states.stale.keys() == {EMBEDDING}
    assert states.stale[EMBEDDING].any()


def with_idle(module, use):
    """The module with a further parameter that no loss depends on, and the loss hook's wrapper
    that touches it (``use``) all the same or leaves it alone."""
    module.register_parameter("idle", nn.Parameter(torch.ones(3)))

    def wrapped(hook):
        def loss(module, *args):
            value, metrics = hook(module, *args)
            return (value + 0.0 * module.idle.sum() if use else value), metrics

        return loss

    return wrapped


@each_way
def test_a_world_models_idle_parameter_is_found(use):
    component, module = world_model("mlp")
    wrapped = with_idle(module, use)
    update = WorldModelUpdate(module, wrapped(component.loss), OPTIMISER)
    given = (
        WorldModelState.initial(params(module)),
        batch(),
        torch.empty(H, B, 0),
        RATES.actor,
        DONE,
    )
    if not use:  # autograd itself refuses
        with pytest.raises(RuntimeError, match="not have been used"):
            update(*given)
        return
    state, _ = update(*given)
    assert unlearnt(state.adam, state.params, 0) == {"idle"}


@each_way
def test_a_policys_idle_parameter_is_found(use):
    _, states, starts = problem("mlp", "mlp", cells=1)
    component, module = policy("mlp")
    idle = attrs.evolve(component, loss=with_idle(module, use)(component.loss))
    update = policy_update(pair(world_model("mlp"), (idle, module)))
    states = stack([CellState.initial(params(module), one_cell(states.critics))])
    if not use:
        with pytest.raises(RuntimeError, match="not have been used"):
            update(states, starts, RATES)
        return
    state, _ = update(states, starts, RATES)
    with pytest.raises(AssertionError, match="idle"):
        check_policies(update, state)
