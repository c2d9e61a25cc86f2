from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attrs import evolve

from fmbpo.data.collecting.planner import _interpolation
from fmbpo.data.collecting.planner_mt30 import Mt30Model
from fmbpo.data.collecting.planner_tasks import PLAN_TASKS, planner_of
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
    model = Mt30Model(name, PLAN_TASKS[name], coarse=1)
    rng = np.random.default_rng(0)
    planned, true = [], []
    for step in range(120):
        low = -0.3 if step < 30 else -1.0
        action = rng.uniform(low, -low, env.action_dim).astype(np.float32)
        if step == 60 and name.startswith("finger-turn"):  # where chance does not turn it away
            env.env.physics.named.model.site_pos["target", "x"] += 0.1
        model.sync(env)
        planned.append(model.rewards(action.astype(np.float64)[None, None])[0, 0])
        true.append(env.step(action)[1])
    np.testing.assert_allclose(planned, true, rtol=0, atol=1e-9)
    assert np.ptp(true) > 0  # else the comparison says little


def test_several_steps_ahead() -> None:
    env = TaskEnv("cheetah-run")
    env.reset(0)
    model = Mt30Model("cheetah-run", PLAN_TASKS["cheetah-run"])
    actions = np.random.default_rng(0).uniform(-1, 1, (20, env.action_dim))
    model.sync(env)
    planned = model.rewards(np.stack([actions * 0, actions]))
    assert planned.shape == (2, 20)
    np.testing.assert_allclose(planned[1], [env.step(a)[1] for a in actions], atol=1e-6)


def test_a_coarse_time_step_stays_close() -> None:
    env = TaskEnv("walker-stand")
    env.reset(0)
    actions = np.zeros((1, 10, env.action_dim))
    rewards = []
    for coarse in (1, 4):
        model = Mt30Model("walker-stand", PLAN_TASKS["walker-stand"], coarse=coarse)
        model.sync(env)
        assert model.frames(actions).qpos.shape[1] == (20 if coarse == 1 else 10)
        rewards.append(model.rewards(actions))
    np.testing.assert_allclose(rewards[0], rewards[1], atol=0.2)


def run(name: str, steps: int) -> tuple[list[float], np.ndarray[Any, Any]]:
    env, planner, rng = TaskEnv(name), planner_of(MT30[name]), np.random.default_rng(0)
    env.reset(1)
    actions, rewards = [], []
    for _ in range(steps):
        actions.append(planner.act(env, rng))
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


def test_repeats_continue_past_and_plan_periodically() -> None:
    planner = planner_of(MT30["cheetah-run"])
    H, U = planner.settings.horizon, planner.model.action_dim
    period = 6
    gait = np.random.default_rng(1).uniform(-1, 1, (period, U))
    planner._past_PU = gait[np.arange(5 * period) % period]  # the past is a gait, the plan is rest
    known = np.concatenate([planner._past_PU, planner._plan_HU])
    plans = planner._repeats(3000, np.random.default_rng(0))
    assert plans.shape == (3000, H, U)
    assert any(np.array_equal(plan, gait[np.arange(H) % period]) for plan in plans)
    for plan in plans[:100]:
        seen = np.concatenate([planner._past_PU, plan])
        now = len(planner._past_PU)
        assert any(
            np.array_equal(seen[: now + follow], known[: now + follow])
            and np.array_equal(seen[now + follow :], seen[now + follow - p : len(seen) - p])
            for follow in range(H + 1)
            for p in range(3, 31)
        )


def test_shaping_guides_the_search_and_leaves_the_reward_alone() -> None:
    env = TaskEnv("hopper-hop")
    env.reset(0)
    task = PLAN_TASKS["hopper-hop"]
    bare = Mt30Model("hopper-hop", evolve(task, shaping=lambda f: 0 * f.qpos[..., 0]))
    shaped = Mt30Model("hopper-hop", evolve(task, shaping=lambda f: 7 + 0 * f.qpos[..., 0]))
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 5, env.action_dim))
    for model in (bare, shaped):
        model.sync(env)
    np.testing.assert_array_equal(shaped.rewards(actions), bare.rewards(actions))
    np.testing.assert_allclose(
        shaped.rewards(actions, shaped=True), bare.rewards(actions, shaped=True) + 2 * 7
    )


def hopper_in(height: float, pitch: float, legs: tuple[float, ...], speed: float = 0.0) -> Any:
    """A hopper-hop environment with the hopper at rest, or moving along x, in a pose."""
    env = TaskEnv("hopper-hop")
    env.reset(0)
    physics = env.env.physics
    with physics.reset_context():
        physics.data.qpos[:] = 0.0
        physics.data.qvel[:] = 0.0
        named = physics.named.data
        named.qpos["rootz"], named.qpos["rooty"] = height, pitch
        named.qpos["waist"], named.qpos["hip"], named.qpos["knee"], named.qpos["ankle"] = legs
        named.qvel["rootx"] = speed
    return env


def shaped(name: str, env: Any) -> float:
    task = PLAN_TASKS[name]
    model = Mt30Model(name, evolve(task, reward=lambda f: 0 * f.qpos[..., 0]))
    model.sync(env)
    return float(model.rewards(np.zeros((1, 1, model.action_dim)), shaped=True).item())


def test_a_hopper_that_rises_is_shaped_for_the_better() -> None:
    straight, folded = (0.0, 0.0, 0.1, 0.0), (0.0, -2.6, 2.2, 0.4)
    on_its_back = hopper_in(-0.9, -1.5, straight)
    kneeling = hopper_in(-0.7, 0.0, folded)
    standing = hopper_in(0.0, 0.0, straight)
    for name in ("hopper-stand", "hopper-hop", "hopper-hop-backwards"):
        values = [shaped(name, env) for env in (on_its_back, kneeling, standing)]
        assert values[0] < values[1] < values[2]


def test_a_hopper_is_drawn_along_only_when_up() -> None:
    straight = (0.0, 0.0, 0.1, 0.0)
    gain = {}
    for pose, (height, pitch) in {"up": (0.0, 0.0), "lying": (-0.9, -1.5)}.items():
        fast, slow = (hopper_in(height, pitch, straight, v) for v in (1.0, 0.0))
        gain[pose] = shaped("hopper-hop", fast) - shaped("hopper-hop", slow)
    assert gain["up"] > 0.3 > 0.1 > abs(gain["lying"])


def test_a_hopper_gets_up() -> None:
    env, planner = TaskEnv("hopper-stand"), planner_of(MT30["hopper-stand"])
    rng = np.random.default_rng(101)
    env.reset(101)
    assert env.env.physics.height() < 0
    assert any(env.step(planner.act(env, rng))[1] > 0 for _ in range(120))


def test_every_task_has_an_entry() -> None:
    assert PLAN_TASKS.keys() == MT30.keys()
