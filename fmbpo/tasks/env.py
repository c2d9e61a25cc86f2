"""One MT30 task as an environment: dm_control underneath, action repeat 2, 500 agent steps."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from fmbpo.tasks.custom import BUILDERS
from fmbpo.tasks.mt30 import ACTION_REPEAT, EPISODE_STEPS, mt30_task
from fmbpo.tasks.simulator import PhysicsError, common, suite
from fmbpo.tasks.suite import SimulationError

if TYPE_CHECKING:
    from fmbpo.tasks.drawing import Camera

_SKY = re.compile(rb"<texture[^>]*skybox[^>]*/>")


class TaskEnv:
    """A task of MT30.

    Observations are float32 with the task's width ``obs_dim`` (unpadded). Rewards are sums over the
    two repeated control steps, so in [0, 2]. Episodes never terminate early: each has
    ``EPISODE_STEPS`` agent steps.

    Attributes:
        name: the study's name for the task.
        obs_dim: width of an observation.
        action_dim: width of an action.
        env: the ``dm_control.rl.control.Environment`` underneath.
        steps_left: agent steps until the episode is over.
        terminated: always False.
    """

    terminated = False

    def __init__(self, name: str, drawable: bool = False) -> None:
        """Build a task of MT30, else UserError; ``drawable``: with the sky, for pictures."""
        info = mt30_task(name)
        self.name, self.obs_dim, self.action_dim = info.name, info.obs_dim, info.action_dim
        with _reading_models(drawable):
            if info.name in BUILDERS:
                self.env = BUILDERS[info.name]()
            else:
                self.env = suite.load(info.domain, info.task, {"random": 0})
        self._task, self._physics = self.env.task, self.env.physics
        self._substeps = round(self.env.control_timestep() / self._physics.timestep())
        self.steps_left = 0

    @property
    def step_seconds(self) -> float:
        """See `Environment`."""
        return ACTION_REPEAT * float(self.env.control_timestep())

    def camera(self, size: tuple[int, int]) -> Camera:
        """See `Environment`; the view is from the model's first camera, as in dm_control."""
        from fmbpo.tasks.drawing import Camera

        return Camera(self.env.physics.model.ptr, self.env.physics.data.ptr, size)

    def reset(self, seed: int | None = None) -> NDArray[np.float32]:
        """Start an episode and return its first observation, [obs_dim].

        With ``seed``, it is the first episode of a new environment with that seed; without, the
        next episode of the current random stream, whose initial seed is 0.
        """
        if seed is not None:
            self._task._random = np.random.RandomState(seed)
        try:
            observation = self.env.reset().observation
        except PhysicsError as error:
            raise SimulationError(f"{self.name}, reset with seed {seed}: {error}") from error
        self.steps_left = EPISODE_STEPS
        return flat(observation)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """Apply the first ``action_dim`` entries of ``action`` for two control steps.

        The range is [-1, 1]; the simulator clips values outside it. Returns the observation
        [obs_dim] after the second control step, and the sum of the two rewards.

        Raises:
            SimulationError: the action is too short or not finite, the simulation diverged, or the
                episode is over or was never started.
        """
        if not self.steps_left:
            raise SimulationError(f"{self.name}: the episode is over; call reset()")
        control = np.asarray(action[: self.action_dim], np.float64)
        if control.shape != (self.action_dim,):
            wanted = f"{self.action_dim} actions are needed, not shape {control.shape}"
            raise SimulationError(f"{self._where()}: {wanted}")
        if not np.isfinite(control).all():
            raise SimulationError(f"{self._where()}: the action is not finite: {control}")
        task, physics = self._task, self._physics
        reward = 0.0
        try:
            # Equivalent to env.step() twice, without the first observation.
            for _ in range(ACTION_REPEAT):
                task.before_step(control, physics)
                physics.step(self._substeps)
                task.after_step(physics)
                reward += float(task.get_reward(physics))
        except PhysicsError as error:
            where, self.steps_left = self._where(), 0
            raise SimulationError(f"{where}: the simulation diverged: {error}") from error
        self.steps_left -= 1
        return flat(task.get_observation(physics)), reward

    def _where(self) -> str:
        return f"{self.name}, step {EPISODE_STEPS - self.steps_left}"


def flat(observation: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    """dm_control's observation as one vector."""
    return np.concatenate([np.ravel(v) for v in observation.values()]).astype(np.float32)


@contextlib.contextmanager
def _reading_models(sky: bool) -> Iterator[None]:
    """Make dm_control read its models without warnings, and without the sky unless ``sky``.

    The sky's texture takes 10 MB in each compiled model.
    """

    def without_sky(text: bytes) -> bytes:
        return text if sky else _SKY.sub(b"", text)

    def keep(record: logging.LogRecord) -> bool:
        return "settotalmass" not in record.getMessage()  # deprecated; the stock cheetah uses it

    read, log = common.read_model, logging.getLogger("absl")
    assets = {name: without_sky(text) for name, text in common.ASSETS.items()}
    with (
        mock.patch.dict(common.ASSETS, assets),
        mock.patch.object(common, "read_model", lambda file: without_sky(read(file))),
        mock.patch.object(log, "filters", [*log.filters, keep]),
    ):
        yield
