"""One MT30 task as an environment: dm_control underneath, action repeat 2, 500 agent steps."""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "disable")

import numpy as np
from dm_control import suite
from numpy.typing import NDArray

ACTION_REPEAT = 2
EPISODE_STEPS = 500


class TaskEnv:
    """A task of the MT30 set.

    Observations are float32 of the task's own width (unpadded), rewards are sums over the two
    repeated control steps, so in [0, 2]. Nothing terminates early.
    """

    def __init__(self, name: str) -> None:
        domain, task = name.replace("-", "_").split("_", 1)
        self.name = name
        self.env = suite.load("ball_in_cup" if domain == "cup" else domain, task, {"random": 0})
        self.action_dim = int(self.env.action_spec().shape[0])

    def reset(self, seed: int | None = None) -> NDArray[np.float32]:
        """Start an episode; with ``seed`` from a fresh random stream, else from the running one."""
        if seed is not None:
            self.env.task._random = np.random.RandomState(seed)
        return self._flat(self.env.reset().observation)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """Apply the first ``action_dim`` entries of ``action`` for two control steps."""
        control = np.asarray(action[: self.action_dim], np.float64)
        reward = 0.0
        for _ in range(ACTION_REPEAT):
            result = self.env.step(control)
            reward += result.reward
        return self._flat(result.observation), reward

    def _flat(self, observation: dict[str, NDArray[np.float64]]) -> NDArray[np.float32]:
        return np.concatenate([np.ravel(v) for v in observation.values()]).astype(np.float32)
