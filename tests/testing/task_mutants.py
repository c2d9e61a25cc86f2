"""Tasks that are broken on purpose, each with the check that is there to catch it.

A mutant is the scaffold's suite with one fault, the smallest that an author could make.
"""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType

import attrs
import numpy as np
from attrs import frozen

from fmbpo.errors import UserError
from fmbpo.scaffold import template
from fmbpo.tasks.suite import Suite
from fmbpo.testing.task_contract.subject import TaskSubject

PUCK = sys.modules["puck_tasks"] = ModuleType("puck_tasks")
exec(compile(template("tasks"), "puck_tasks.py", "exec"), PUCK.__dict__)
PuckEnv, Picture = PUCK.PuckEnv, PUCK.Picture


@frozen(kw_only=True)
class Made(PUCK.PuckTask):
    """The scaffold's task with another environment."""

    env: type = PuckEnv

    def make(self, drawable=False):
        return self.env(self)


def subject(canonical=str.strip, name="puck", others=(), cls=Made, **fields):
    task = cls(**{"name": name, "obs_dim": 6, **fields})
    return TaskSubject(task, Suite("pucks", (task, *others), canonical))


@attrs.frozen
class Mutant:
    """``check`` alone fails for it, and says ``says``."""

    name: str
    subject: Callable[[], TaskSubject]
    check: str
    says: str


MUTANTS: list[Mutant] = []


def declared(check, says, label, **fields):
    MUTANTS.append(Mutant(label, lambda: subject(**fields), check, says))


def mutant(check, says, **fields):
    """Note the class of an environment as a mutant."""

    def note(env):
        declared(check, says, env.__name__, env=env, **fields)
        return env

    return note


declared("name_is_canonical", "'my puck'", "NameWithASpace", name="my puck")
declared("name_is_canonical", "'PUCK'", "CanonicalChangesTheName", canonical=str.upper)
declared("name_is_canonical", "2 tasks", "TwoOfOneName", others=(Made(name="puck", obs_dim=6),))
declared("name_is_canonical", "MT30", "NameOfMT30", name="walker-run")
declared("sizes_are_as_declared", "[(6,)]", "FewerObservations", obs_dim=5)
declared("sizes_are_as_declared", "`action_repeat`", "NoStep", action_repeat=0)


@frozen(kw_only=True)
class Listed(Made):
    tags: list[str] = attrs.field(factory=list)


declared("info_can_be_sent", "unhashable", "ListInTheTask", cls=Listed)


@frozen(kw_only=True)
class Unpickled(Made):
    law: Callable[[float], float] = attrs.field(default=lambda d: d)


declared("info_can_be_sent", "lambda", "FunctionInTheTask", cls=Unpickled)


@mutant("keeps_its_interface", "`step_seconds`")
class NoPace(PuckEnv):
    step_seconds = 0.0


@mutant("keeps_its_interface", "a tuple of 5")
class AsInGymnasium(PuckEnv):
    def step(self, action):
        obs, reward = super().step(action)
        return obs, reward, self.terminated, not self.steps_left, {}


@mutant("keeps_its_interface", "`reset` returns is a numpy array")
class ResetAsInGymnasium(PuckEnv):
    def reset(self, seed=None):
        return super().reset(seed), {}


@mutant("keeps_its_interface", "`terminated` is a boolean")
class NumberForTerminated(PuckEnv):
    def step(self, action):
        found = super().step(action)
        self.terminated = float(self.terminated)
        return found


@mutant("keeps_its_interface", "`steps_left` is an integer")
class TimeForSteps(PuckEnv):
    def step(self, action):
        found = super().step(action)
        self.steps_left = float(self.steps_left)
        return found


@mutant("sizes_are_as_declared", "`obs_dim` is the task's")
class OtherWidth(PuckEnv):
    def __init__(self, task):
        super().__init__(task)
        self.obs_dim = 7


@mutant("observations_are_finite_float32", "float64")
class Double(PuckEnv):
    def _observation(self):
        return super()._observation().astype(np.float64)


@mutant("observations_are_finite_float32", "nan")
class Unbounded(PuckEnv):
    def _observation(self):
        obs = super()._observation()
        obs[2] = np.nan
        return obs


@mutant("rewards_are_finite_numbers", "array([")
class RewardsInArrays(PuckEnv):
    def step(self, action):
        obs, reward = super().step(action)
        return obs, np.array([reward])


@mutant("rewards_are_finite_numbers", "nan at step 1")
class NoReward(PuckEnv):
    def step(self, action):
        return super().step(action)[0], np.nan


@mutant("rewards_are_finite_numbers", "±3.40282e+38", largest_reward=None)
class LargeReward(PuckEnv):
    def step(self, action):
        return super().step(action)[0], 1e39


@mutant("rewards_stay_below_the_largest", "`largest_reward`, 1")
class DoubleReward(PuckEnv):
    def step(self, action):
        return super().step(action)[0], 2.0


@mutant("steps_are_counted_down", "100, then 100")
class NoCount(PuckEnv):
    def step(self, action):
        found = super().step(action)
        self.steps_left = self.task.episode_steps
        return found


@mutant("steps_are_counted_down", "`terminated` is False while")
class GoesOn(PuckEnv):
    def step(self, action):
        before = self.steps_left
        found = super().step(action)
        self.steps_left = before - 1
        return found


@mutant("steps_are_counted_down", "from 1 to `episode_steps`, 100")
class LongerThanDeclared(PuckEnv):
    def reset(self, seed=None):
        obs = super().reset(seed)
        self.steps_left *= 2
        return obs


@mutant("time_up_is_no_termination", "without a step left")
class Done(PuckEnv):
    def step(self, action):
        found = super().step(action)
        self.terminated = self.terminated or self.steps_left == 0
        return found


@mutant("a_reset_begins_anew", "`terminated` is False")
class StaysTerminated(PuckEnv):
    def reset(self, seed=None):
        before = self.terminated
        obs = super().reset(seed)
        self.terminated = before
        return obs


@mutant("an_episode_that_is_over_refuses_steps", "the episode is over")
class StepsOn(PuckEnv):
    def step(self, action):
        if self.terminated:
            return self._observation(), 0.0
        return super().step(action)


@mutant("an_episode_that_is_over_refuses_steps", "no episode has begun")
class BeginsByItself(PuckEnv):
    def __init__(self, task):
        super().__init__(task)
        self.reset(0)


@mutant("bad_actions_are_refused", "the action is NaN")
class TakesNaN(PuckEnv):
    def step(self, action):
        return super().step(np.where(np.isnan(action), 0, action))


@mutant("bad_actions_are_refused", "the action is infinite")
class ClipsFirst(PuckEnv):
    def step(self, action):
        return super().step(np.clip(action, -1, 1))


@mutant("bad_actions_are_refused", "the action is too short")
class Broadcasts(PuckEnv):
    def step(self, action):
        return super().step(np.resize(action, max(2, len(action))))


@mutant("seed_determines_the_episode", "equal seeds")
class GlobalRandom(PuckEnv):
    def reset(self, seed=None):
        return super().reset(np.random.randint(2**31))


@mutant("seed_determines_the_episode", "equal seeds")
class RandomWind(PuckEnv):
    def step(self, action):
        found = super().step(action)
        self.velocity = self.velocity + 0.01 * np.random.default_rng().standard_normal(2)
        return found


@mutant("reset_forgets_the_last_episode", "`obs` differs from step 0")
class KeepsItsSpeed(PuckEnv):
    def reset(self, seed=None):
        before = getattr(self, "velocity", np.zeros(2))
        super().reset(seed)
        self.velocity = before
        return self._observation()


@mutant("random_stream_continues", "resets without a seed")
class SeedOfTheClock(PuckEnv):
    def reset(self, seed=None):
        self.random = np.random.default_rng()
        return super().reset(seed)


@mutant("environments_are_independent", "does not depend on other environments")
class OnePuckForAll(PuckEnv):
    @property
    def velocity(self):
        return type(self).of_all

    @velocity.setter
    def velocity(self, value):
        type(self).of_all = value


@mutant("padding_has_no_effect", "`obs` differs from step 1")
class LastEntries(PuckEnv):
    def step(self, action):
        return super().step(action[-self.action_dim :])


@mutant("leaves_its_action_alone", "copy it first")
class InPlace(PuckEnv):
    def step(self, action):
        action *= 0.5
        return super().step(action)


@mutant("observations_stay_as_they_were", "a new array")
class OneArray(PuckEnv):
    def __init__(self, task):
        super().__init__(task)
        self.array = np.zeros(self.obs_dim, np.float32)

    def _observation(self):
        self.array[:] = super()._observation()
        return self.array


class Pixels(Picture):
    def draw(self):
        return self.env.pixels(super().draw())


class Drawn(PuckEnv):
    """An environment whose method ``pixels`` changes its pictures."""

    def camera(self, size):
        return nullcontext(Pixels(self, size))


@mutant("a_state_continues_its_episode", "`obs` differs from step 0")
class StateWithoutVelocity(PuckEnv):
    def set_state(self, state):
        velocity = self.velocity
        super().set_state(state)
        self.velocity = velocity


@mutant("a_state_continues_its_episode", "`steps_left` differs from step 0")
class StateWithoutTime(PuckEnv):
    def set_state(self, state):
        left = self.steps_left
        super().set_state(state)
        self.steps_left = left


@mutant("a_state_continues_its_episode", "differs from step")
class StateThatMoves(PuckEnv):
    def get_state(self):
        self.kept = list(super().get_state())
        return self.kept

    def step(self, action):
        found = super().step(action)
        if hasattr(self, "kept"):
            self.kept[0] = self.position
        return found


@mutant("pictures_show_the_state", "found: uint8 [96, 64, 3]")
class WidthFirst(Drawn):
    def pixels(self, drawn):
        return drawn.swapaxes(0, 1)


@mutant("pictures_show_the_state", "float64")
class Fractions(Drawn):
    def pixels(self, drawn):
        return drawn / 255


@mutant("pictures_show_the_state", "all are equal")
class EmptyTable(Drawn):
    def pixels(self, drawn):
        return np.zeros_like(drawn)


@mutant("drawing_changes_nothing", "`obs` differs from step 1")
class Brake(Drawn):
    def pixels(self, drawn):
        self.velocity = self.velocity + 0.1
        return drawn


class NoPictures(PuckEnv):
    """Not broken: a task need not be drawn."""

    def camera(self, size):
        raise UserError("there are no pictures of pucks")
