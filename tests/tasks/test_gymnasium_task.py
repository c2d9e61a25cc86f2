"""Gymnasium environments as tasks: sizes, actions, ends, seeds, pictures, and what is refused."""

import pickle

import numpy as np
import pytest

from fmbpo.errors import UserError
from fmbpo.tasks.film import film
from fmbpo.tasks.known import suite_of
from fmbpo.tasks.suite import SimulationError
from fmbpo.tasks.table import GymnasiumTable
from fmbpo.tasks.vector import EpisodeRunner

RAMP = "ramp:ramp/Ramp-v0"


def task(name="ramp", environment=RAMP, **more):
    return GymnasiumTable(gymnasium=environment, **more).task(name)


def episode(env, seed, action=(0.0, 0.0)):
    """The observations and rewards of an episode."""
    obs, rewards = [env.reset(seed)], []
    while env.steps_left:
        seen, reward = env.step(np.array(action, np.float32))
        obs.append(seen)
        rewards.append(reward)
    return np.array(obs), rewards


def test_the_sizes_are_those_of_the_environment():
    found = task()
    assert (found.obs_dim, found.action_dim, found.episode_steps, found.action_repeat) == (
        2, 2, 20, 1)  # fmt: skip
    assert task(action_repeat=3).episode_steps == 7
    assert task(action_repeat=3, episode_steps=5).episode_steps == 5
    assert task(environment="ramp:ramp/Endless-v0", episode_steps=9).episode_steps == 9
    pole = task(environment="InvertedPendulum-v5")
    assert (pole.obs_dim, pole.action_dim, pole.episode_steps) == (4, 1, 1000)
    assert pickle.loads(pickle.dumps(found)) == found


def test_actions_are_scaled_to_the_bounds_and_clipped():
    env = task(kwargs={"length": 9}).make()
    for action, reward in (((0, 0), 1.0), ((1, 1), 5.0), ((-1, -1), -3.0), ((9, -9), 1.0)):
        env.reset(0)
        assert env.step(np.array(action, np.float32))[1] == pytest.approx(reward)


@pytest.mark.parametrize(
    ("length", "truncates", "steps", "terminated"),
    [(5, False, 5, True), (5, True, 5, False), (25, False, 20, False), (20, False, 20, True)],
)
def test_terminations_and_truncations_are_told_apart(length, truncates, steps, terminated):
    env = task(kwargs={"length": length, "truncates": truncates}).make()
    obs, rewards = episode(env, 0)
    assert obs[:, 0].tolist() == list(range(steps + 1))
    assert rewards == [1.0] * steps
    assert env.terminated is terminated
    with pytest.raises(SimulationError, match="the episode is over"):
        env.step(np.zeros(2, np.float32))


def test_rewards_of_repeated_steps_are_summed_until_the_end():
    env = task(action_repeat=3, kwargs={"length": 5}).make()
    obs, rewards = episode(env, 0)
    assert obs[:, 0].tolist() == [0, 3, 5]
    assert rewards == [3.0, 2.0]
    assert env.terminated


def test_a_seed_begins_the_same_episode():
    env = task().make()
    lengths = [len(episode(env, seed)[1]) for seed in (3, 4, 3, None)]
    assert lengths[0] == lengths[2]
    assert len(set(lengths)) > 1
    assert len(episode(task().make(), 3)[1]) == lengths[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_episodes_of_unequal_length_run_in_lockstep(workers):
    """An episode that is over gives no more rewards, and later actions do not matter."""
    own = {"ramp": GymnasiumTable(gymnasium=RAMP), "far": GymnasiumTable(gymnasium=RAMP)}
    suite = suite_of(["ramp", "far"], own)
    asked, rest = [], np.random.default_rng(0)

    def act(obs, t):
        asked.append(t)
        over = obs[..., :1] >= np.minimum(obs[..., 1:2], 20)
        return np.where(over, rest.normal(size=(*obs.shape[:2], 2)), 0).astype(np.float32)

    seeds = range(6)
    with EpisodeRunner(workers, suite) as runner:
        rewards = runner.run(act, ["far", "ramp"], seeds)
    alone = [len(episode(own["ramp"].task("ramp").make(), seed)[1]) for seed in seeds]
    assert rewards.shape == (2, 6, 20)
    assert (~np.isnan(rewards)).sum(-1).tolist() == [alone, alone]
    assert np.nansum(rewards, -1).tolist() == [alone, alone]
    assert asked == list(range(max(alone)))
    assert min(alone) < max(alone)


def test_a_film_ends_with_the_episode(tmp_path):
    file = tmp_path / "a.gif"
    total, steps = film(
        task(kwargs={"length": 4}), lambda obs: np.zeros(2, np.float32), 0, file, size=(32, 24)
    )
    assert (total, steps) == (4.0, 4)
    from PIL import Image

    with Image.open(file) as pictures:
        assert pictures.n_frames == 5
        assert pictures.size == (32, 24)


@pytest.mark.parametrize(
    ("environment", "more", "said"),
    [
        (RAMP, {"kwargs": {"observes": "dict"}}, "FlattenObservation"),
        (RAMP, {"kwargs": {"colour": 3}}, "colour"),
        ("ramp:ramp/Endless-v0", {}, "episode_steps = 1000"),
        ("CartPole-v1", {}, "action_space is Discrete, not Box"),
        ("NoSuch-v0", {}, "NoSuch"),
        ("no_such_module:X-v0", {}, "no_such_module"),
    ],
)
def test_what_is_no_task_is_named(environment, more, said):
    with pytest.raises(UserError) as caught:
        task("mine", environment, **more)
    assert "tasks.mine" in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.remedy
