"""MPPI in the learned model: optima known by hand, bounds, cells apart, noise, divergence."""

from types import SimpleNamespace

import attrs
import numpy as np
import pytest
import torch
from pairs import (
    DIMS,
    LEARNING,
    PAIRS,
    B,
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

from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.schema import PlanningConfig
from fmbpo.hookspecs import Prediction, Rollout
from fmbpo.nn import two_hot
from fmbpo.pwm.acting import Actors
from fmbpo.pwm.mppi import MPPI, PlanNoise, mppi_act
from fmbpo.pwm.pair import Pair
from fmbpo.pwm.start import Start
from fmbpo.tasks.mt30 import SUITE
from fmbpo.tasks.vector import EpisodeRunner

each_pair = pytest.mark.parametrize(("world", "kind"), PAIRS)
SMALL = {"samples": 48, "elites": 8, "policy_samples": 4, "iterations": 3}
SHARP = {"iterations": 12, "temperature": 5.0, "min_std": 0.02, "elites": 32, "samples": 512}
CELLS, EPISODES = 3, 2


# --- A world known by heart: z' = z + a, r = -cost |a - target - index / 10|^2


class World(nn.Module):
    latent_dim, task_dim, noise_dim = 2, 1, 2

    def __init__(self, cost=1.0, target=(0.0, 0.0), noisy=0.0, broken_above=9.0):
        super().__init__()
        self.cost = nn.Parameter(torch.tensor(cost))
        self.target = nn.Parameter(torch.tensor(target))
        self.noisy, self.broken_above = noisy, broken_above

    def embed(self, index):
        return 0.1 * index.unsqueeze(-1)

    def encode(self, obs, embedding):
        assert len(obs) == len(embedding)
        return obs[..., :2]

    def predict(self, z, action, task, noise):
        assert len(z) == len(action) == len(task.embedding_BE) == len(task.index_B)
        wanted = self.target + task.embedding_BE + self.noisy * noise
        reward = -self.cost * ((action - wanted) * task.mask_BA).square().sum(-1)
        broken = (action * task.mask_BA > self.broken_above).any(-1, keepdim=True)
        logits = two_hot.two_hot(reward).clamp(min=1e-30).log()
        # Row by row as broken as the action: both results, so that what follows is lost too.
        return Prediction(*(torch.where(broken, torch.nan, x) for x in (z + action, logits)))


class Policy(nn.Module):
    noise_dim = 2

    def __init__(self, bias=0.0, gain=0.0):
        super().__init__()
        self.bias, self.gain = nn.Parameter(torch.tensor(bias)), nn.Parameter(torch.tensor(gain))

    def predict(self, z, task, noise):
        return (self.bias + self.gain * z + 0.1 * noise).clamp(-1, 1) * task.mask_BA


class Value(nn.Module):
    """``-weight |z - goal|^2``."""

    def __init__(self, weight=0.0, goal=0.0):
        super().__init__()
        self.weight, self.goal = (
            nn.Parameter(torch.tensor(weight)),
            nn.Parameter(torch.tensor(goal)),
        )

    def forward(self, z):
        return -self.weight * (z - self.goal).square().sum(-1)


def planner_of(pair, critic, discount=LEARNING.discount, imagined_reward="real", **planning):
    """A planner with these keys of ``[planning]``."""
    learning = attrs.evolve(LEARNING, discount=discount)
    conventions = ConventionsConfig(imagined_reward=imagined_reward)
    return MPPI(pair, critic, PlanningConfig(**planning), learning, conventions)


def known_pair(world, policy):
    """They have ``predict`` alone, which is all that a planner needs."""
    model_hooks = SimpleNamespace(predict=World.predict)
    hooks = SimpleNamespace(predict=Policy.predict, rollout=None, loss=None)
    return Pair(world, model_hooks, policy, hooks)


def known(world, policy=None, values=None, rows=1, obs=0.0, mask=(1.0, 1.0), tasks=0, **settings):
    """A planner in the known world, and what its ``plan`` takes before the previous plan."""
    policy = policy or Policy()
    planner = planner_of(known_pair(world, policy), Value(), **{**SHARP, **settings})
    start = (
        torch.full((rows, 2), obs),
        torch.arange(rows) * tasks,
        torch.tensor(mask).expand(rows, 2),
    )
    critics = stack([params(value) for value in values or [Value()]])
    return planner, (params(policy), critics, params(world), *start)


def planned(planner, args, previous=None, noise=None, seed=0):
    rows, width = args[-1].shape
    none = torch.empty(0, rows, width) if previous is None else previous
    given = noise or planner.noise(rows, width, torch.Generator().manual_seed(seed))
    plan, memory = planner.plan(*args[:3], (), *args[3:], none, given)
    assert memory == ()  # the model does not remember
    return plan


@pytest.mark.parametrize("target", [(0.4, -0.7), (0.0, 1.0)])
def test_finds_the_best_action_of_every_step(target):
    plan = planned(*known(World(target=target), Policy(-0.3), rows=3, tasks=1))
    assert plan.shape == (3, 3, 2)
    wanted = torch.tensor(target) + 0.1 * torch.arange(3).unsqueeze(-1)
    torch.testing.assert_close(plan, wanted.clamp(max=1).expand_as(plan), rtol=0, atol=0.03)


def test_weighs_rewards_against_the_value_at_the_horizon():
    """``max Σ -γ^t c a_t² - γ^H (z_0 + Σ a_t - g)²``: the discounts spread the way over time."""
    discount, cost, goal, z, horizon = 0.6, 0.3, 1.5, -0.5, 3
    plan = planned(*known(World(cost=cost), values=[Value(1.0, goal)], obs=z, discount=discount))
    powers = discount ** (horizon - torch.arange(horizon))
    expected = powers / cost * (goal - z) / (1 + powers.sum() / cost)
    assert expected.max() > expected.min() + 0.3
    wanted = expected.view(-1, 1, 1).expand_as(plan)
    torch.testing.assert_close(plan, wanted, rtol=0, atol=0.05)


def test_with_a_horizon_of_one_goes_to_the_state_of_best_value():
    """The least of the critics is best at 2/15, their mean at 0, each alone at 0.8 and -0.2."""
    values = [Value(1.0, (0.8, 0.0)), Value(4.0, (-0.2, 0.0))]
    planner, args = known(World(cost=0.0), values=values, mask=(1.0, 0.0), horizon=1)
    (action,) = planned(planner, args)
    torch.testing.assert_close(action, torch.tensor([[2 / 15, 0.0]]), rtol=0, atol=0.03)


@pytest.mark.parametrize("scale", ["real", "symlog"])
def test_the_reward_counts_in_the_scale_that_is_set(scale):
    world, value = World(cost=8.0, target=(-0.6, 0.0)), Value(2.0, 0.9)
    planner, args = known(
        world, values=[value], mask=(1.0, 0.0), horizon=1, imagined_reward=scale, discount=1.0
    )
    grid = torch.linspace(-1, 1, 2001)
    reward = -8 * (grid + 0.6).square()
    total = (two_hot.symlog(reward) if scale == "symlog" else reward) - 2 * (grid - 0.9).square()
    found = planned(planner, args)[0, 0, 0]
    torch.testing.assert_close(found, grid[total.argmax()], rtol=0, atol=0.03)


def test_one_plan_by_hand():
    """H = 1, one action dimension: iterations, elites, weights, bounds of the spread."""
    settings = {"samples": 7, "elites": 3, "policy_samples": 2, "iterations": 3, "horizon": 1}
    settings |= {"temperature": 1.7, "min_std": 0.3, "max_std": 0.5}
    planner, args = known(World(target=(0.7, 0.0)), Policy(-0.2), mask=(1.0, 0.0), **settings)
    noise = planner.noise(1, 2, torch.Generator().manual_seed(4))
    own = np.array([-0.2, -0.2 + 0.1 * float(noise.policy_HPBN[0, 0, 0, 0])])
    mean, std, stds = -0.2, 0.5, []
    for drawn in noise.sample_IHSBA[:, 0, :, 0, 0].numpy():
        actions = np.concatenate([(mean + std * drawn).clip(-1, 1), own])
        elites = np.sort(-((actions - 0.7) ** 2))[-3:]
        best = actions[np.argsort((actions - 0.7) ** 2)[:3]]
        weights = np.exp(1.7 * (elites[::-1] - elites[-1]))
        mean = np.average(best, weights=weights)
        stds.append(np.sqrt(np.average((best - mean) ** 2, weights=weights)))
        std = stds[-1].clip(0.3, 0.5)
    assert min(stds) < 0.3
    assert float(planned(planner, args, noise=noise)[0, 0, 0]) == pytest.approx(mean, abs=1e-5)


def quiet(planner, rows=1):
    """No noise for anything: the samples are the mean."""
    return PlanNoise(*map(torch.zeros_like, planner.noise(rows, 2, torch.Generator())))


def test_begins_with_the_policy_and_goes_on_with_the_last_plan():
    world, policy = World(target=(0.4, 0.4)), Policy(bias=0.2, gain=0.5)
    planner, args = known(world, policy, elites=1)
    z, own = torch.zeros(1, 2), []
    for _ in range(3):
        own.append(0.2 + 0.5 * z)
        z = z + own[-1]
    own = torch.stack(own)
    torch.testing.assert_close(planned(planner, args, noise=quiet(planner)), own)
    previous = torch.tensor([9.0, 0.3, 0.35]).view(3, 1, 1).expand(3, 1, 2)
    plan = planned(planner, args, previous, quiet(planner))
    torch.testing.assert_close(plan, torch.cat([previous[1:], own[2:]]))


def test_a_plan_is_carried_from_step_to_step_until_step_0():
    """The candidates are what is left of the plan and the policy's actions 0.2, 0.3, 0.45."""
    pair = known_pair(World(target=(0.45, 0.45)), Policy(0.2, 0.5))
    planner = planner_of(pair, Value(), policy_samples=1, elites=1, min_std=0.0, max_std=1e-6)
    policies, critics = stack([params(pair.policy)]), stack([stack([params(Value())])])
    actors = Actors(pair, policies, {}, torch.zeros(1, dtype=torch.long), torch.ones(1, 2))
    act = mppi_act(planner, actors, critics, seed=0)
    actions = [act(np.zeros((1, 1, 2), np.float32), step)[0, 0, 0] for step in (0, 1, 2, 0, 1)]
    np.testing.assert_allclose(actions, [0.2, 0.3, 0.45, 0.2, 0.3], atol=1e-4)


def test_the_policys_noisy_rollouts_are_candidates():
    planner, args = known(World(target=(0.4, 0.4)), Policy(0.2), elites=1, policy_samples=3)
    noise = quiet(planner)
    noise.policy_HPBN[:, 1] = torch.tensor([2.0, 1.5, 1.0]).view(3, 1, 1)
    plan = planned(planner, args, noise=noise)
    torch.testing.assert_close(plan[:, 0, 0], torch.tensor([0.4, 0.35, 0.3]))


def test_candidates_of_a_row_share_the_models_noise():
    """Reward for meeting the noise: with one iteration the plan meets that of its row."""
    settings = {"iterations": 1, "samples": 4096, "temperature": 500.0, "elites": 4, "horizon": 2}
    planner, args = known(World(noisy=0.3), rows=4, mask=(1.0, 0.0), **settings)
    noise = planner.noise(4, 2, torch.Generator().manual_seed(0))
    wanted = (0.3 * noise.model_IHBN[1, ..., 0]).clamp(-1, 1)
    assert wanted.std() > 0.1
    plan = planned(planner, args, noise=noise)[..., 0]
    torch.testing.assert_close(plan, wanted, rtol=0, atol=0.1)


@pytest.mark.parametrize("bias", [-0.2, 0.9])
def test_a_sequence_that_diverges_never_wins(bias):
    """The best actions lie where the model breaks; the policy's do or do not."""
    world = World(target=(0.9, 0.0), broken_above=0.5)
    plan = planned(*known(world, Policy(bias), mask=(1.0, 0.0)))[..., 0]
    assert (plan <= 0.5).all()
    assert (plan > 0.3).all()


def test_where_everything_diverges_the_plan_says_so():
    planner, args = known(World(), rows=2)
    args[3][1] = torch.nan
    plan = planned(planner, args)
    assert plan[:, 1].isnan().all()
    torch.testing.assert_close(plan[:, 0], torch.zeros(3, 2), rtol=0, atol=0.03)


def test_cells_with_models_of_their_own_plan_in_them():
    targets = [(0.5, -0.5), (-0.8, 0.1)]
    planner, _ = known(World())
    policies, critics = stack([params(Policy())] * 2), stack([stack([params(Value())])] * 2)
    models = stack([params(World(target=t)) for t in targets])
    actors = Actors(planner.pair, policies, models, torch.arange(2), torch.ones(2, 2))
    act = mppi_act(planner, actors, critics, seed=0)
    actions = act(np.zeros((2, 3, 2), np.float32), 0)
    expected = np.array(targets) + 0.1 * np.array([[0], [1]])
    np.testing.assert_allclose(actions, expected[:, None].repeat(3, 1), atol=0.03)


# --- The plugins of the repository


MASK_TA = (torch.arange(6) < torch.tensor([6, 2, 1]).unsqueeze(1)).float()


def prepared(world, kind, model=None, models=None, cells=slice(None), **settings):
    """``act`` of a seed: plans of some cells of tasks with 6, 2 and 1 dimensions.

    ``model``: the world model with its component; ``models``: parameters of one for each cell.
    """
    update, states, _ = problem(world, kind, cells=CELLS)
    chosen = pair(model or world_model(world), policy(kind))
    planner = planner_of(chosen, update.critic, **{**SMALL, **settings})
    policies, critics = tree_map(lambda t: t[cells], (states.policy, states.critics))
    index = torch.tensor([1, 4, 7])[cells]
    actors = Actors(chosen, policies, models or {}, index, MASK_TA[cells])
    return lambda seed: mppi_act(planner, actors, critics, seed)


def observations(steps):
    return np.random.default_rng(0).normal(size=(steps, CELLS, EPISODES, 24)).astype(np.float32)


def run(act, obs):
    return np.stack([act(o, t) for t, o in enumerate(obs)])


def masked():
    """Of the actions of a step: where the task has no such dimension."""
    return (MASK_TA == 0).numpy()[:, None].repeat(EPISODES, 1)


@each_pair
def test_the_plan_scores_at_least_what_the_policy_does(world, kind):
    """The scores are imagination's own returns, of the policy and of the plan replayed."""
    update, states, starts = problem(world, kind, cells=1)
    state, start = one_cell((states, starts))
    still = map(torch.zeros_like, (start.policy_noise_HBN, start.model_noise_HBN))
    start = Start(*start[:3], *still, start.done)
    planner = planner_of(update.pair, update.critic, **{**SMALL, "samples": 256})
    args = state.policy, state.critics, {}, *start[:3]
    plan = planned(planner, args)

    def replay(module, z, partner, task, noise):
        latents, logits = [z], []
        for t in range(len(plan)):
            step = partner(t, latents[-1], plan[t])
            latents.append(step.state)
            logits.append(step.reward_BR)
        return Rollout(torch.stack(latents), plan, torch.stack(logits))

    def score(update):
        _, (imagined, *_) = update.actor_loss(state.policy, state.critics, state.scale, start, {})
        return imagined.return_B

    component, module = policy(kind)
    replayed = pair(world_model(world), (attrs.evolve(component, rollout=replay), module))
    gain = score(policy_update(replayed)) - score(update)
    assert gain.shape == (B,)
    assert (gain > 0).all()


@each_pair
def test_actions_are_bounded_and_masked(world, kind):
    actions = run(prepared(world, kind, max_std=3.0)(seed=0), observations(3))
    assert actions.shape == (3, CELLS, EPISODES, DIMS.action)
    assert actions.dtype == np.float32
    assert (np.abs(actions) <= 1).all()
    assert (actions[:, masked()] == 0).all()
    assert (actions[:, ~masked()] != 0).all()


@pytest.mark.parametrize("elites", [33, 37, 41])
def test_bounds_hold_where_the_best_lies_beyond(elites):
    """Also against rounding: the elites' weights may sum to a little more than 1."""
    plan = planned(*known(World(target=(3.0, 0.0)), rows=9, elites=elites))[..., 0]
    assert (plan <= 1).all()
    assert (plan > 0.95).all()


@pytest.mark.parametrize(
    ("world", "kind", "own"),
    [
        # Any two of the three choices meet.
        ("mlp", "mlp", False),
        ("mlp", "flow", True),
        ("flow", "mlp", True),
        ("flow", "flow", False),
    ],
)
def test_cells_stacked_equal_each_alone(world, kind, own):
    """With models of their own, each alone has its model as the module."""
    models = [world_model(world, seed=cell) for cell in range(CELLS)]
    obs = observations(3)
    given = stack([params(module) for _, module in models]) if own else None
    together = run(prepared(world, kind, models=given)(seed=0), obs)
    for cell in range(CELLS):
        one = slice(cell, cell + 1)
        alone = prepared(world, kind, model=models[cell] if own else None, cells=one)
        np.testing.assert_allclose(together[:, one], run(alone(seed=0), obs[:, one]), atol=1e-4)


def test_the_seed_decides_and_step_0_begins_anew():
    of_seed, obs = prepared("mlp", "flow"), observations(3)
    act = of_seed(5)
    first = run(act, obs)
    assert (first == run(of_seed(5), obs)).all()
    torch.manual_seed(123)  # torch's own stream has no part in it
    assert (first == run(act, obs)).all()
    other = run(of_seed(6), obs)
    assert (first[:, ~masked()] != other[:, ~masked()]).all()


def test_a_stochastic_world_model_is_planned_in():
    model = world_model("flow", source="noise", endpoint_coef=0.0)
    assert model[1].noise_dim > 0
    of_seed = prepared("flow", "mlp", model=model)
    actions = run(of_seed(0), observations(2))
    assert np.isfinite(actions).all()
    assert (actions == run(of_seed(0), observations(2))).all()


def test_decides_in_the_simulator():
    of_seed = prepared("mlp", "mlp")
    tasks = ["walker-stand", "reacher-easy", "cartpole-balance"]
    with EpisodeRunner(0, SUITE) as runner:
        returns = [runner.run(of_seed(0), tasks, [1, 2], 4) for _ in range(2)]
    assert returns[0].shape == (CELLS, EPISODES, 4)
    assert (returns[0] == returns[1]).all()
    assert np.isfinite(returns[0]).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"horizon": 0}, "must be positive"),
        ({"iterations": 0}, "must be positive"),
        ({"samples": 0}, "must be positive"),
        ({"policy_samples": 0}, "must be positive"),
        ({"temperature": 0.0}, r"must be in \(0, 1000000\]"),
        ({"elites": 537}, "elites must be at most samples"),
        ({"min_std": 2.1}, "min_std must be at most max_std"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        PlanningConfig(**wrong)
