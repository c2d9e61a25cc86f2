"""Final returns of a grid, gathered stage by stage, as the summary has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fmbpo.errors import UserError
from fmbpo.measure.evaluation import Evaluator
from fmbpo.measure.health import returns_health
from fmbpo.pwm.optim import Params
from fmbpo.runs.findings import Finding
from fmbpo.runs.metrics import after, before
from fmbpo.runs.summary import SeedResult, TaskResult
from fmbpo.tasks.mt30 import task_info
from fmbpo.training.cells import Cell
from fmbpo.training.policies import PolicyTraining


class GridOutcome:
    """Final returns of a grid, gathered stage by stage."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []
        self.trained: list[NDArray[np.float64]] = []
        self.untrained: list[NDArray[np.float64]] = []
        self.planned: list[NDArray[np.float64]] = []
        """Returns of planning with each policy, where it was asked for."""
        self.random: dict[str, NDArray[np.float64]] = {}
        self.before: list[dict[str, float]] = []
        """Held-out measures of each cell's own world model before it learned, where it does."""
        self.after: list[dict[str, float]] = []
        """The same when it had learned."""

    def add(self, stage: PolicyTraining, untrained: tuple[Params, Params], episodes: int) -> None:
        """Evaluate a trained stage, and its policies as they were before training."""
        if stage.models is not None:
            self.before += stage.models.before
            self.after += stage.models.after
        self.cells += stage.cells
        self.trained += list(stage.returns(episodes))
        self.untrained += list(stage.returns(episodes, untrained))

    def add_planned(self, stage: PolicyTraining, say: Callable[[str], None]) -> None:
        """Evaluate a trained stage planning at every step; ``say`` takes lines for people."""

        def progress(done: int, steps: int) -> None:
            if done % 100 == 0:
                say(f"{stage.name}: planning, step {done} of {steps}")

        try:
            self.planned += list(stage.planned_returns(progress))
        except UserError as error:
            raise UserError(
                error.what,
                where="planning in the world model",
                remedy="the policies' own results are kept; see the run's health, or change "
                "[planning], and give the command again",
            ) from error

    def add_random(self, evaluator: Evaluator, episodes: int) -> None:
        """Evaluate the random policy on every task."""
        tasks = list(dict.fromkeys(cell.task for cell in self.cells))
        self.random = dict(zip(tasks, evaluator.random(tasks, episodes), strict=True))

    def tasks(self, planner_return: Mapping[str, float]) -> dict[str, TaskResult]:
        """The summary's table."""
        result = {}
        for task, random in self.random.items():
            mine = [i for i, cell in enumerate(self.cells) if cell.task == task]
            untrained = np.concatenate([self.untrained[i] for i in mine])
            result[task] = TaskResult(
                {str(self.cells[i].seed): self._seed(i) for i in mine},
                random_return_mean=float(random.mean()),
                untrained_return_mean=float(untrained.mean()),
                reference_return=planner_return.get(task),
                pwm_return=task_info(task).pwm_return,
                random_returns=random.tolist(),
                untrained_returns=untrained.tolist(),
            )
        return result

    def _seed(self, i: int) -> SeedResult:
        planned = self.planned[i].tolist() if self.planned else None
        return SeedResult(self.trained[i].tolist(), planned)

    def validation(self) -> dict[str, float]:
        """Means over the cells of their own world models' held-out measures, each on its cell's
        task, before and after they learned beside the policies: ``before_...``, ``after_...``."""
        found = {}
        for named, cells in ((before, self.before), (after, self.after)):
            shared = set.intersection(*(set(m) for m in cells)) if cells else set()
            names = [name for name in cells[0] if name in shared] if cells else []
            found.update({named(n): float(np.mean([m[n] for m in cells])) for n in names})
        return found

    def health(self) -> list[Finding]:
        """What is wrong with the final returns."""
        both = zip(self.cells, self.trained, strict=True)
        return returns_health({str(cell): row.tolist() for cell, row in both})
