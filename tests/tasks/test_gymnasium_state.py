"""States of Gymnasium environments continue to the bit, in any environment of the same task."""

import numpy as np
import pytest

from fmbpo.tasks.suite import RestorableEnvironment
from fmbpo.tasks.table import GymnasiumTable

ENVIRONMENTS = [
    *("Pendulum-v1", "MountainCarContinuous-v0", "InvertedPendulum-v5", "Hopper-v5"),
    "Ant-v5",  # rewards the difference to a position from before the last physics step
    "ramp:ramp/Ramp-v0",
    *(f"states:states/{name}-v0" for name in ("Noisy", "Bound", "Heavy", "Tired")),
]  # fmt: skip


def walk(env, actions):
    """Observation, reward and end after each action."""
    seen = []
    for action in actions:
        if not env.steps_left:
            break
        obs, reward = env.step(action)
        seen.append((obs.tolist(), reward, env.terminated, env.steps_left))
    return seen


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_state_continues_to_the_bit(environment):
    task = GymnasiumTable(gymnasium=environment, action_repeat=2).task("any")
    env, other, fresh = task.make(), task.make(), task.make()
    assert isinstance(env, RestorableEnvironment)
    other.reset(99)
    rng = np.random.default_rng(0)
    continued = 0
    for seed in range(6):
        obs = env.reset(seed)
        alone = task.make()
        assert alone.reset(seed).tolist() == obs.tolist()
        actions = rng.uniform(-0.2, 0.2, (25, task.action_dim)).astype(np.float32)
        split = int(rng.integers(0, 4))
        head, tail = actions[:split], actions[split:]
        whole = walk(alone, actions)  # is never asked for its state
        begun = walk(env, head)
        state = env.get_state()
        for follower in (other, fresh, other):
            follower.set_state(state)
            assert begun + walk(follower, tail) == whole
        assert begun + walk(env, tail) == whole
        env.set_state(state)  # its own, from before
        assert begun + walk(env, tail) == whole
        continued += len(whole) - len(begun)
    assert continued > 12  # else the comparison says little


def test_a_state_of_an_episode_that_is_over():
    task = GymnasiumTable(gymnasium="states:states/Tired-v0").task("any")
    env, other = task.make(), task.make()
    env.reset(0)
    walk(env, np.zeros((20, 1), np.float32))
    other.set_state(env.get_state())
    assert (other.steps_left, other.terminated) == (0, env.terminated)
    assert other.reset(3) == task.make().reset(3)
