"""A batch of environments stepped together, and the process that holds one, without torch.

The process speaks over one socket, inherited as a file descriptor. The parent sends the name of a
method of `EnvBatch` with its argument; the worker answers with the result. A failed worker answers
with the error's text, and ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbpo.tasks.env import SimulationError, TaskEnv
from fmbpo.tasks.mt30 import OBS_WIDTH

_ORPHAN_CHECK_SECONDS = 5.0


class EnvBatch:
    """Environments stepped in lockstep; they are kept for the next start."""

    def __init__(self) -> None:
        self._pool: dict[str, list[TaskEnv]] = {}

    def send(self, method: str, argument: Any) -> None:
        """Call a method below; ``receive`` has its result, as from a worker."""
        self._answer: NDArray[Any] = getattr(self, method)(argument)

    def receive(self) -> NDArray[Any]:
        """The result, which the next call may overwrite."""
        return self._answer

    def start(self, episodes: Sequence[tuple[str, int]]) -> NDArray[np.float32]:
        """Begin an episode for each (task, seed), each as if its environment were new; the first
        observations, padded, [n, OBS_WIDTH]."""
        used: dict[str, int] = {}
        self._envs: list[tuple[TaskEnv, int]] = []
        self._obs = np.zeros((len(episodes), OBS_WIDTH), np.float32)
        self._returns = np.zeros(len(episodes), np.float64)
        for i, (task, seed) in enumerate(episodes):
            built, k = self._pool.setdefault(task, []), used.get(task, 0)
            if k == len(built):
                built.append(TaskEnv(task))
            env, used[task] = built[k], k + 1
            self._envs.append((env, seed))
            self._obs[i, : env.obs_dim] = env.reset(seed)
        return self._obs

    def step(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply ``actions`` [n, ACTION_WIDTH]; the next observations, in the same array.

        Raises:
            SimulationError: an environment failed; the message names its task, step and seed.
        """
        for i, (env, seed) in enumerate(self._envs):
            try:
                obs, reward = env.step(actions[i])
            except SimulationError as error:
                raise SimulationError(f"{error} (seed {seed})") from error
            self._obs[i, : env.obs_dim] = obs
            self._returns[i] += reward
        return self._obs

    def finish(self, _: None) -> NDArray[np.float64]:
        """The sums of rewards since the start, [n]."""
        return self._returns


def main(descriptor: int) -> None:
    """Serve the parent at the other end of the socket ``descriptor`` until it is gone."""
    # The parent answers Ctrl-C, and signals that a scheduler sends to all processes of a job.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    link, batch, parent = Connection(descriptor), EnvBatch(), os.getppid()
    with contextlib.suppress(EOFError, ConnectionError):  # the parent is gone
        while True:
            # The socket closes with the parent, unless a fork of it holds it open.
            while not link.poll(_ORPHAN_CHECK_SECONDS):
                if os.getppid() != parent:
                    return
            method, argument = link.recv()
            try:
                batch.send(method, argument)
            except Exception as error:
                named = isinstance(error, SimulationError)
                link.send(str(error) if named else f"{type(error).__name__}: {error}")
                return
            link.send(batch.receive())
