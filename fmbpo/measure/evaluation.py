"""Returns in the real simulator: trained policies, and the random policy beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fmbpo.errors import UserError
from fmbpo.tasks.env import EPISODE_STEPS, SimulationError
from fmbpo.tasks.mt30 import ACTION_WIDTH
from fmbpo.tasks.vector import Act, EpisodeRunner


class Evaluator:
    """Runs episodes with fixed seeds, the same for every policy, so that they compare in pairs."""

    def __init__(
        self, runner: EpisodeRunner, seed: int, moved: Callable[[], None] = lambda: None
    ) -> None:
        """``moved`` is called after each step of the episodes."""
        self.runner, self.seed, self.moved = runner, seed, moved

    def random(self, tasks: Sequence[str], episodes: int) -> NDArray[np.float64]:
        """Returns ``[T, episodes]`` of actions uniform in [-1, 1]."""
        generator = np.random.default_rng(self.seed)

        def act(obs: NDArray[np.float32], _: int) -> NDArray[np.float32]:
            shape = (*obs.shape[:2], ACTION_WIDTH)
            return generator.uniform(-1, 1, shape).astype(np.float32)

        return self.run(act, tasks, episodes, EPISODE_STEPS)

    def run(
        self,
        act: Act,
        tasks: Sequence[str],
        episodes: int,
        steps: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float64]:
        """Returns ``[T, episodes]`` of what ``act`` does; see ``EpisodeRunner.run``."""

        def stepped(done: int, of: int) -> None:
            self.moved()
            if progress is not None:
                progress(done, of)

        # Between two steps torch's further threads would spin on the cores that simulate.
        seeds, threads = range(self.seed, self.seed + episodes), torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self.runner.run(act, tasks, seeds, steps, stepped)
        except SimulationError as error:
            raise UserError(
                str(error),
                where="evaluation in the simulator",
                remedy="the last checkpoint is kept; a policy that diverged wants a lower "
                "learning rate, an episode that the simulator cannot do another evaluation.seed",
            ) from error
        finally:
            torch.set_num_threads(threads)
