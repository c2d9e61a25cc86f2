from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from dm_control import suite

from fmbpo.errors import UserError
from fmbpo.tasks.env import TaskEnv
from fmbpo.tasks.mt30 import EPISODE_STEPS, MT30, SUITE, mt30_task
from fmbpo.tasks.suite import SimulationError


def test_the_table_is_in_the_studys_order() -> None:
    assert [info.index for info in MT30.values()] == list(range(30))
    names = list(MT30)
    assert (names[0], names[12], names[29]) == ("walker-stand", "cup-catch", "pendulum-spin")
    assert max(info.obs_dim for info in MT30.values()) == SUITE.obs_width
    assert max(info.action_dim for info in MT30.values()) == SUITE.action_width


def test_the_published_scores_have_the_published_means() -> None:
    assert np.mean([info.pwm_return for info in MT30.values()]) == pytest.approx(768.174, abs=1e-3)
    mean = np.mean([info.tdmpc2_return for info in MT30.values()])
    assert mean == pytest.approx(598.252, abs=1e-3)


@pytest.mark.parametrize(
    "alias",
    [
        "cup-catch",
        "cup_catch",
        "Cup-Catch ",
        "dmcontrol-cup-catch",
        "dm_control/cup-catch",
        "dm_control/ball_in_cup/catch",
        "ball_in_cup-catch",
    ],
)
def test_aliases(alias: str) -> None:
    info = mt30_task(alias)
    assert (info.name, info.domain, info.task) == ("cup-catch", "ball_in_cup", "catch")


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'walker-walk'"):
        mt30_task("walker-wlk")
    with pytest.raises(UserError, match="humanoid"):
        TaskEnv("humanoid-run")


def test_reset_with_a_seed_is_a_new_environments_first_reset(task: str) -> None:
    used = TaskEnv(task)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.2, 1.2, (20, SUITE.action_width)).astype(np.float32)
    used.reset(5)
    for action in actions:
        used.step(action)
    used.reset()
    for seed in (3, 11):
        new = TaskEnv(task)
        new.env.task._random = np.random.RandomState(seed)
        new_obs, used_obs = new.reset(), used.reset(seed)
        np.testing.assert_array_equal(used_obs, new_obs)
        for action in actions:
            (used_obs, used_reward), (new_obs, new_reward) = used.step(action), new.step(action)
            np.testing.assert_array_equal(used_obs, new_obs)
            assert used_reward == new_reward


@pytest.mark.parametrize("name", list(MT30)[:19])
def test_stock_tasks_equal_dm_controls_own_loader(name: str) -> None:
    info = mt30_task(name)
    stock, env = suite.load(info.domain, info.task, {"random": 7}), TaskEnv(name)
    flat = np.concatenate([np.ravel(v) for v in stock.reset().observation.values()])
    np.testing.assert_array_equal(env.reset(7), flat.astype(np.float32))
    rng = np.random.default_rng(1)
    for _ in range(20):
        action = rng.uniform(-1.0, 1.0, SUITE.action_width).astype(np.float32)
        results = [stock.step(action[: info.action_dim].astype(np.float64)) for _ in range(2)]
        obs, reward = env.step(action)
        flat = np.concatenate([np.ravel(v) for v in results[1].observation.values()])
        np.testing.assert_array_equal(obs, flat.astype(np.float32))
        assert reward == results[0].reward + results[1].reward


def test_widths_and_reward_range(task: str) -> None:
    env = TaskEnv(task)
    obs = env.reset(0)
    assert obs.dtype == np.float32
    assert obs.shape == (env.obs_dim,) == (mt30_task(task).obs_dim,)
    assert env.env.action_spec().shape == (env.action_dim,)
    assert env.env.action_spec().minimum == pytest.approx(-1.0)
    assert env.env.action_spec().maximum == pytest.approx(1.0)
    obs, reward = env.step(np.zeros(SUITE.action_width, np.float32))
    assert obs.shape == (env.obs_dim,)
    assert isinstance(reward, float)
    assert 0.0 <= reward <= 2.0


def test_only_the_tasks_own_actions_count() -> None:
    first, second = TaskEnv("hopper-hop"), TaskEnv("hopper-hop")
    first.reset(0), second.reset(0)
    action = np.array([0.5, -0.5, 1.0, 0.1, 0.0, 0.0], np.float32)
    padded = np.array([0.5, -0.5, 1.0, 0.1, 9.0, np.nan], np.float32)
    np.testing.assert_array_equal(first.step(action)[0], second.step(padded)[0])
    with pytest.raises(SimulationError, match="4 actions are needed"):
        first.step(action[:3])


def test_an_episode_has_500_steps() -> None:
    env = TaskEnv("pendulum-swingup")
    action = np.zeros(1, np.float32)
    with pytest.raises(SimulationError, match="reset"):
        env.step(action)
    env.reset(0)
    for _ in range(EPISODE_STEPS):
        env.step(action)
    with pytest.raises(SimulationError, match="episode is over"):
        env.step(action)
    env.reset()
    env.step(action)


def test_bad_actions_and_divergence_name_task_and_step() -> None:
    env = TaskEnv("walker-walk")
    env.reset(0)
    env.step(np.zeros(6, np.float32))
    with pytest.raises(SimulationError, match=r"walker-walk, step 1: the action is not finite"):
        env.step(np.array([0, 0, np.nan, 0, 0, 0], np.float32))
    env.env.physics.data.qvel[:] = 1e12
    with pytest.raises(SimulationError, match=r"walker-walk, step 1: the simulation diverged"):
        env.step(np.zeros(6, np.float32))
    env.reset(0)
    env.step(np.zeros(6, np.float32))


def test_nothing_here_imports_torch_and_the_table_not_even_dm_control() -> None:
    code = (
        "import sys, fmbpo.tasks.mt30; assert 'dm_control' not in sys.modules;"
        "import fmbpo.tasks.vector; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
