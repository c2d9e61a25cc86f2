"""The tasks of MT30 as Gymnasium environments; importing this module registers all of them.

    import gymnasium
    import fmbpo.tasks.gym

    env = gymnasium.make("fmbpo/walker-run-backwards-v0")

Gymnasium 1 does not find other packages automatically, but ``gymnasium.make`` imports a module
that the name begins with: ``gymnasium.make("fmbpo.tasks.gym:fmbpo/walker-run-backwards-v0")``.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from fmbpo.tasks.drawing import Camera
from fmbpo.tasks.env import TaskEnv
from fmbpo.tasks.film import SIZE
from fmbpo.tasks.mt30 import EPISODE_STEPS, MT30

Observation = NDArray[np.float32]


class GymTask(gymnasium.Env[Observation, Observation]):
    """A ``TaskEnv`` with Gymnasium's interface: same states, rewards and episodes.

    Observations have the task's width, actions are in [-1, 1]; a reward is the sum over the two
    control steps of an action, in [0, 2]. Episodes never terminate; they are truncated after
    ``EPISODE_STEPS`` steps.

    ``reset(seed=s)`` begins the same episode as ``TaskEnv.reset(s)`` and the study's evaluation
    with that seed; ``s`` is below 2**32. Without a seed, the first reset draws one, and later
    resets continue its random stream.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

    def __init__(
        self, task: str, render_mode: str | None = None, width: int = SIZE[0], height: int = SIZE[1]
    ) -> None:
        """``task``: a name that ``mt30_task`` knows; ``width``, ``height``: of pictures in pixels.

        Raises:
            UserError: no task of MT30 has that name.
            ValueError: the render mode is neither None nor "rgb_array".
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be 'rgb_array' or None, not {render_mode!r}")
        self.render_mode, self._size = render_mode, (width, height)
        self._task = TaskEnv(task, drawable=render_mode is not None)
        self._camera: Camera | None = None
        self._seeded = False
        self.metadata = {**self.metadata, "render_fps": 1 / self._task.step_seconds}
        self.observation_space = spaces.Box(-np.inf, np.inf, (self._task.obs_dim,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (self._task.action_dim,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; ``options`` are ignored, and the information is empty."""
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**32))
        self._seeded = True
        return self._task.reset(seed), {}

    def step(self, action: Observation) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """As ``TaskEnv.step``: (observation, reward, False, whether the episode is over, {})."""
        observation, reward = self._task.step(action)
        return observation, reward, False, not self._task.steps_left, {}

    def render(self) -> NDArray[np.uint8] | None:
        """The state as ``[height, width, 3]`` (see ``Camera``); None without a render mode."""
        if self.render_mode is None:
            return None
        if self._camera is None:
            self._camera = self._task.camera(self._size)
        return self._camera.draw()

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave the camera out; each makes its own when it draws."""
        return {**self.__dict__, "_camera": None}

    def close(self) -> None:
        """Free the camera."""
        if self._camera is not None:
            self._camera.close()
            self._camera = None


def environment_id(task: str) -> str:
    """Gymnasium's name for a task: ``fmbpo/TASK-v0``."""
    return f"fmbpo/{task}-v0"


for _task in MT30:
    if environment_id(_task) not in gymnasium.registry:  # if the module is imported again
        gymnasium.register(
            environment_id(_task),
            entry_point=f"{__name__}:{GymTask.__name__}",
            max_episode_steps=EPISODE_STEPS,
            kwargs={"task": _task},
        )
