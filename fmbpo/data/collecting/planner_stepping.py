"""The planner's model of any task whose state can be set: a second environment, stepped."""

from __future__ import annotations

from typing import Any

import numpy as np

from fmbpo.base.text import text_of
from fmbpo.data.collecting.planner import PlanSettings
from fmbpo.data.collecting.planner_rewards import Floats
from fmbpo.errors import UserError
from fmbpo.tasks.suite import Environment, RestorableEnvironment, SimulationError, TaskInfo

STEPPING = PlanSettings(samples=32, horizon=30, knots=10, sigma=0.5, elites=16)
"""Settings of the search in every such task. A decision costs up to samples × horizon steps."""
_PARTS, _PART_STEPS = 12, 8
"""`check_states` compares so many parts of episodes, of so many agent steps each."""


class SteppingModel:
    """Steps the candidates one after another, with the environment's own rewards.

    A candidate that terminates earns nothing more. See `fmbpo.data.collecting.planner.Model`.
    """

    def __init__(self, task: TaskInfo) -> None:
        """``task``: one that `check_states` accepts."""
        self.action_dim = task.action_dim
        self._env = _restorable(task)
        self._env.reset(0)

    def sync(self, env: Environment) -> None:
        """See `Model`."""
        assert isinstance(env, RestorableEnvironment)
        self._state = env.get_state()

    def returns(self, actions_NHU: Floats) -> Floats:
        """See `Model`; -inf if a simulation diverges."""
        return np.array([self._return(actions_HU) for actions_HU in actions_NHU])

    def _return(self, actions_HU: Floats) -> float:
        env, total = self._env, 0.0
        env.set_state(self._state)
        for action in actions_HU.astype(np.float32):
            if not env.steps_left:
                break
            try:
                total += float(env.step(action)[1])
            except SimulationError:
                return -np.inf
        return total


def check_states(task: TaskInfo) -> None:
    """`UserError` unless saved states of the task's environment continue equally to the bit.

    Compared are the observations, rewards and ends after equal random actions: of the environment
    itself, and of a second one that is given its state before that and once more after it.
    """
    env, other = _restorable(task), _restorable(task)
    rng = np.random.default_rng(0)
    seen: list[Any] = [None]
    for part in range(_PARTS):
        if seen[-1] is None or not env.steps_left:
            env.reset(part)
        other.reset(_PARTS + part)
        actions = rng.uniform(-1, 1, (_PART_STEPS, task.action_dim)).astype(np.float32)
        try:
            state = env.get_state()
            before = _continued(other, state, actions)
            seen = _outcomes(env, actions)
            after = _continued(other, state, actions)
        except UserError as error:
            raise _refused(task, error.what) from error
        except Exception as error:  # foreign code may raise anything
            what = f"{type(error).__name__}: {' '.join(text_of(error).split())}"
            raise _refused(task, f"setting it fails: {what}") from error
        if not before == seen == after:
            raise _refused(task, "after it is set, equal actions lead to another episode")


def _restorable(task: TaskInfo) -> RestorableEnvironment:
    env = task.make()
    if not isinstance(env, RestorableEnvironment):
        raise _refused(task, "its environment has no get_state and set_state")
    return env


def _continued(env: RestorableEnvironment, state: object, actions_HU: Any) -> list[Any]:
    env.set_state(state)
    return _outcomes(env, actions_HU)


def _outcomes(env: Environment, actions_HU: Any) -> list[Any]:
    """The outcome of each step until the episode is over; None for one that fails, the last."""
    seen: list[Any] = []
    for action in actions_HU:
        if not env.steps_left:
            break
        try:
            obs, reward = env.step(action)
        except SimulationError:
            return [*seen, None]
        seen.append((np.asarray(obs).tobytes(), float(reward), env.terminated, env.steps_left))
    return seen


def _refused(task: TaskInfo, why: str) -> UserError:
    return UserError(
        f"the planner sets the simulator's state, which is impossible in task {task.name!r}: {why}",
        where="collecting",
        remedy="use --policy random, or --policy RUN with a finished run of this task",
    )
