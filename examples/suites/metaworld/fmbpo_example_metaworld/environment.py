"""Episodes of Meta-World's tasks, simulated by the package ``metaworld``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbpo.errors import UserError
from fmbpo.tasks.drawing import Camera  # imports MuJoCo without a renderer
from fmbpo.tasks.suite import Drawing, SimulationError, TaskInfo

INSTALL = "pip install --no-deps metaworld==3.1.1"
"""``--no-deps``: it asks for exactly MuJoCo 3.3.0, and fmbpo for 3.17 or later."""
_VIEW = "corner4"
"""The camera of films, which hangs upside down."""


class MetaWorldEnv:
    """See `Environment`. Each reset draws positions and the goal, which the observation shows."""

    terminated = False

    def __init__(self, task: TaskInfo) -> None:
        self.task, self.obs_dim, self.action_dim = task, task.obs_dim, task.action_dim
        self.steps_left = 0  # no episode has begun
        self._env = _simulation(task.name)
        self._env.seed(0)

    @property
    def step_seconds(self) -> float:
        """See `Environment`."""
        return self.task.action_repeat * float(self._env.dt)

    def reset(self, seed: int | None = None) -> NDArray[np.float32]:
        """See `Environment`. As in TD-MPC2's data, a step of the action 0 follows unseen."""
        if seed is not None:
            self._env.seed(seed)
        obs, _ = self._env.reset()
        self._env.step(np.zeros(self.action_dim, np.float32))
        self.steps_left = self.task.episode_steps
        return np.asarray(obs, np.float32)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """See `Environment`."""
        if not self.steps_left:
            raise SimulationError(f"{self.task.name}: the episode is over; call reset()")
        given = np.asarray(action[: self.action_dim], np.float32)
        if given.shape != (self.action_dim,) or not np.isfinite(given).all():
            what = f"actions must be {self.action_dim} finite numbers: {given}"
            raise SimulationError(f"{self._where()}: {what}")
        total = 0.0
        for _ in range(self.task.action_repeat):
            obs, reward, *_ = self._env.step(np.clip(given, -1, 1))
            total += float(reward)
        found = np.asarray(obs, np.float32)
        if not (np.isfinite(found).all() and np.isfinite(total)):
            raise SimulationError(f"{self._where()}: an observation or a reward is not finite")
        self.steps_left -= 1
        return found, total

    def camera(self, size: tuple[int, int]) -> AbstractContextManager[Drawing]:
        """See `Environment`."""
        model = self._env.model
        return _Upright(model, self._env.data, size, model.camera(_VIEW).id)

    def _where(self) -> str:
        return f"{self.task.name}, step {self.task.episode_steps - self.steps_left}"


class _Upright(Camera):
    def draw(self) -> NDArray[np.uint8]:
        return super().draw()[::-1, ::-1].copy()


def _simulation(name: str) -> Any:
    """Meta-World's environment, which shows its goal and draws from its own random stream."""
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    except ImportError as error:
        what = f"Meta-World's simulator cannot be imported: {type(error).__name__}: {error}"
        remedy = f"{INSTALL} (or leave its tasks out of grid.tasks: world models need no simulator)"
        raise UserError(what, where=name, remedy=remedy) from error
    base: Any = ALL_V3_ENVIRONMENTS[f"{name.removeprefix('mw-')}-v3"]

    class Simulation(base):  # type: ignore[misc]
        model: Any

        def reset_mocap_welds(self) -> None:
            """Write the 11 numbers of a weld that MuJoCo 3.3 had; 3.17 has one more."""
            model = self.model
            welds = model.eq_data[:, :11]
            self.model = SimpleNamespace(nmocap=model.nmocap, eq_type=model.eq_type, eq_data=welds)
            super().reset_mocap_welds()
            self.model = model

    env = Simulation()
    env._partially_observable = False
    del env.sawyer_observation_space  # it was computed for a hidden goal
    env._set_task_called, env._freeze_rand_vec, env.seeded_rand_vec = True, False, True
    return env
