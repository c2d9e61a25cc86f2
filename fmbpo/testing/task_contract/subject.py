"""The subject of a check of tasks: one task of a suite, and episodes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from fmbpo.tasks.suite import Environment, Suite, TaskInfo
from fmbpo.testing.outcomes import ContractError, expect

INTERFACE = "fmbpo/tasks/suite.py"
"""The file that describes suites, tasks and environments."""
STEPS = 20
"""Steps of the episodes that are compared."""

Actions = NDArray[np.float32]


@attrs.frozen
class Trace:
    """An episode, or its first T steps; lists with T + 1 entries, ``rewards`` with T.

    The first entry is what follows the reset. Observations are copies.
    """

    obs: list[NDArray[Any]] = attrs.field(factory=list)
    rewards: list[Any] = attrs.field(factory=list)
    steps_left: list[int] = attrs.field(factory=list)
    terminated: list[bool] = attrs.field(factory=list)

    def note(self, env: Environment, obs: NDArray[Any]) -> None:
        """Add the state of the environment after a reset or a step."""
        self.obs.append(obs.copy())
        self.steps_left.append(env.steps_left)
        self.terminated.append(env.terminated)

    @property
    def time_is_up(self) -> bool:
        """Whether the episode's last step was the last that it could have; False for episodes of
        one step, which may well terminate in it."""
        return len(self.rewards) > 1 and self.steps_left[-2:] == [1, 0]

    def difference(self, other: Trace) -> str:
        """How another episode differs from this one; empty if it does not."""
        for name, ours in attrs.asdict(self, recurse=False).items():
            theirs = getattr(other, name)
            for t, pair in enumerate(zip(ours, theirs, strict=False)):
                if not equal(*pair):
                    return f"`{name}` differs from step {t} on"
            if len(ours) != len(theirs):
                return f"one episode ends after {len(ours)} steps, the other after {len(theirs)}"
        return ""


@attrs.frozen(eq=False, slots=False)
class TaskSubject:
    """One task of a suite; its results are computed once, for all checks."""

    task: TaskInfo
    suite: Suite

    @cached_property
    def patterns(self) -> list[Actions]:
        """The actions of the ``episodes``: random ones, 1, -1 and 0."""
        shape = self.task.episode_steps, self.task.action_dim
        constant = [np.full(shape, value, np.float32) for value in (1, -1, 0)]
        return [self.actions(steps=shape[0]), *constant]

    @cached_property
    def episodes(self) -> list[Trace]:
        """A whole episode with each of the ``patterns``, in a new environment."""
        return [played(self.task.make(), given, i) for i, given in enumerate(self.patterns)]

    @cached_property
    def beginning(self) -> Trace:
        """The first steps of an episode with the seed 0 and ``actions()``, which new environments
        repeat; other checks compare theirs with it."""
        first, second = (played(self.task.make(), self.actions()) for _ in range(2))
        expect(
            not first.difference(second),
            "equal seeds and actions give equal episodes",
            "draw all random numbers from a generator that `reset` makes from its seed",
            "two new environments differ",
        )
        return first

    def expect_beginning(self, trace: Trace, expected: str, remedy: str) -> None:
        """`ContractError` if the episode is not ``beginning``."""
        difference = self.beginning.difference(trace)
        expect(not difference, expected, remedy, difference)

    def actions(self, seed: int = 0, steps: int = STEPS) -> Actions:
        """Random actions, ``[steps, action_dim]``."""
        shape = steps, self.task.action_dim
        return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)

    def played_to_the_end(self) -> Environment:
        """An environment after the shortest episode, which is terminated if one is."""
        order = sorted(range(len(self.episodes)), key=lambda i: len(self.episodes[i].obs))
        which = next((i for i in order if self.episodes[i].terminated[-1]), order[0])
        env = self.task.make()
        played(env, self.patterns[which], which)
        return env


def equal(one: Any, other: Any) -> bool:
    """Whether two observations or numbers are equal; NaN equals NaN."""
    arrays = [np.asarray(value, np.float64) for value in (one, other)]
    return np.array_equal(arrays[0], arrays[1], equal_nan=True)


def played(
    env: Environment,
    actions: Iterable[Actions],
    seed: int | None = 0,
    between: Callable[[int], object] = lambda t: None,
) -> Trace:
    """An episode with these actions; it ends with them, if not before. ``between``: called with t
    after the reset and after each step t."""
    trace = Trace()
    trace.note(env, reset(env, seed))
    between(0)
    continued(env, actions, trace, between)
    return trace


def continued(
    env: Environment,
    actions: Iterable[Actions],
    trace: Trace,
    between: Callable[[int], object] = lambda t: None,
) -> None:
    """Add the steps with these actions to an episode."""
    for t, action in enumerate(actions, 1):
        if not env.steps_left:
            break
        obs, reward = step(env, action.copy())
        trace.note(env, obs)
        trace.rewards.append(reward)
        between(t)


def reset(env: Environment, seed: int | None = None) -> NDArray[Any]:
    """``env.reset``; `ContractError` if its result is no observation."""
    return _observation(env.reset(seed), "reset")


def step(env: Environment, action: Actions) -> tuple[NDArray[Any], Any]:
    """``env.step``; `ContractError` if its result is no observation and reward."""
    found: Any = env.step(action)
    if not isinstance(found, tuple) or len(found) != 2:
        remedy = "return these two; the end of an episode is in `terminated` and `steps_left`"
        size = f" of {len(found)}" if isinstance(found, tuple) else ""
        what = f"a {type(found).__name__}{size}"
        raise ContractError("`step` returns an observation and a reward", remedy, what)
    return _observation(found[0], "step"), found[1]


def _observation(found: Any, method: str) -> NDArray[Any]:
    if not isinstance(found, np.ndarray):
        expected = f"the observation that `{method}` returns is a numpy array"
        raise ContractError(expected, "return one, float32 [obs_dim]", f"a {type(found).__name__}")
    return found
