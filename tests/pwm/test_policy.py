"""The policy update: stacked equals apart, compiled equals eager, pure, and it learns."""

import pytest
import torch
from pairs import KINDS, PAIRS, RATES, SETTINGS, problem
from torch.utils._pytree import tree_leaves, tree_map

from fmbpo.pwm.policy import make_policy_update

each_pair = pytest.mark.parametrize(("world_kind", "policy_kind"), PAIRS)


def equal(a, b, **tolerance):
    for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True):
        torch.testing.assert_close(x, y, **tolerance)


@each_pair
def test_training_stacked_equals_training_apart(world_kind, policy_kind):
    roles, states, starts = problem(world_kind, policy_kind)
    update = make_policy_update(roles, SETTINGS)
    together = states
    for _ in range(3):
        together, metrics = update(together, starts, RATES)
    for cell in range(3):
        alone, start = (tree_map(lambda t, c=cell: t[c : c + 1], x) for x in (states, starts))
        for _ in range(3):
            alone, own = update(alone, start, RATES)
        mine = tree_map(lambda t, c=cell: t[c : c + 1], (together, metrics))
        equal(mine, (alone, own), rtol=1e-3, atol=2e-5)


@each_pair
def test_compiles_as_one_graph_and_equals_eager(world_kind, policy_kind):
    torch._dynamo.reset()
    roles, states, starts = problem(world_kind, policy_kind, cells=2)
    update = make_policy_update(roles, SETTINGS)
    compiled = torch.compile(update, fullgraph=True, backend="eager")
    equal(compiled(states, starts, RATES), update(states, starts, RATES), rtol=1e-3, atol=2e-5)


@each_pair
def test_is_pure(world_kind, policy_kind):
    roles, states, starts = problem(world_kind, policy_kind)
    copies = tree_map(torch.clone, (states, starts))
    update = make_policy_update(roles, SETTINGS)
    first, second = update(states, starts, RATES), update(states, starts, RATES)
    equal((states, starts), copies, rtol=0, atol=0)
    equal(first, second, rtol=0, atol=0)


@each_pair
def test_every_policy_and_critic_parameter_moves(world_kind, policy_kind):
    roles, states, starts = problem(world_kind, policy_kind)
    new, _ = make_policy_update(roles, SETTINGS)(states, starts, RATES)
    for before, after in ((states.policy, new.policy), (states.critics, new.critics)):
        for name in before:
            assert (before[name] != after[name]).any(), name


@each_pair
def test_the_imagined_return_rises(world_kind, policy_kind):
    roles, states, starts = problem(world_kind, policy_kind)
    update = make_policy_update(roles, SETTINGS)
    rewards = []
    for _ in range(60):
        states, metrics = update(states, starts, RATES)
        rewards.append(metrics["imagined_reward"].mean())
    assert rewards[-1] > rewards[0] + 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_the_world_model_stays_as_it_is(kind):
    roles, states, starts = problem(kind, "mlp")
    before = {k: v.clone() for k, v in roles.world_model.state_dict().items()}
    make_policy_update(roles, SETTINGS)(states, starts, RATES)
    for name, value in roles.world_model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(p.requires_grad for p in roles.world_model.parameters())


@each_pair
def test_noise_in_masked_actions_changes_nothing(world_kind, policy_kind):
    roles, states, starts = problem(world_kind, policy_kind)
    update = make_policy_update(roles, SETTINGS)
    first = starts.mask_BA.new_tensor([1, 0, 0, 0, 0, 0]).expand_as(starts.mask_BA)
    noise = starts.policy_noise_HBN
    other = torch.cat([noise[..., :1], noise[..., 1:] + 1], -1)
    for mask, same in ((first, True), (torch.ones_like(first), False)):
        one, two = (
            update(states, starts._replace(mask_BA=mask, policy_noise_HBN=n), RATES)[0].policy
            for n in (noise, other)
        )
        assert all(torch.equal(one[name], two[name]) for name in one) == same


def test_the_path_through_the_policys_own_input_is_cut():
    """Actions at t = 1 do not send gradients to actions at t = 0 through the policy."""
    from fmbpo.hookspecs import Prediction
    from fmbpo.nn.rollout import policy_rollout

    gain = torch.tensor(0.5, requires_grad=True)
    rollout = policy_rollout(
        lambda z, noise: gain * z,
        torch.ones(1, 1),
        lambda t, z, a: Prediction(z + a, a),
        torch.zeros(2, 1, 1),
    )
    # z1 = 1 + g, a1 = g sg(z1): da1/dg = z1 = 1.5, not 1 + 2 g = 2.
    (slope,) = torch.autograd.grad(rollout.action_HBA[1].sum(), gain)
    assert slope.item() == pytest.approx(1.5)
