from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fmbpo.data.planner import Planner, _interpolation
from fmbpo.data.planner_model import PlanningModel
from fmbpo.data.planner_tasks import PLAN_TASKS, plan_task
from fmbpo.errors import UserError
from fmbpo.tasks.env import TaskEnv
from fmbpo.tasks.mt30 import MT30


def to_reward(name: str, physics: Any) -> None:
    """Put a task with a sparse reward where its reward begins."""
    model, data = physics.named.model, physics.named.data
    with physics.reset_context():
        if name.startswith("pendulum"):
            data.qpos["hinge"] = 0.0
        elif name == "cup-catch":
            data.qpos["ball_z"] = 0.35
        elif name == "finger-spin":
            data.qvel["hinge"] = -20.0
        elif name == "cartpole-swingup-sparse":
            data.qpos["hinge_1"] = 0.1
        elif name.startswith("hopper"):
            data.qpos[2:] = 0.0
    if name.startswith("reacher"):
        model.geom_pos["target", :2] = data.geom_xpos["finger", :2]
    if name.startswith("finger-turn"):
        model.site_pos["target", :] = data.site_xpos["tip"]
    physics.forward()


@pytest.mark.parametrize("name", PLAN_TASKS)
def test_the_planning_reward_is_the_task_s(name: str) -> None:
    env = TaskEnv(name)
    env.reset(3)
    to_reward(name, env.env.physics)
    model = PlanningModel(name, PLAN_TASKS[name], coarse=1)
    rng = np.random.default_rng(0)
    planned, true = [], []
    for step in range(120):
        low = -0.3 if step < 30 else -1.0
        action = rng.uniform(low, -low, env.action_dim).astype(np.float32)
        if step == 60 and name.startswith("finger-turn"):  # where chance does not turn it away
            env.env.physics.named.model.site_pos["target", "x"] += 0.1
        model.sync(env.env)
        planned.append(model.rewards(action.astype(np.float64)[None, None])[0, 0])
        true.append(env.step(action)[1])
    np.testing.assert_allclose(planned, true, rtol=0, atol=1e-9)
    assert np.ptp(true) > 0  # else the comparison says little


def test_several_steps_ahead() -> None:
    env = TaskEnv("cheetah-run")
    env.reset(0)
    model = PlanningModel("cheetah-run", PLAN_TASKS["cheetah-run"])
    actions = np.random.default_rng(0).uniform(-1, 1, (20, env.action_dim))
    model.sync(env.env)
    planned = model.rewards(np.stack([actions * 0, actions]))
    assert planned.shape == (2, 20)
    np.testing.assert_allclose(planned[1], [env.step(a)[1] for a in actions], atol=1e-6)


def test_a_coarse_time_step_stays_close() -> None:
    env = TaskEnv("walker-stand")
    env.reset(0)
    actions = np.zeros((1, 10, env.action_dim))
    rewards = []
    for coarse in (1, 4):
        model = PlanningModel("walker-stand", PLAN_TASKS["walker-stand"], coarse=coarse)
        model.sync(env.env)
        assert model.frames(actions).qpos.shape[1] == (20 if coarse == 1 else 10)
        rewards.append(model.rewards(actions))
    np.testing.assert_allclose(rewards[0], rewards[1], atol=0.2)


def run(name: str, steps: int) -> tuple[list[float], np.ndarray[Any, Any]]:
    env, planner, rng = TaskEnv(name), Planner(name), np.random.default_rng(0)
    env.reset(1)
    actions, rewards = [], []
    for _ in range(steps):
        actions.append(planner.act(env.env, rng))
        rewards.append(env.step(actions[-1])[1])
    return rewards, np.array(actions)


def test_the_planner_reaches_and_repeats_itself() -> None:
    rewards, actions = run("reacher-easy", 100)
    assert sum(rewards[-40:]) > 70  # of 80
    assert np.abs(actions).max() <= 1
    np.testing.assert_array_equal(actions[:10], run("reacher-easy", 10)[1])


def test_the_interpolation_passes_through_the_knots() -> None:
    basis = _interpolation(9, 3)
    np.testing.assert_allclose(basis @ [1.0, 5.0, 3.0], [1, 2, 3, 4, 5, 4.5, 4, 3.5, 3])


def test_every_task_has_an_entry() -> None:
    assert PLAN_TASKS.keys() == MT30.keys()


def test_a_task_without_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delitem(PLAN_TASKS, "fish-swim")
        with pytest.raises(UserError, match="no entry for 'fish-swim'"):
            plan_task("fish-swim")
    with pytest.raises(UserError, match="walker-stand"):
        plan_task("walker-stnd")
