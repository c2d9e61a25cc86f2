"""A batch of environments stepped together, and the process that holds one, without torch.

The process speaks over one socket, inherited as a file descriptor:

1. parent -> worker, pickled: a list of (task, seed), one for each environment, never none;
   worker -> parent: the first observations, float32 [n, OBS_WIDTH].
2. once per step: actions float32 [n, ACTION_WIDTH], answered by observations.
3. parent -> worker: an empty message; answered by the returns, float64 [n]. Then 1 again.

A failed worker answers with an empty message, then the error's text, and ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from fmbpo.tasks.env import SimulationError, TaskEnv
from fmbpo.tasks.mt30 import ACTION_WIDTH, OBS_WIDTH

_ORPHAN_CHECK_SECONDS = 5.0


class EnvBatch:
    """Environments stepped in lockstep; they are kept for the next start.

    Attributes:
        obs: the current padded observations, float32 [n, OBS_WIDTH]; each step overwrites them.
        returns: sums of rewards since the start, float64 [n].
    """

    def __init__(self) -> None:
        self._pool: dict[str, list[TaskEnv]] = {}
        self._envs: list[TaskEnv] = []
        self._seeds: list[int] = []
        self.obs = np.zeros((0, OBS_WIDTH), np.float32)
        self.returns = np.zeros(0, np.float64)

    def start(self, episodes: Sequence[tuple[str, int]]) -> None:
        """Begin an episode for each (task, seed), each as if its environment were new."""
        used: dict[str, int] = {}
        self._envs, self._seeds = [], [seed for _, seed in episodes]
        self.obs = np.zeros((len(episodes), OBS_WIDTH), np.float32)
        self.returns = np.zeros(len(episodes), np.float64)
        for i, (task, seed) in enumerate(episodes):
            built, k = self._pool.setdefault(task, []), used.get(task, 0)
            if k == len(built):
                built.append(TaskEnv(task))
            env, used[task] = built[k], k + 1
            self._envs.append(env)
            self.obs[i, : env.obs_dim] = env.reset(seed)

    def step(self, actions: NDArray[np.float32]) -> None:
        """Apply ``actions`` [n, ACTION_WIDTH] and update ``obs`` and ``returns``.

        Raises:
            SimulationError: an environment failed; the message names its task, step and seed.
        """
        for i, env in enumerate(self._envs):
            try:
                obs, reward = env.step(actions[i])
            except SimulationError as error:
                raise SimulationError(f"{error} (seed {self._seeds[i]})") from error
            self.obs[i, : env.obs_dim] = obs
            self.returns[i] += reward


def main(descriptor: int) -> None:
    """Serve the parent at the other end of the socket ``descriptor`` until it is gone."""
    # The parent answers Ctrl-C, and signals that a scheduler sends to all processes of a job.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    link = Connection(descriptor)
    try:
        _serve(link)
    except (EOFError, ConnectionError):
        pass  # the parent is gone
    except Exception as error:
        named = isinstance(error, SimulationError)
        text = str(error) if named else f"{type(error).__name__}: {error}"
        with contextlib.suppress(ConnectionError):
            link.send_bytes(b"")
            link.send(text)


def _serve(link: Connection) -> None:
    batch = EnvBatch()
    parent = os.getppid()
    while True:
        _wait(link, parent)
        batch.start(link.recv())
        link.send_bytes(batch.obs.data)
        while True:
            _wait(link, parent)
            message = link.recv_bytes()
            if not message:
                break
            batch.step(np.frombuffer(message, np.float32).reshape(-1, ACTION_WIDTH))
            link.send_bytes(batch.obs.data)
        link.send_bytes(batch.returns.data)


def _wait(link: Connection, parent: int) -> None:
    """Wait for a message. The socket closes with the parent, unless a fork of it holds it open."""
    while not link.poll(_ORPHAN_CHECK_SECONDS):
        if os.getppid() != parent:
            raise EOFError
