"""Evaluation episodes in parallel worker processes, in lockstep with one policy call per step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbpo.base.worker import Worker, answer
from fmbpo.tasks.suite import Environment, SimulationError, Suite, TaskInfo

# (observations float32 [R, E, O], step) -> actions float32 [R, E, A], of the suite's widths
Act = Callable[[NDArray[np.float32], int], NDArray[np.float32]]


class EpisodeRunner:
    """Runs whole episodes of many tasks at once; a context manager.

    Workers start at the first ``run`` and stay, with their environments, for later ones. Results do
    not depend on the number of workers: the policy always receives the full batch.
    """

    def __init__(self, workers: int, suite: Suite) -> None:
        """``workers`` processes; 0 steps the environments in this process. ``suite``: the tasks,
        and the widths of observations and actions."""
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, not {workers}")
        self._count, self.suite = workers, suite
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
        steps: int | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> NDArray[np.float64]:
        """Run an episode of ``tasks[r]`` with each seed, for each row r; all in lockstep.

        An episode that is over keeps its last observation; actions for it have no effect. The run
        ends with the last episode.

        Args:
            act: called once per step with all observations, float32 [R, E, O] (padded with zeros;
                a new array), and the step's number 0..steps-1; returns actions [R, E, A], of which
                a task uses the first ``action_dim``. O and A are the suite's widths.
            tasks: the task of each of the R rows; a task may occur in several.
            seeds: the seeds of each row's E episodes.
            steps: agent steps to run, at most those of the longest episode, which is the default.
            progress: called after each step with (steps done, all steps).

        Returns:
            The rewards of all steps, float64 [R, E, steps]; NaN after the end of an episode.

        Raises:
            UserError: the suite does not have a task, or a worker ended.
            ValueError: ``steps`` is out of range, or ``act`` returned a wrong shape.
            SimulationError: an environment failed; the message names task, step and seed. Any
                exception ends the workers.
        """
        with closing(self.stepping(act, tasks, seeds, steps)) as stepping:
            while True:
                try:
                    step = next(stepping)
                except StopIteration as end:
                    rewards: NDArray[np.float64] = end.value
                    return rewards
                progress(*step)

    def stepping(
        self,
        act: Act,
        tasks: Sequence[str],
        seeds: Sequence[int],
        steps: int | None = None,
    ) -> Generator[tuple[int, int], None, NDArray[np.float64]]:
        """``run`` step by step: yields (step, all steps) while the workers simulate it, and returns
        the rewards. Until it ends, or is closed, the runner can run nothing else."""
        infos = [self.suite[task] for task in tasks]
        longest = max((info.episode_steps for info in infos), default=0)
        steps = longest if steps is None else steps
        if infos and not 0 <= steps <= longest:
            raise ValueError(f"steps must be within 0..{longest}, not {steps}")
        episodes = [(info, int(seed)) for info in infos for seed in seeds]
        shape = (len(tasks), len(seeds))
        rewards = np.full((*shape, steps), np.nan)
        if not episodes:
            return rewards
        try:
            workers = self._started(len(episodes))
            wanted = (*shape, self.suite.action_width)
            _send(workers, "start", episodes, self.suite.obs_width)
            for t in range(steps):
                seen = _received(workers)
                obs, running = np.ascontiguousarray(seen[:, :-1]), seen[:, -1]
                if not running.any():
                    break
                actions = np.asarray(act(obs.reshape(*shape, -1), t))
                if actions.shape != wanted:
                    raise ValueError(f"act returned shape {actions.shape}, not {wanted}")
                flat = actions.astype(np.float32, copy=False).reshape(-1, wanted[-1])
                _send(workers, "step", flat)
                yield t + 1, steps
            else:
                _received(workers)
            _send(workers, "finish", None)
            found = _received(workers)
            rewards[..., : found.shape[1]] = found.reshape(*shape, found.shape[1])
            return rewards
        except BaseException:
            self.close()  # a worker may be at any point of the exchange
            raise

    def _started(self, episodes: int) -> Sequence[Worker | EnvBatch]:
        """The workers for this number of episodes."""
        count = min(self._count, episodes)
        while len(self._workers) < count:
            self._workers.append(Worker(__name__))
        return self._workers[:count] or [self._inline]


def _send(
    workers: Sequence[Worker | EnvBatch],
    method: str,
    values: Sequence[Any] | NDArray[Any] | None,
    *more: object,
) -> None:
    """Let all workers do ``method`` with their part of the values, and ``more``.

    Episode i belongs to worker i % n, so that each has a share of slow and fast tasks.
    """
    n = len(workers)
    for w, worker in enumerate(workers):
        worker.send((method, None if values is None else values[w::n], *more))


def _received(workers: Sequence[Worker | EnvBatch]) -> NDArray[Any]:
    """The workers' answers, in the order of the episodes."""
    n, answers = len(workers), [worker.receive() for worker in workers]
    found = np.empty((sum(map(len, answers)), *answers[0].shape[1:]), answers[0].dtype)
    for w, part in enumerate(answers):
        found[w::n] = part
    return found


class EnvBatch:
    """Environments stepped in lockstep, and reused by later starts."""

    def __init__(self) -> None:
        self._pool: dict[TaskInfo, list[Environment]] = {}

    def send(self, request: tuple[Any, ...]) -> None:
        """Call a method below; ``receive`` returns its result, as for a worker."""
        method, *arguments = request
        self._answer: NDArray[Any] = getattr(self, method)(*arguments)

    def receive(self) -> NDArray[Any]:
        """The result, which the next call may overwrite."""
        return self._answer

    def start(self, episodes: Sequence[tuple[TaskInfo, int]], width: int) -> NDArray[np.float32]:
        """Begin an episode for each (task, seed), each as if in a new environment.

        Returns [n, width + 1]: the first observations, padded, and whether the episode goes on.
        """
        used: dict[TaskInfo, int] = {}
        self._envs: list[tuple[Environment, int]] = []
        self._seen = np.zeros((len(episodes), width + 1), np.float32)
        self._rewards: list[NDArray[np.float64]] = []
        for i, (task, seed) in enumerate(episodes):
            built, k = self._pool.setdefault(task, []), used.get(task, 0)
            if k == len(built):
                built.append(task.make())
            env, used[task] = built[k], k + 1
            self._envs.append((env, seed))
            self._seen[i, : env.obs_dim] = env.reset(seed)
            self._seen[i, -1] = env.steps_left > 0
        return self._seen

    def step(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply ``actions`` [n, A]; return what follows, as ``start``, in the same array.

        Raises `SimulationError`, naming task, step and seed, if an environment fails.
        """
        rewards = np.full(len(self._envs), np.nan)
        for i, (env, seed) in enumerate(self._envs):
            if not env.steps_left:
                continue
            try:
                obs, reward = env.step(actions[i])
            except SimulationError as error:
                raise SimulationError(f"{error} (seed {seed})") from error
            self._seen[i, : env.obs_dim] = obs
            self._seen[i, -1] = env.steps_left > 0
            rewards[i] = reward
        self._rewards.append(rewards)
        return self._seen

    def finish(self, _: None) -> NDArray[np.float64]:
        """The rewards of all steps since the start, [n, steps]; NaN behind an episode's end."""
        return np.array(self._rewards, np.float64).reshape(-1, len(self._envs)).T


def serve(descriptor: int) -> None:
    """Run a worker process; a request is the name of a method of `EnvBatch` and its argument."""
    batch = EnvBatch()

    def reply(request: tuple[Any, ...]) -> NDArray[Any]:
        batch.send(request)
        return batch.receive()

    answer(descriptor, reply)
