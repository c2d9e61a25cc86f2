"""Any Gymnasium environment with Box spaces as a task (``fmbpo.tasks.table``)."""

from __future__ import annotations

import json
import math
import os
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from fmbpo.base.text import text_of
from fmbpo.errors import UserError
from fmbpo.tasks.gymnasium_state import restore, saved
from fmbpo.tasks.suite import Drawing, SimulationError, TaskInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    import gymnasium

_FPS = 30
"""Frames per second of an environment whose metadata name none."""


@frozen(kw_only=True)
class GymnasiumTask(TaskInfo):
    """A task of a `fmbpo.tasks.table.GymnasiumTable`. ``kwargs``: as JSON."""

    gymnasium: str
    kwargs: str

    def make(self, drawable: bool = False) -> GymnasiumEnv:
        """See `TaskInfo`."""
        given = {"render_mode": "rgb_array"} if drawable else {}
        # Without the registered time limit: the task counts its own steps.
        env = _built(self.gymnasium, self.kwargs, max_episode_steps=-1, **given)
        return GymnasiumEnv(self, env)


@cache
def built_task(
    name: str, gymnasium_id: str, kwargs: str, action_repeat: int, episode_steps: int
) -> GymnasiumTask:
    """See ``GymnasiumTable.task``; ``kwargs``: as JSON."""
    env = _built(gymnasium_id, kwargs)
    try:
        obs, action = (box_of(env, which) for which in ("observation_space", "action_space"))
        limit = env.spec.max_episode_steps if env.spec else None
        if not episode_steps and limit is None:
            raise UserError(
                f"the environment {gymnasium_id!r} has no limit of the steps of an episode",
                remedy="give one: episode_steps = 1000",
            )
        return GymnasiumTask(
            name=name,
            obs_dim=math.prod(obs.shape),
            action_dim=math.prod(action.shape),
            episode_steps=episode_steps or math.ceil((limit or 0) / action_repeat),
            action_repeat=action_repeat,
            gymnasium=gymnasium_id,
            kwargs=kwargs,
        )
    finally:
        env.close()


def _built(gymnasium_id: str, kwargs: str, **more: Any) -> gymnasium.Env[Any, Any]:
    """``gymnasium.make``; `UserError` if it fails."""
    import gymnasium

    import fmbpo.tasks.simulator  # noqa: F401 (MuJoCo is first imported without a renderer)

    try:
        given = {**json.loads(kwargs), "disable_env_checker": True, **more}
        made: gymnasium.Env[Any, Any] = gymnasium.make(gymnasium_id, **given)
        return made
    except Exception as error:  # foreign code may raise anything
        what = f"{type(error).__name__}: {' '.join(text_of(error).split())}"
        raise UserError(
            f"the Gymnasium environment {gymnasium_id!r} cannot be built: {what}",
            remedy='write the id of a registered environment, or "MODULE:ID" for one that a '
            "module registers, and install what it imports",
        ) from error


def box_of(env: Any, which: str) -> gymnasium.spaces.Box:
    """A space of an environment or of recorded data; `UserError` unless it is a Box, and bounded if
    it is of actions."""
    from gymnasium.spaces import Box

    space = getattr(env, which)
    if not isinstance(space, Box):
        remedy = "use an environment whose spaces are Box, or register a wrapped one"
        if which == "observation_space":
            remedy = "register it in gymnasium.wrappers.FlattenObservation, as MODULE:ID"
        what = f"its {which} is {type(space).__name__}, not Box"
        raise UserError(what, remedy=remedy)
    if which == "action_space" and not space.is_bounded():
        what = "its action_space has no bounds, so that [-1, 1] cannot be scaled to it"
        remedy = "register it in a wrapper with bounded actions, as MODULE:ID"
        raise UserError(what, remedy=remedy)
    return space


class GymnasiumEnv:
    """See `RestorableEnvironment`. Spaces are flattened, and [-1, 1] is scaled to the bounds."""

    def __init__(self, task: GymnasiumTask, env: gymnasium.Env[Any, Any]) -> None:
        self.name, self.obs_dim, self.action_dim = task.name, task.obs_dim, task.action_dim
        self.env = env
        self._steps, self._repeat = task.episode_steps, task.action_repeat
        space = box_of(env, "action_space")
        self._shape, self._dtype = space.shape, space.dtype
        low, high = (x.astype(np.float64).ravel() for x in (space.low, space.high))
        self._centre, self._half = (high + low) / 2, (high - low) / 2
        self.steps_left, self.terminated = 0, False

    @property
    def step_seconds(self) -> float:
        """See `Environment`."""
        return self._repeat / float(self.env.metadata.get("render_fps") or _FPS)

    def reset(self, seed: int | None = None) -> NDArray[np.float32]:
        """See `Environment`."""
        with self._simulating():
            observation, _ = self.env.reset(seed=seed)
        self.steps_left, self.terminated = self._steps, False
        return self._flat(observation)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """See `Environment`; an episode can end within the repeated steps."""
        if not self.steps_left:
            raise SimulationError(f"{self.name}: the episode is over; call reset()")
        given = np.asarray(action[: self.action_dim], np.float64)
        if given.shape != (self.action_dim,) or not np.isfinite(given).all():
            what = f"{self.action_dim} finite actions are needed, not {given}"
            raise SimulationError(f"{self._where()}: {what}")
        scaled = self._centre + self._half * np.clip(given, -1.0, 1.0)
        control = scaled.astype(self._dtype).reshape(self._shape)
        total, truncated = 0.0, False
        with self._simulating():
            for _ in range(self._repeat):
                observation, reward, terminated, truncated, _ = self.env.step(control)
                total += float(reward)
                self.terminated = bool(terminated)
                if self.terminated or truncated:
                    break
        found = self._flat(observation)
        if not (np.isfinite(found).all() and math.isfinite(total)):
            raise SimulationError(f"{self._where()}: an observation or a reward is not finite")
        self.steps_left = 0 if self.terminated or truncated else self.steps_left - 1
        return found, total

    def get_state(self) -> object:
        """See `RestorableEnvironment`."""
        try:
            return self.steps_left, self.terminated, saved(self.env)
        except Exception as error:  # foreign code may raise anything
            what = f"its environment cannot be copied: {type(error).__name__}: {text_of(error)}"
            remedy = "let the environment and its wrappers hold what copy.deepcopy can copy"
            raise UserError(what, where=self.name, remedy=remedy) from error

    def set_state(self, state: Any) -> None:
        """See `RestorableEnvironment`."""
        self.steps_left, self.terminated, copies = state
        restore(self.env, copies)

    @contextmanager
    def camera(self, size: tuple[int, int]) -> Iterator[Drawing]:
        """See `Environment`; the environment's own picture, scaled to ``size``."""
        yield _Picture(self, size)

    @contextmanager
    def _simulating(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # foreign code may raise anything
            where, self.steps_left = self._where(), 0
            what = f"{type(error).__name__}: {' '.join(text_of(error).split())}"
            raise SimulationError(f"{where}: the environment failed: {what}") from error

    def _where(self) -> str:
        return f"{self.name}, step {self._steps - self.steps_left}"

    @staticmethod
    def _flat(observation: Any) -> NDArray[np.float32]:
        return np.asarray(observation, np.float32).ravel()


@frozen
class _Picture:
    env: GymnasiumEnv
    size: tuple[int, int]

    def draw(self) -> NDArray[np.uint8]:
        from PIL import Image

        from fmbpo.tasks.drawing import platform_variable

        where = f"pictures of {self.env.name}"
        try:
            with mock.patch.dict(os.environ, platform_variable()):
                seen = np.asarray(self.env.env.render())
        except Exception as error:  # foreign code may raise anything
            what = f"its environment cannot draw: {type(error).__name__}: {text_of(error)}"
            remedy = "install what its documentation names for pictures"
            raise UserError(what, where=where, remedy=remedy) from error
        if seen.ndim != 3 or seen.shape[-1] != 3:
            what, remedy = "its environment draws no RGB picture", "film another task"
            raise UserError(what, where=where, remedy=remedy)
        scaled = Image.fromarray(seen.astype(np.uint8)).resize(self.size)
        return np.asarray(scaled)
