"""The policy update: stacked equals apart, compiled equals eager, pure, and it learns."""

import attrs
import pytest
import torch
from pairs import PAIRS, RATES, pair, policy, policy_update, problem, world_model
from torch.func import vmap
from torch.utils._pytree import tree_leaves, tree_map

each_pair = pytest.mark.parametrize(("world_kind", "policy_kind"), PAIRS)


def equal(a, b, **tolerance):
    for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True):
        torch.testing.assert_close(x, y, **tolerance)


@each_pair
def test_training_stacked_equals_training_apart(world_kind, policy_kind):
    update, states, starts = problem(world_kind, policy_kind)
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
def test_is_pure(world_kind, policy_kind):
    update, states, starts = problem(world_kind, policy_kind)
    copies = tree_map(torch.clone, (states, starts))
    first, second = update(states, starts, RATES), update(states, starts, RATES)
    equal((states, starts), copies, rtol=0, atol=0)
    equal(first, second, rtol=0, atol=0)


@each_pair
def test_every_policy_and_critic_parameter_moves(world_kind, policy_kind):
    update, states, starts = problem(world_kind, policy_kind)
    new, _ = update(states, starts, RATES)
    for before, after in ((states.policy, new.policy), (states.critics, new.critics)):
        for name in before:
            assert (before[name] != after[name]).any(), name


@pytest.mark.parametrize(
    ("world_kind", "policy_kind"),
    [
        ("mlp", "flow"),
        ("flow", "mlp"),
        *(pytest.param(kind, kind, marks=pytest.mark.endurance) for kind in ("mlp", "flow")),
    ],
)
def test_the_imagined_return_rises(world_kind, policy_kind):
    update, states, starts = problem(world_kind, policy_kind)
    rewards = []
    for _ in range(60):
        states, metrics = update(states, starts, RATES)
        rewards.append(metrics["imagined_reward"].mean())
    assert rewards[-1] > rewards[0] + 0.01


@each_pair
def test_leaves_a_frozen_model_alone(world_kind, policy_kind):
    update, states, starts = problem(world_kind, policy_kind)
    model = update.pair.world_model
    before = {k: v.clone() for k, v in model.state_dict().items()}
    update(states, starts, RATES)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(p.requires_grad for p in model.parameters())


@each_pair
def test_padded_action_dimensions_are_0_and_have_no_part_in_the_update(world_kind, policy_kind):
    """Noise in them is not seen; nor are actions in them, which the world model is handed here."""
    update, states, starts = problem(world_kind, policy_kind)
    padded_TBA = starts.mask_BA == 0
    assert padded_TBA.any()
    assert not padded_TBA.all()
    args = states.policy, states.critics, states.scale, starts, {}
    _, (imagined, *_) = vmap(update.actor_loss)(*args)
    action_THBA = imagined.rollout.action_HBA
    padded_THBA = padded_TBA.unsqueeze(1).expand_as(action_THBA)
    assert (action_THBA[padded_THBA] == 0).all()
    assert (action_THBA[~padded_THBA] != 0).all()

    expected = update(states, starts, RATES)
    for of_padding in (True, False):
        where_THBA = padded_THBA if of_padding else ~padded_THBA
        noise = starts.policy_noise_HBN
        where_THBN = where_THBA.repeat(1, 1, 1, noise.shape[-1] // where_THBA.shape[-1])
        louder = starts._replace(policy_noise_HBN=torch.where(where_THBN, noise + 9, noise))
        handed = handing_over(world_kind, policy_kind, of_padding)
        for found in (update(states, louder, RATES), handed(states, starts, RATES)):
            same = all(map(torch.equal, tree_leaves(found), tree_leaves(expected)))
            assert same == of_padding


def handing_over(world_kind, policy_kind, of_padding):
    """The update with larger actions handed to the world model, in the padding or elsewhere."""
    component, module = world_model(world_kind)

    def predict(module, z, action, task, noise):
        where = 1 - task.mask_BA if of_padding else task.mask_BA
        return component.predict(module, z, action + 9 * where, task, noise)

    other = attrs.evolve(component, predict=predict)
    return policy_update(pair((other, module), policy(policy_kind)))


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
