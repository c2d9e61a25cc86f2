"""World models with memory, real steps, critics with actions, and episodes that end."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import (
    DIMS,
    DONE,
    LEARNING,
    RATES,
    WIDTHS,
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
from sound import Memory, Soft
from torch.func import functional_call

from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.schema import PlanningConfig
from fmbpo.errors import UserError
from fmbpo.hookspecs import CONTINUE, LOG_PROB, Batch, PolicyDims, Task
from fmbpo.nn.returns import td_lambda, weights
from fmbpo.nn.state import along, latents
from fmbpo.pwm.acting import Actors
from fmbpo.pwm.mppi import MPPI, mppi_act
from fmbpo.pwm.pair import Pair
from fmbpo.pwm.policy import CellState, PolicyUpdate
from fmbpo.pwm.start import Start
from fmbpo.replay import Replayed
from fmbpo.running import collecting_policies
from fmbpo.running.trained_policies import LoadedPolicy, TrainedPolicy
from fmbpo.tasks.mt30 import SUITE

CELLS = 2
STEPS = 4
"""``warm_up`` and ``real_steps``, two each."""


@pytest.fixture(scope="module")
def made():
    """An update of a policy with critics of its own in a model that remembers."""
    torch.manual_seed(0)
    world, policy = Memory(), Soft()
    model = world.build(world.Config(**WIDTHS), DIMS)
    with torch.no_grad():
        model.reward[-1].weight.normal_(std=0.3)
    module = policy.build(policy.Config(units=[16, 8]), PolicyDims(16, 4, 6))
    pair = Pair(model, world, module, policy)
    update = PolicyUpdate(pair, module.build_critic([16]), LEARNING, ConventionsConfig())
    states, starts = [], []
    for cell in range(CELLS):
        torch.manual_seed(cell)
        critics = stack([params(module.build_critic([16])) for _ in range(2)])
        fresh = policy.build(policy.Config(units=[16, 8]), PolicyDims(16, 4, 6))
        states.append(CellState.initial(params(fresh), critics))
        real = batch(cell, horizon=STEPS)
        noises = torch.randn(H + 1, B, module.noise_dim), torch.empty(H, B, 0)
        obs = real.obs_HBO[model.warm_up]
        own = torch.randn(B, module.loss_noise_dim)
        starts.append(Start(obs, real.index_B, real.mask_BA, *noises, DONE, real, own))
    return update, stack(states).laid_out(), stack(starts)


def test_imagination_begins_behind_the_warm_up_and_the_loss_sees_the_steps_from_there(made):
    update, states, starts = made
    state, start = one_cell((states, starts))
    imagined, context = update.imagine(state.policy, state.critics, start, {})
    real, model = start.real, update.pair.world_model
    task = Task(real.index_B, real.mask_BA, model.embed(real.index_B))
    z = latents(model, real.obs_HBO, real.action_HBA, task)
    torch.testing.assert_close(imagined.rollout.z_HBD[0], z[2])
    torch.testing.assert_close(context.real.z_HBD, z[2:])
    assert torch.equal(context.real.action_HBA, real.action_HBA[2:])
    assert context.done == DONE
    assert torch.equal(context.loss_noise_BN, start.loss_noise_BN)
    other = real._replace(obs_HBO=torch.cat([real.obs_HBO[:1] + 1, real.obs_HBO[1:]]))
    moved, _ = update.imagine(state.policy, state.critics, start._replace(real=other), {})
    assert not torch.equal(moved.rollout.reward_HBR[0], imagined.rollout.reward_HBR[0])


def test_critics_of_the_policys_own_value_its_actions(made):
    update, states, starts = made
    state, start = one_cell((states, starts))
    imagined, context = update.imagine(state.policy, state.critics, start, {})
    assert imagined.action_HBA.shape == (H + 1, B, 6)
    z, action = imagined.rollout.z_HBD[-1], imagined.action_HBA[-1]
    each = [
        functional_call(update.critic, {k: v[c] for k, v in state.critics.items()}, (z, action))
        for c in range(2)
    ]
    torch.testing.assert_close(imagined.value_B, torch.minimum(*each))
    torch.testing.assert_close(context.values(z, action), torch.stack(each))


def test_targets_of_the_policys_own_have_its_entropy_in_them(made):
    update, states, starts = made
    state, start = one_cell((states, starts))
    imagined, context = update.imagine(state.policy, state.critics, start, {})
    found = update.targets(state.policy, state.critics, imagined)
    values = context.values(imagined.rollout.z_HBD[1:], imagined.action_HBA[1:]).amin(0)
    reward = imagined.reward_HB - 0.01 * imagined.rollout.extras[LOG_PROB]
    lam = torch.full_like(reward, LEARNING.lam)
    torch.testing.assert_close(found, td_lambda(reward, values, LEARNING.discount, lam))


def test_an_update_of_stacked_cells_is_that_of_each_and_is_replayed_to_the_bit(made):
    update, states, starts = made
    replayed = Replayed(update.__call__, "the update", required=True, say=print)
    new, metrics = update(states, starts, RATES)
    for _ in range(2):
        fast, same = replayed(states, starts, RATES)
    for name, value in new.policy.items():
        assert torch.equal(value, fast.policy[name]), name
    assert torch.equal(metrics["critic_loss"], same["critic_loss"])
    assert torch.isfinite(metrics["imagined_log_prob"]).all()
    alone, _ = update(*(stack([one_cell(x)]) for x in (states, starts)), RATES)
    torch.testing.assert_close(one_cell(alone.policy), one_cell(new.policy), rtol=1e-4, atol=1e-6)


def test_acting_remembers_the_episode(made):
    update, states, _ = made
    model, pair = update.pair.world_model, update.pair
    index, mask = torch.tensor([0, 3]), torch.ones(CELLS, 6)
    actors = Actors(pair, states.policy, {}, index, mask)
    obs = np.random.default_rng(0).normal(size=(3, CELLS, B, 24)).astype(np.float32)
    act = actors.deterministic()
    found = [act(obs[t], t) for t in range(3)]
    task = Task(index[:1].expand(B), mask[:1].expand(B, -1), model.embed(index[:1].expand(B)))
    actions = torch.from_numpy(np.stack(found))[:, 0]
    seen = along(model, torch.from_numpy(obs[:, 0]), actions[:2], task)
    own = {k: v[0] for k, v in states.policy.items()}
    still = torch.zeros(B, pair.policy.noise_dim)
    for t, state in enumerate(seen):
        wanted = pair.act(own, model.latent(state), task, still)
        torch.testing.assert_close(actions[t], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(act(obs[0], 0), found[0])  # a new episode
    planner = MPPI(
        pair, update.critic, PlanningConfig(samples=4, elites=2, policy_samples=2, iterations=1),
        LEARNING, ConventionsConfig(),
    )  # fmt: skip
    planned = mppi_act(planner, actors, states.critics, seed=0)
    first, second = planned(obs[0], 0), planned(obs[1], 1)
    planned(obs[2], 0)
    assert np.abs(planned(obs[1], 1) - second).max() > 1e-6  # it began with another observation
    np.testing.assert_array_equal(planned(obs[0], 0), first)


def test_a_loaded_policy_remembers_its_episodes_until_it_is_reset(made, monkeypatch):
    update, states, _ = made
    index, mask = torch.tensor([0]), torch.ones(1, 6)
    actors = Actors(update.pair, stack([one_cell(states.policy)]), {}, index, mask)
    policy = LoadedPolicy(actors, SUITE.tasks[0], SUITE, 0)
    monkeypatch.setattr(collecting_policies, "_loaded", lambda _: policy)
    trained = TrainedPolicy(Path("run"), "walker-stand", "1")
    agent = collecting_policies.RunAgent({trained.task: [trained]}, {})
    obs = np.random.default_rng(0).normal(size=(2, 24)).astype(np.float32)
    first, second = policy.act(obs[0]), policy.act(obs[1])
    with pytest.raises(UserError, match=r"2 episodes, after those of 1\n.*call reset\(\)"):
        policy.act(obs)
    for episode in range(2):
        act = agent.policy(trained.task, episode)
        np.testing.assert_array_equal(act(0, obs[0]), first)
        np.testing.assert_array_equal(act(1, obs[1]), second)
    policy.reset()
    assert np.abs(policy.act(obs[1]) - second).max() > 1e-6  # an episode's first observation


def test_an_episode_that_may_end_counts_less():
    reward, value = torch.rand(H, B), torch.rand(H, B)
    lam = torch.full_like(reward, 0.9)
    ones = torch.ones_like(reward)
    usual = td_lambda(reward, value, 0.99, lam)
    torch.testing.assert_close(td_lambda(reward, value, 0.99, lam, ones), usual)
    torch.testing.assert_close(weights(0.99, reward, ones), weights(0.99, reward).expand(-1, B))
    over = ones.clone()
    over[1] = 0.0  # the episode ends after the second step
    found = td_lambda(reward, value, 0.99, lam, over)
    torch.testing.assert_close(found[1], reward[1])
    wanted = reward[0] + 0.99 * (0.1 * value[0] + 0.9 * reward[1])
    torch.testing.assert_close(found[0], wanted)
    assert weights(0.5, reward, over)[:, 0].tolist() == [1.0, 0.5, 0.0]


class _Ending(Memory):
    """Every step ends an episode with probability 0.25."""

    def predict(self, module, state, action, task, noise):
        found = super().predict(module, state, action, task, noise)
        goes_on = 0.75 * torch.ones_like(found.reward_BR[:, 0])
        return found._replace(extras={CONTINUE: goes_on})


def test_the_return_is_weighted_by_the_probability_of_getting_there(made):
    update, states, starts = made
    state, start = one_cell((states, starts))
    model, policy = update.pair.world_model, update.pair.policy
    pair = Pair(model, _Ending(), policy, Soft())
    ending = PolicyUpdate(pair, update.critic, LEARNING, ConventionsConfig())
    imagined, _ = ending.imagine(state.policy, state.critics, start, {})
    gamma = 0.75 * LEARNING.discount
    wanted = sum(gamma**t * imagined.reward_HB[t] for t in range(H))
    torch.testing.assert_close(imagined.return_B, wanted + gamma**H * imagined.value_B)


@pytest.mark.parametrize("kind", ["mlp", "flow"])
def test_an_update_in_a_model_that_predicts_ends_is_replayed_to_the_bit(kind):
    model, (_, states, starts) = world_model(kind, continuation_coef=1.0), problem("mlp", "mlp")
    update = policy_update(pair(model, policy("mlp")))
    replayed = Replayed(update.__call__, "the update", required=True, say=print)
    new, metrics = update(states, starts, RATES)
    for _ in range(2):
        fast, _ = replayed(states, starts, RATES)
    for name, value in new.policy.items():
        assert torch.equal(value, fast.policy[name]), name
    assert (metrics["imagined_continue"] > 0).all()
    assert (metrics["imagined_continue"] < 1).all()


def test_some_rows_of_a_start(made):
    _, _, starts = made
    some = starts.of_rows(slice(1, 3))
    assert isinstance(some.real, Batch)
    assert torch.equal(some.real.obs_HBO, starts.real.obs_HBO[:, :, 1:3])
    assert torch.equal(some.real.mask_BA, starts.real.mask_BA[:, 1:3])
    assert torch.equal(some.loss_noise_BN, starts.loss_noise_BN[:, 1:3])
    assert torch.equal(some.policy_noise_HBN, starts.policy_noise_HBN[:, :, 1:3])
