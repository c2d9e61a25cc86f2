"""Tasks, and suites of them: an order that fixes the tasks' numbers and the networks' widths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs
from attrs import frozen

from fmbpo.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SimulationError(RuntimeError):
    """An episode could not continue; the message names the task, the step and the reason."""


class Drawing(Protocol):
    """Pictures of an environment."""

    def draw(self) -> NDArray[np.uint8]:
        """The current state as RGB in 0..255, ``[height, width, 3]``."""


class Environment(Protocol):
    """Episodes of one task. ``fmbpo tasks check`` checks what is said here.

    Attributes:
        obs_dim: width of an observation.
        action_dim: width of an action.
        steps_left: agent steps until the episode is over at the latest; 0 once it is over.
        terminated: whether the last step led to a terminal state, which is not the case if the
            episode is only over because its time is up.
        step_seconds: simulated seconds of an agent step, the pace of films.
    """

    obs_dim: int
    action_dim: int
    steps_left: int
    terminated: bool

    @property
    def step_seconds(self) -> float:
        """See the class."""

    def reset(self, seed: int | None = None) -> NDArray[np.float32]:
        """Begin an episode; returns its first observation ``[obs_dim]``. An equal ``seed`` begins
        an equal episode; without one, the random stream continues."""

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """Apply the first ``action_dim`` entries of ``action``, in [-1, 1], for an agent step.

        Returns the next observation ``[obs_dim]`` and the reward, summed over the repeated steps.
        Raises `SimulationError` if the episode is over or was never begun, if the action is too
        short or not finite, and if the simulation diverges.
        """

    def camera(self, size: tuple[int, int]) -> AbstractContextManager[Drawing]:
        """Draws pictures of this width and height in pixels, if built ``drawable``. `UserError` if
        that is impossible."""


@runtime_checkable
class RestorableEnvironment(Environment, Protocol):
    """An environment whose episode can be continued from a saved state, as a planner in the
    simulator needs.

    A state holds everything on which the next observations, rewards and ends depend, given the
    actions: the physics with its time and the solver's warm start, all that the reset has drawn
    (targets, masses), ``steps_left``, the counters of wrappers, and ``terminated``. It holds the
    random stream only if steps draw from it; a planner then foresees what they draw.
    """

    def get_state(self) -> object:
        """The present state; later steps do not change it. `UserError` if it cannot be saved."""

    def set_state(self, state: object) -> None:
        """Continue from a state of this or another environment of the same task.

        Equal actions then lead to equal observations, rewards and ends, to the bit, and the
        environment that the state comes from does not notice. A state can be set many times.
        """


@frozen(kw_only=True)
class TaskInfo(ABC):
    """The properties of a task, known without building its environment.

    Attributes:
        name: letters, digits, dots, hyphens and single underscores.
        obs_dim: width of an unpadded observation.
        action_dim: width of an action.
        episode_steps: agent steps of the longest episode.
        action_repeat: the environment's own steps per agent step.
        largest_reward: of an agent step, if known.
        pwm_return: PWM's published mean return, if there is one.
        tdmpc2_return: TD-MPC2's.
    """

    name: str
    obs_dim: int
    action_dim: int
    episode_steps: int
    action_repeat: int
    largest_reward: float | None = None
    pwm_return: float | None = None
    tdmpc2_return: float | None = None

    @abstractmethod
    def make(self, drawable: bool = False) -> Environment:
        """A new environment; ``drawable``: for pictures. `UserError` if it cannot be built."""


@frozen(slots=False)
class Suite:
    """Tasks in an order; the networks of all runs on some of them have the widths of the suite.

    Attributes:
        name: for people.
        tasks: the tasks; a task's index is its place here.
        canonical: a task's name from any spelling of it.
    """

    name: str
    tasks: tuple[TaskInfo, ...]
    canonical: Callable[[str], str] = attrs.field(default=str.strip, eq=False, repr=False)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The tasks' names in order."""
        return tuple(task.name for task in self.tasks)

    @property
    def obs_width(self) -> int:
        """Width of the widest observation."""
        return max(task.obs_dim for task in self.tasks)

    @property
    def action_width(self) -> int:
        """Width of the widest action."""
        return max(task.action_dim for task in self.tasks)

    @property
    def episode_steps(self) -> int:
        """Agent steps of the longest episode of any task."""
        return max(task.episode_steps for task in self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[TaskInfo]:
        return iter(self.tasks)

    def __contains__(self, name: str) -> bool:
        return name in self._numbers

    def __getitem__(self, name: str) -> TaskInfo:
        """The task of this name, in any spelling. `UserError` as ``index``."""
        return self.tasks[self.index(name)]

    def index(self, name: str) -> int:
        """The number of the task of this name, in any spelling; `UserError`, naming the closest, if
        none has it."""
        found = self._numbers.get(self.canonical(name))
        if found is None:
            what = f"there is no task {name!r} in {self.name}"
            raise UserError(what, remedy=did_you_mean(name, self.names))
        return found

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}


def union(suites: Sequence[Suite]) -> Suite:
    """The tasks of all suites, one after another."""
    if len(suites) == 1:
        return suites[0]
    tasks = tuple(task for suite in suites for task in suite)
    return Suite(" + ".join(suite.name for suite in suites), tasks)
