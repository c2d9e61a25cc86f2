"""The reality check, by hand and against imagination itself."""

import math

import attrs
import numpy as np
import pytest
import torch
from pairs import DIMS, LEARNING, PAIRS, WIDTHS, H, policy, policy_update, problem
from scipy import stats
from sound import Memory
from torch.utils._pytree import tree_map

from fmbpo.hookspecs import Task
from fmbpo.measure import reality
from fmbpo.measure.evaluation import Recorded
from fmbpo.measure.health import reality_health
from fmbpo.measure.reality import Visited, check, imagine, predict, rank_correlation
from fmbpo.nn.state import latents
from fmbpo.pwm.acting import Actors
from fmbpo.pwm.optim import Params
from fmbpo.pwm.pair import Pair
from fmbpo.pwm.start import Past
from fmbpo.runs.summary import Gap, RealityCheck
from fmbpo.tasks.mt30 import MT30

CELLS, EPISODES, STEPS = 2, 7, 12
DISCOUNT = LEARNING.discount


def past(obs_TEO):
    """A single observation of each episode."""
    obs = torch.from_numpy(obs_TEO.astype(np.float32))
    return Past(obs.unsqueeze(1), torch.zeros(len(obs), 0, obs.shape[1], 6))


def visited(steps=STEPS, every=5):
    generator = np.random.default_rng(0)
    reward = generator.uniform(0, 2, (CELLS, EPISODES, steps))
    shape = CELLS, EPISODES, 24
    return Visited(reward, {t: past(generator.normal(size=shape)) for t in range(0, steps, every)})


def imagined(world, policy, seen, own=False):
    """What two cells imagine, and the update; ``own``: with world models of their own."""
    update, state, start = problem(world, policy, cells=CELLS)
    module = update.pair.world_model
    model: Params = {}
    if own:
        model = {
            k: torch.stack([p.detach(), p.detach() * 1.1]) for k, p in module.named_parameters()
        }
    tasks = start.index_B[:, 1], start.mask_BA[:, 1]
    params = state.policy, state.critics, model
    return imagine(update, params, tasks, seen, seed=3), update, model


@pytest.mark.parametrize(("world", "policy"), PAIRS)
@pytest.mark.parametrize("own", [False, True])
def test_a_model_predicts_of_its_own_policy_what_that_imagined(world, policy, own, monkeypatch):
    """In parts or at once, though the second is open-loop and of one cell alone."""
    found, update, model = imagined(world, policy, visited(), own)
    for i, cell in enumerate(found):
        assert cell.count == 2 * EPISODES  # steps 0 and 5; from 10, H steps are too many
        params = tree_map(lambda leaf, i=i: leaf[i], model)
        again = predict(update, update.pair, params, cell, seed=3)
        np.testing.assert_allclose(again, cell.horizon[0], rtol=1e-4, atol=1e-5)
    assert np.abs(found[0].horizon[0] - found[1].horizon[0]).min() > 1e-4
    if own:  # another's model says something else
        other = predict(update, update.pair, tree_map(lambda leaf: leaf[0], model), found[1], 3)
        assert np.abs(other - found[1].horizon[0]).min() > 1e-6


def test_the_episodes_return_is_what_the_policy_maximises():
    seen = visited()
    found, update, _ = imagined("mlp", "flow", seen)
    _, state, start = problem("mlp", "flow", cells=CELLS)
    first = tree_map(lambda leaf: leaf[0], state)
    given = start._replace(
        obs_BO=seen.pasts[0].obs_HBO[:, 0],
        index_B=start.index_B[:, 1:2].expand(-1, EPISODES),
        mask_BA=start.mask_BA[:, 1:2].expand(-1, EPISODES, -1),
        policy_noise_HBN=torch.zeros(CELLS, H, EPISODES, update.pair.policy.noise_dim),
        model_noise_HBN=torch.zeros(CELLS, H, EPISODES, 0),
    )
    given = tree_map(lambda leaf: leaf[0], given)
    wanted, _ = update.imagine(first.policy, first.critics, given, {})
    np.testing.assert_allclose(found[0].episode[0], wanted.return_B.detach(), rtol=1e-4)
    rewards = seen.reward_TES[0]
    whole = [sum(DISCOUNT**t * r for t, r in enumerate(row)) for row in rewards]
    np.testing.assert_allclose(found[0].episode[1], whole)
    short = [sum(DISCOUNT**t * r for t, r in enumerate(row[5 : 5 + H])) for row in rewards]
    np.testing.assert_allclose(found[0].horizon[1][EPISODES:], short)


def test_a_model_with_noise_is_asked_several_times():
    update, state, start = problem("flow", "mlp", cells=CELLS)
    noisy = update.pair.world_model
    noisy.noise_dim = 16  # drawn, and without effect on this one
    tasks = start.index_B[:, 1], start.mask_BA[:, 1]
    params = state.policy, state.critics, {}
    found = imagine(update, params, tasks, visited(), seed=3)
    assert len(found[0].action_KHNA) == reality.DRAWS
    again = predict(update, update.pair, {}, found[0], seed=3)
    np.testing.assert_allclose(again, found[0].horizon[0], rtol=1e-4, atol=1e-5)


def test_episodes_shorter_than_the_horizon_have_no_horizon():
    found, *_ = imagined("mlp", "mlp", visited(steps=H - 1))
    one = check(found[0], [])
    assert one.horizon is None
    assert one.episode.starts == EPISODES


def test_the_numbers_of_a_policy():
    cell = imagined("mlp", "mlp", visited())[0][0]
    n = cell.count
    real = np.arange(n, dtype=float)
    error = np.where(real % 2 == 0, 1.0, -3.0) * (1 + real)
    cell = attrs.evolve(cell, horizon=(real + error, real))
    one = check(cell, [np.zeros(n)])
    means = float(np.mean(real + error)), float(real.mean())
    assert one.horizon == Gap(*means, math.sqrt((error**2).mean()), n)
    assert one.horizon.difference == pytest.approx(error.mean())
    assert (one.disagreement, one.rank_correlation) == (None, None)
    spread = np.abs(error) ** 3
    one = check(cell, [real, real + spread, real - spread])  # their deviation is ``spread``
    assert one.disagreement == pytest.approx(math.sqrt((spread**2).mean()))
    assert one.rank_correlation == pytest.approx(1)
    assert check(cell, [real, real]).rank_correlation is None
    assert check(cell, [real, np.full(n, np.inf)]) is None


def test_rank_correlation_is_scipys():
    generator = np.random.default_rng(1)
    a = generator.integers(0, 5, 40).astype(float)  # with ties
    b = a + generator.integers(0, 9, 40)
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_the_gate_is_a_tenth_of_the_largest_return():
    def gap(difference):
        return RealityCheck(Gap(10.0 + difference, 10.0, 1.0, 3))

    largest = sum(2 * 0.99**t for t in range(500))
    task = MT30["walker-walk"]
    checks = {"a": gap(0.099 * largest), "b": gap(0.101 * largest), "c": None, "d": gap(-150.0)}
    found = {cell: (task, one) for cell, one in checks.items()}
    gates = [(finding.gate, finding.where) for finding in reality_health(found, 0.99)]
    assert gates == [("imagined_too_high", "b"), ("imagined_not_finite", "c")]
    undiscounted = reality_health({"a": (task, gap(99.0)), "b": (task, gap(101.0))}, 1.0)
    assert [finding.where for finding in undiscounted] == ["b"]
    unknown = attrs.evolve(task, largest_reward=None)
    assert reality_health({"a": (unknown, gap(1e9))}, 0.99) == []


def test_episodes_of_unequal_lengths():
    """An episode that is over gives no more reward, and no states to imagine from."""
    reward = np.ones((1, 2, 60))
    reward[0, 1, 3:] = np.nan
    visited = Visited(reward, {0: past(np.zeros((1, 2, 24))), 50: past(np.ones((1, 2, 24)))})
    assert visited.ahead([0], 60, 0.5).tolist() == [[pytest.approx(2.0), pytest.approx(1.75)]]
    assert visited.followed([0, 50], 4).tolist() == [[True, False, True, False]]


def test_models_with_memory_begin_behind_real_steps():
    """As many as in training, fewer at an episode's start; with the actions that were taken."""
    torch.manual_seed(0)
    world = Memory()
    model = world.build(world.Config(**WIDTHS), DIMS)
    with torch.no_grad():
        model.reward[-1].weight.normal_(std=0.3)
    update = policy_update(Pair(model, world, *reversed(policy("mlp"))))
    _, state, start = problem("mlp", "mlp", cells=CELLS)
    generator = np.random.default_rng(0)
    obs = generator.normal(size=(STEPS, CELLS, EPISODES, 24)).astype(np.float32)
    taken = generator.uniform(-1, 1, (STEPS, CELLS, EPISODES, 6)).astype(np.float32)
    seen = Recorded(lambda _, step: taken[step], 5, model.warm_up)
    for step in [3, 4, *range(STEPS)]:  # the steps of another episode first
        seen(obs[step], step)
    rewards = generator.uniform(0, 2, (CELLS, EPISODES, STEPS))
    tasks = start.index_B[:, 1], start.mask_BA[:, 1]
    params = state.policy, state.critics, {}
    found = imagine(update, params, tasks, Visited(rewards, seen.pasts), seed=3)[0]
    assert found.count == 2 * EPISODES  # steps 0 and 5
    first, second = found.pasts
    np.testing.assert_array_equal(first.obs_HBO, obs[:1, 0])
    np.testing.assert_array_equal(second.obs_HBO, obs[3:6, 0])
    np.testing.assert_array_equal(second.action_HBA, taken[3:5, 0])
    task = Task(*(x[:1].expand(EPISODES, *x.shape[1:]) for x in tasks), None)
    task = task._replace(embedding_BE=model.embed(task.index_B))
    own = {k: v[0] for k, v in state.policy.items()}
    z = latents(model, second.obs_HBO, second.action_HBA, task)[-1]
    still = torch.zeros(EPISODES, update.pair.policy.noise_dim)
    wanted = update.pair.act(own, z, task, still)
    torch.testing.assert_close(found.action_KHNA[0, 0, EPISODES:], wanted, rtol=1e-4, atol=1e-5)
    again = predict(update, update.pair, {}, found, seed=3)
    np.testing.assert_allclose(again, found.horizon[0], rtol=1e-4, atol=1e-5)
    one = attrs.evolve(found, pasts=[first, second._replace(action_HBA=-second.action_HBA)])
    moved = np.abs(predict(update, update.pair, {}, one, seed=3) - again)
    assert moved[:EPISODES].max() == 0 < moved[EPISODES:].min()
    actors = Actors(update.pair, state.policy, {}, *tasks)
    noise_T = actors.action_noise(list(seen.pasts.values()), torch.ones(CELLS, 6), 0)
    other = actors.action_noise([seen.pasts[0]], torch.ones(CELLS, 6), 0)
    assert torch.isfinite(noise_T).all()
    assert not torch.equal(noise_T, other)
