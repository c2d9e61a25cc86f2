"""Evaluation episodes in parallel worker processes, in lockstep with one policy call per step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbpo.base.worker import Worker, answer
from fmbpo.tasks.env import EPISODE_STEPS, SimulationError, TaskEnv
from fmbpo.tasks.mt30 import ACTION_WIDTH, OBS_WIDTH, task_info

# (observations float32 [R, E, OBS_WIDTH], step) -> actions float32 [R, E, ACTION_WIDTH]
Act = Callable[[NDArray[np.float32], int], NDArray[np.float32]]


class EpisodeRunner:
    """Runs whole episodes of many tasks at once; a context manager.

    Workers start at the first ``run`` and stay, with their environments, for later ones. Results do
    not depend on the number of workers: the policy always receives the full batch.
    """

    def __init__(self, workers: int) -> None:
        """``workers`` processes; 0 steps the environments in this process."""
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, not {workers}")
        self._count = workers
        self._workers: list[Worker] = []
        self._inline = EnvBatch()

    def __enter__(self) -> EpisodeRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and delete the environments; a later ``run`` starts new ones."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.close()
        self._inline = EnvBatch()

    def run(
        self,
        act: Act,
        tasks: Sequence[str],
        seeds: Sequence[int],
        steps: int = EPISODE_STEPS,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> NDArray[np.float64]:
        """Run an episode of ``tasks[r]`` with each seed, for each row r; all in lockstep.

        Args:
            act: called once per step with all observations, float32 [R, E, OBS_WIDTH] (padded
                with zeros; a new array), and the step's number 0..steps-1; returns actions
                [R, E, ACTION_WIDTH], of which a task uses the first ``action_dim``.
            tasks: the task of each of the R rows; a task may occur in several.
            seeds: the seeds of each row's E episodes.
            steps: agent steps to run, at most 500.
            progress: called after each step with (steps done, all steps).

        Returns:
            The rewards of all steps, float64 [R, E, steps].

        Raises:
            UserError: a task is not one of MT30, or a worker ended.
            ValueError: ``steps`` is out of range, or ``act`` returned a wrong shape.
            SimulationError: an environment failed; the message names task, step and seed. Any
                exception ends the workers.
        """
        if not 0 <= steps <= EPISODE_STEPS:
            raise ValueError(f"steps must be within 0..{EPISODE_STEPS}, not {steps}")
        names = [task_info(task).name for task in tasks]
        episodes = [(name, int(seed)) for name in names for seed in seeds]
        shape = (len(tasks), len(seeds))
        if not episodes:
            return np.zeros((*shape, steps), np.float64)
        try:
            workers = self._started(len(episodes))
            obs = _ask(workers, "start", episodes)
            for t in range(steps):
                actions = np.asarray(act(obs.reshape(*shape, OBS_WIDTH), t))
                if actions.shape != (*shape, ACTION_WIDTH):
                    wanted = (*shape, ACTION_WIDTH)
                    raise ValueError(f"act returned shape {actions.shape}, not {wanted}")
                flat = actions.astype(np.float32, copy=False).reshape(-1, ACTION_WIDTH)
                obs = _ask(workers, "step", flat)
                progress(t + 1, steps)
            return _ask(workers, "finish", None).reshape(*shape, steps)
        except BaseException:
            self.close()  # a worker may be at any point of the exchange
            raise

    def _started(self, episodes: int) -> Sequence[Worker | EnvBatch]:
        """The workers for this number of episodes."""
        count = min(self._count, episodes)
        while len(self._workers) < count:
            self._workers.append(Worker(__name__))
        return self._workers[:count] or [self._inline]


def _ask(
    workers: Sequence[Worker | EnvBatch], method: str, values: Sequence[Any] | NDArray[Any] | None
) -> NDArray[Any]:
    """The answers of all workers to ``method`` with their part of the values.

    Episode i belongs to worker i % n, so that each has a share of slow and fast tasks.
    """
    n = len(workers)
    for w, worker in enumerate(workers):
        worker.send((method, None if values is None else values[w::n]))
    answers = [worker.receive() for worker in workers]
    found = np.empty((sum(map(len, answers)), *answers[0].shape[1:]), answers[0].dtype)
    for w, part in enumerate(answers):
        found[w::n] = part
    return found


class EnvBatch:
    """Environments stepped in lockstep, and reused by later starts."""

    def __init__(self) -> None:
        self._pool: dict[str, list[TaskEnv]] = {}

    def send(self, request: tuple[str, Any]) -> None:
        """Call a method below; ``receive`` returns its result, as for a worker."""
        method, argument = request
        self._answer: NDArray[Any] = getattr(self, method)(argument)

    def receive(self) -> NDArray[Any]:
        """The result, which the next call may overwrite."""
        return self._answer

    def start(self, episodes: Sequence[tuple[str, int]]) -> NDArray[np.float32]:
        """Begin an episode for each (task, seed), each as if in a new environment; return the first
        observations, padded, [n, OBS_WIDTH]."""
        used: dict[str, int] = {}
        self._envs: list[tuple[TaskEnv, int]] = []
        self._obs = np.zeros((len(episodes), OBS_WIDTH), np.float32)
        self._rewards: list[NDArray[np.float64]] = []
        for i, (task, seed) in enumerate(episodes):
            built, k = self._pool.setdefault(task, []), used.get(task, 0)
            if k == len(built):
                built.append(TaskEnv(task))
            env, used[task] = built[k], k + 1
            self._envs.append((env, seed))
            self._obs[i, : env.obs_dim] = env.reset(seed)
        return self._obs

    def step(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply ``actions`` [n, ACTION_WIDTH]; return the next observations, in the same array.

        Raises `SimulationError`, naming task, step and seed, if an environment fails.
        """
        rewards = np.empty(len(self._envs), np.float64)
        for i, (env, seed) in enumerate(self._envs):
            try:
                obs, reward = env.step(actions[i])
            except SimulationError as error:
                raise SimulationError(f"{error} (seed {seed})") from error
            self._obs[i, : env.obs_dim] = obs
            rewards[i] = reward
        self._rewards.append(rewards)
        return self._obs

    def finish(self, _: None) -> NDArray[np.float64]:
        """The rewards of all steps since the start, [n, steps]."""
        return np.array(self._rewards, np.float64).reshape(-1, len(self._envs)).T


def serve(descriptor: int) -> None:
    """Run a worker process; a request is the name of a method of `EnvBatch` and its argument."""
    batch = EnvBatch()

    def reply(request: tuple[str, Any]) -> NDArray[Any]:
        batch.send(request)
        return batch.receive()

    answer(descriptor, reply)
