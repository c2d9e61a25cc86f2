"""The 30 tasks as Gymnasium environments, held by Gymnasium's own checker."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import fmbpo.tasks.gym
from fmbpo.errors import UserError
from fmbpo.tasks.env import TaskEnv
from fmbpo.tasks.mt30 import EPISODE_STEPS, MT30

NUMPY_OF_DM_CONTROL = "Setting the shape on a NumPy array"
"""dm_control does what NumPy 2.5, which needs Python 3.12, deprecates."""


def test_gymnasiums_checker_passes(task: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=NUMPY_OF_DM_CONTROL)
        # Velocities and distances have no bounds.
        warnings.filterwarnings("ignore", message=r".*Box observation space m\w+ value is -?inf")
        env = gymnasium.make(f"fmbpo/{task}-v0")
        assert env.observation_space.shape == (MT30[task].obs_dim,)
        assert env.action_space.shape == (MT30[task].action_dim,)
        check_env(env.unwrapped, skip_render_check=True)


def test_all_are_registered_in_one_namespace() -> None:
    names = [name for name in gymnasium.registry if name.startswith("fmbpo/")]
    assert names == [fmbpo.tasks.gym.environment_id(task) for task in MT30]


def test_states_and_rewards_are_the_studys() -> None:
    env, ours = gymnasium.make("fmbpo/hopper-hop-v0"), TaskEnv("hopper-hop")
    rng = np.random.default_rng(0)
    for seed in (7, None):  # the second episode goes on in the first one's stream
        obs, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(obs, ours.reset(seed))
        for _ in range(5):
            action = rng.uniform(-1, 1, 4).astype(np.float32)
            obs, reward, terminated, truncated, _ = env.step(action)
            expected, paid = ours.step(action)
            np.testing.assert_array_equal(obs, expected)
            assert (reward, terminated, truncated) == (paid, False, False)


def test_an_episode_is_truncated_after_500_steps_and_never_terminates() -> None:
    env = fmbpo.tasks.gym.GymTask("pendulum-swingup")  # without gymnasium's own time limit
    for _ in range(2):
        env.reset(seed=0)
        ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(EPISODE_STEPS)]
        assert ends == [(False, False)] * (EPISODE_STEPS - 1) + [(False, True)]


def test_unseeded_environments_begin_differently() -> None:
    first, second = (gymnasium.make("fmbpo/reacher-easy-v0").reset()[0] for _ in range(2))
    assert (first != second).any()


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match="did you mean 'walker-walk'"):
        fmbpo.tasks.gym.GymTask("walker-wlk")
    with pytest.raises(ValueError, match="human"):
        fmbpo.tasks.gym.GymTask("walker-walk", render_mode="human")


@pytest.mark.parametrize("before", [None, "disable", "osmesa", "nonsense"])
def test_a_name_with_the_module_suffices_and_the_environment_stays_as_it_was(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is drawn, so ``MUJOCO_GL`` does not matter; whatever else draws still finds it."""
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if before is not None:
        monkeypatch.setenv("MUJOCO_GL", before)
    code = (
        "import os, gymnasium, warnings; warnings.simplefilter('error');"
        f"warnings.filterwarnings('ignore', message={NUMPY_OF_DM_CONTROL!r});"
        "import fmbpo.data.collecting, fmbpo.tasks.mt30;"
        f"assert os.environ.get('MUJOCO_GL') == {before!r};"
        "env = gymnasium.make('fmbpo.tasks.gym:fmbpo/cup-spin-v0'); env.reset(seed=1);"
        f"assert os.environ.get('MUJOCO_GL') == {before!r}, os.environ.get('MUJOCO_GL')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_pages_example_runs() -> None:
    page = Path(__file__).parents[2] / "docs" / "tasks.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    (code,) = [block for block in blocks if "import fmbpo.tasks.gym" in block]
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=True)
