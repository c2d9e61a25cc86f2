"""The planner's model of tasks whose state can be set, and what it refuses."""

import numpy as np
import pytest
from attrs import frozen

from fmbpo.data.collecting.planner_stepping import SteppingModel, check_states
from fmbpo.data.collecting.planner_tasks import planner_of
from fmbpo.errors import UserError
from fmbpo.tasks.suite import SimulationError, TaskInfo
from fmbpo.tasks.table import GymnasiumTable


class Counter:
    """Counts its steps; the reward is count × action. An episode of seed s terminates at 3 + s."""

    obs_dim, action_dim, step_seconds = 1, 1, 0.1

    def __init__(self):
        self.count, self.end, self.steps_left, self.terminated = 0, 0, 0, False

    def reset(self, seed=None):
        self.count, self.end, self.steps_left, self.terminated = 0, 3 + (seed or 0), 30, False
        return np.array([self.count], np.float32)

    def step(self, action):
        if not self.steps_left or action[0] > 0.99:
            raise SimulationError("it is over, or the action is too large")
        self.count += 1
        self.terminated = self.count >= self.end
        self.steps_left = 0 if self.terminated else self.steps_left - 1
        return np.array([self.count], np.float32), self.count * float(action[0])

    def camera(self, size):
        raise UserError("no pictures")


class Restorable(Counter):
    def get_state(self):
        return dict(vars(self))

    def set_state(self, state):
        vars(self).update(state)


class WithoutAnEnd(Restorable):
    def get_state(self):
        return {k: v for k, v in vars(self).items() if k != "end"}


class WithoutStepsLeft(Restorable):
    def get_state(self):
        return {k: v for k, v in vars(self).items() if k != "steps_left"}


class Alive(Restorable):
    """The state changes with the environment that it comes from."""

    def get_state(self):
        return vars(self)


class Shared(Restorable):
    """The environment takes part in what happens to the one that is given its state."""

    def __init__(self):
        super().__init__()
        self.box = [0]

    def reset(self, seed=None):
        self.box = [0]
        return super().reset(seed)

    def step(self, action):
        self.box[0] += 1
        obs, reward = super().step(action)
        return obs, reward + self.box[0]


class Failing(Restorable):
    def set_state(self, state):
        raise KeyError("at")


@frozen(kw_only=True)
class Task(TaskInfo):
    name: str = "count"
    obs_dim: int = 1
    action_dim: int = 1
    episode_steps: int = 30
    action_repeat: int = 1
    made: type = Restorable

    def make(self, drawable=False):
        return self.made()


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (Counter, "no get_state and set_state"),
        (WithoutAnEnd, "another episode"),
        (WithoutStepsLeft, "another episode"),
        (Alive, "another episode"),
        (Shared, "another episode"),
        (Failing, "setting it fails: KeyError"),
    ],
)
def test_states_that_do_not_continue_are_refused(made, why):
    check_states(Task())
    with pytest.raises(UserError, match=f"(?s)task 'count'.*{why}.*--policy random"):
        check_states(Task(made=made))


def test_returns_are_the_environments_own_until_it_terminates():
    env, model = Restorable(), SteppingModel(Task())
    env.reset(3)  # terminates at 6
    env.step(np.zeros(1))
    model.sync(env)
    candidates = np.full((4, 10, 1), 0.5)
    candidates[1] *= -1
    candidates[2, 2:] = 0.0
    candidates[3, 1] = 1.0  # fails
    expected = [0.5 * (2 + 3 + 4 + 5 + 6), -0.5 * (2 + 3 + 4 + 5 + 6), 0.5 * (2 + 3), -np.inf]
    assert model.returns(candidates).tolist() == expected
    assert model.returns(candidates).tolist() == expected
    assert model.returns(candidates[:, :2]).tolist() == [2.5, -2.5, 2.5, -np.inf]
    assert (env.count, env.steps_left) == (1, 29)


def episode(task, act):
    env, total = task.make(), 0.0
    env.reset(5)
    while env.steps_left:
        total += env.step(act(env))[1]
    return total


@pytest.mark.parametrize(
    ("environment", "least", "most"),
    [("InvertedPendulum-v5", 40, 20), ("Pendulum-v1", -150, -200)],
)
def test_the_planner_is_much_better_than_chance(environment, least, most):
    task = GymnasiumTable(gymnasium=environment, episode_steps=40).task("own")
    rng, planner = np.random.default_rng(0), planner_of(task, effort=0.6)
    chance = [
        episode(task, lambda env: rng.uniform(-1, 1, env.action_dim).astype(np.float32))
        for _ in range(5)
    ]
    assert max(chance) < most
    first = episode(task, lambda env: planner.act(env, rng).astype(np.float32))
    assert first >= least


def test_equal_random_streams_plan_equally():
    task = GymnasiumTable(gymnasium="states:states/Heavy-v0", episode_steps=6).task("own")
    returns = []
    for _ in range(2):
        rng, planner = np.random.default_rng(1), planner_of(task)
        returns.append(episode(task, lambda env, p=planner, r=rng: p.act(env, r)))
    assert returns[0] == returns[1]
