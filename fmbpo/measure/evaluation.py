"""Returns of trained policies and of the random policy in the real simulator."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbpo.base.cores import usable_cores
from fmbpo.errors import UserError
from fmbpo.pwm.start import Past
from fmbpo.tasks.suite import SimulationError
from fmbpo.tasks.vector import Act, EpisodeRunner


@contextmanager
def threads(count: int, processes: int = 1, busy: int | None = None) -> Iterator[None]:
    """torch with this process's part of ``count`` CPU threads inside the block, at least one; 0:
    unchanged, but at most one per usable core. ``processes``: the number that share the machine, of
    which ``busy`` (all, if None) compute."""
    before = torch.get_num_threads()
    total = count or min(before * processes, usable_cores())
    torch.set_num_threads(max(total // (busy or processes), 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Recorded:
    """An ``Act`` that keeps the real steps ``[T, W + 1, E, O]`` up to every ``every``-th step, by
    step: W = ``warm_up``, or less at the start of an episode."""

    def __init__(self, act: Act, every: int, warm_up: int) -> None:
        self.act, self.every = act, every
        self.pasts: dict[int, Past] = {}
        self._latest: deque[tuple[Tensor, Tensor]] = deque(maxlen=warm_up)

    def __call__(self, obs_TEO: NDArray[np.float32], step: int) -> NDArray[np.float32]:
        """The actions of ``act``."""
        action_TEA = self.act(obs_TEO, step)
        obs, action = torch.from_numpy(obs_TEO), torch.from_numpy(action_TEA)
        if step == 0:
            self._latest.clear()
        if step % self.every == 0:
            steps = zip(*self._latest, (obs, action), strict=True)
            seen, taken = (torch.stack(x, 1) for x in steps)
            self.pasts[step] = Past(seen, taken[:, :-1])
        self._latest.append((obs, action))
        return action_TEA


class Evaluator:
    """Runs episodes with the same seeds for every policy, so that policies compare in pairs."""

    def __init__(
        self, runner: EpisodeRunner, seed: int, moved: Callable[[], None] = lambda: None
    ) -> None:
        """``moved`` is called after each step of the episodes."""
        self.runner, self.seed, self.moved = runner, seed, moved

    def random(self, tasks: Sequence[str], episodes: int) -> NDArray[np.float64]:
        """Returns ``[T, episodes]`` of actions uniform in [-1, 1]."""
        generator = np.random.default_rng(self.seed)

        def act(obs: NDArray[np.float32], _: int) -> NDArray[np.float32]:
            shape = (*obs.shape[:2], self.runner.suite.action_width)
            return generator.uniform(-1, 1, shape).astype(np.float32)

        return self.returns(act, tasks, episodes)

    def returns(
        self,
        act: Act,
        tasks: Sequence[str],
        episodes: int,
        steps: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float64]:
        """Returns ``[T, episodes]``: the sums of the rewards of ``run``, to the episodes' ends."""
        found: NDArray[np.float64] = np.nansum(self.run(act, tasks, episodes, steps, progress), -1)
        return found

    def run(
        self,
        act: Act,
        tasks: Sequence[str],
        episodes: int,
        steps: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float64]:
        """Rewards ``[T, episodes, steps]`` of ``act``; see ``EpisodeRunner.run``."""

        def stepped(done: int, of: int) -> None:
            self.moved()
            if progress is not None:
                progress(done, of)

        with _simulating():
            return self.runner.run(act, tasks, self._seeds(episodes), steps, stepped)

    def underway(
        self, act: Act, tasks: Sequence[str], episodes: int, steps: int | None = None
    ) -> Underway:
        """The episodes of ``returns``, begun. Until they end, the evaluator runs no others."""
        stepping = self.runner.stepping(act, tasks, self._seeds(episodes), steps)
        return Underway(stepping, self.moved)

    def _seeds(self, episodes: int) -> range:
        return range(self.seed, self.seed + episodes)


class Underway:
    """Episodes that go on while their process does other work."""

    def __init__(
        self,
        stepping: Generator[object, None, NDArray[np.float64]],
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        """``stepping``: as of ``EpisodeRunner.stepping``. ``moved`` is called after each step."""
        self._stepping, self._moved = stepping, moved
        self._end: NDArray[np.float64] | Exception | None = None
        self.advance()

    @property
    def over(self) -> bool:
        """Whether all episodes have ended, or failed."""
        return self._end is not None

    def advance(self) -> None:
        """Wait for the simulators' step, act, and let them simulate the next one; nothing if the
        episodes are ``over``."""
        if self.over:
            return
        try:
            with _simulating():
                next(self._stepping)
            self._moved()
        except StopIteration as end:
            self._end = end.value
        except Exception as error:  # raised to whoever asks for the returns
            self._end = error
        except BaseException:
            self._stepping.close()
            self._end = RuntimeError("the episodes were interrupted")
            raise

    def returns(self) -> NDArray[np.float64]:
        """Returns ``[T, episodes]``, after all further steps. Raises a step's exception."""
        while self._end is None:
            self.advance()
        if isinstance(self._end, Exception):
            raise self._end
        found: NDArray[np.float64] = np.nansum(self._end, -1)
        return found


@contextmanager
def _simulating() -> Iterator[None]:
    """A simulator that fails is a ``UserError``."""
    try:
        # Between two steps torch's further threads would spin on the cores that simulate.
        with threads(1):
            yield
    except SimulationError as error:
        raise UserError(
            str(error),
            where="evaluation in the simulator",
            remedy="if the policy diverged, lower the learning rate; if the simulator cannot "
            "run the episode, change evaluation.seed; the last checkpoint is kept",
        ) from error
