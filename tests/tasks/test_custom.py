from __future__ import annotations

import numpy as np
import pytest

from fmbpo.tasks.custom import BUILDERS
from fmbpo.tasks.env import TaskEnv
from fmbpo.tasks.mt30 import MT30


def test_eleven_custom_tasks() -> None:
    assert sorted(BUILDERS) == sorted(list(MT30)[19:])


def test_cup_spin_starts_outside_the_cup_in_a_tenth_of_the_episodes() -> None:
    env = TaskEnv("cup-spin")
    env.reset(0)
    outside = []
    for _ in range(500):
        env.reset()
        outside.append(not env.env.physics.in_target())
    # A few of the 10 % that may start anywhere start inside by chance.
    assert 0.065 < np.mean(outside) < 0.135


def test_cup_spin_pays_nothing_inside_the_cup() -> None:
    env = TaskEnv("cup-spin")
    physics = env.env.physics
    for seed in range(30):
        env.reset(seed)
        physics.data.qvel[2:] = 10.0  # the ball, however fast
        paid = env.env.task.get_reward(physics)
        assert (paid == 0.0) == bool(physics.in_target())


@pytest.mark.parametrize(("name", "radius"), [("easy", 0.05), ("hard", 0.015)])
def test_reacher_three(name: str, radius: float) -> None:
    env = TaskEnv(f"reacher-three-{name}")
    model = env.env.physics.named.model
    assert model.body_mass["arm0"].item() == pytest.approx(0.032463124)
    assert model.body_mass["arm1"].item() == pytest.approx(0.032463124)
    assert model.body_mass["hand"].item() == pytest.approx(0.035604717)
    assert model.body_mass["finger"].item() == pytest.approx(0.00418879)
    for seed in range(20):
        env.reset(seed)
        data = env.env.physics.named.data
        assert model.geom_size["target", 0] == radius
        assert 0.05 <= np.linalg.norm(data.geom_xpos["target", :2]) < 0.20
        model.geom_pos["target", :2] = data.geom_xpos["finger", :2] + [radius + 0.0099, 0.0]
        env.env.physics.forward()
        assert env.env.task.get_reward(env.env.physics) == 1.0
        model.geom_pos["target", :2] = data.geom_xpos["finger", :2] + [radius + 0.0101, 0.0]
        env.env.physics.forward()
        assert env.env.task.get_reward(env.env.physics) == 0.0


def _reward(env: TaskEnv, velocity: dict[str, float]) -> float:
    physics = env.env.physics
    physics.data.qvel[:] = 0.0
    for joint, value in velocity.items():
        physics.named.data.qvel[joint] = value
    physics.forward()
    return float(env.env.task.get_reward(physics))


def test_directions() -> None:
    for name, good in (
        ("walker-walk-backwards", -1.0),
        ("walker-run-backwards", -8.0),
        ("cheetah-run-backwards", -8.0),
        ("cheetah-run-front", 6.0),
        ("cheetah-run-back", 6.0),
    ):
        env = TaskEnv(name)
        env.reset(0)
        rewards = [_reward(env, {"rootx": v}) for v in (good, good / 2, 0.0, -good)]
        assert rewards[0] > rewards[1] > rewards[2] == rewards[3], name
    env = TaskEnv("cheetah-jump")
    env.reset(0)
    still, slow, fast = (_reward(env, {"rootx": v}) for v in (0.0, -0.4, 0.8))
    assert still == slow > fast


def test_pendulum_spin_pays_either_direction() -> None:
    env = TaskEnv("pendulum-spin")
    env.reset(0)
    rewards = [_reward(env, {"hinge": v}) for v in (-10.0, -4.5, 0.0, 4.5, 9.0)]
    assert rewards == pytest.approx([1.0, 0.5, 0.0, 0.5, 1.0])


def test_hopper_hop_backwards_needs_an_upright_hopper() -> None:
    env = TaskEnv("hopper-hop-backwards")
    seen = set()
    for seed in range(40):
        env.reset(seed)
        upright = 0.6 <= env.env.physics.height() <= 2
        rewards = [_reward(env, {"rootx": v}) for v in (-1.0, -0.5, 0.0)]
        assert rewards == pytest.approx([1.0, 0.5, 0.0] if upright else [0.0] * 3)
        seen.add(upright)
    assert seen == {True, False}
