"""Names, order and sizes; with the package ``metaworld``, the simulator too."""

import importlib.util

import numpy as np
import pytest
from fmbpo_example_metaworld import SUITE

from fmbpo.errors import UserError
from fmbpo.testing import parametrize_task_checks

found = importlib.util.find_spec("metaworld")
installed = found is not None and found.origin is not None  # a folder of this name has none
needs_metaworld = pytest.mark.skipif(not installed, reason="metaworld is not installed")


def test_the_50_tasks_have_their_ids_of_mt80():
    assert (len(SUITE), len(set(SUITE.names))) == (50, 50)
    assert (SUITE.obs_width, SUITE.action_width, SUITE.episode_steps) == (39, 4, 100)
    ids = {30: "mw-assembly", 44: "mw-drawer-open", 65: "mw-reach", 79: "mw-hand-insert"}
    assert {number: SUITE.names[number - 30] for number in ids} == ids


@pytest.mark.skipif(installed, reason="metaworld is installed")
def test_without_the_simulator_an_environment_says_how_to_get_it():
    with pytest.raises(UserError, match=r"(?s)mw-reach: .*No module named 'metaworld.*-> pip"):
        SUITE["mw-reach"].make()


@needs_metaworld
@parametrize_task_checks("mw-drawer-open")
def test_contract(check):
    check()


@needs_metaworld
@pytest.mark.parametrize("task", SUITE, ids=lambda task: task.name)
def test_every_task_can_be_played(task):
    env = task.make()
    first = env.reset(0)
    other = env.reset(1)
    assert first.shape == other.shape == (39,)
    assert (first[36:] != 0).any()  # the goal is shown
    assert (first != other).any()  # and drawn anew, or the object's place is
    obs, reward = env.step(np.zeros(4, np.float32))
    assert np.isfinite(obs).all()
    assert 0 <= reward <= task.largest_reward
