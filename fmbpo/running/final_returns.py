"""Gathers the final returns of a grid for the summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fmbpo.base.metrics import after, before
from fmbpo.config.schema import EvaluationConfig
from fmbpo.data.sampler import Rows
from fmbpo.errors import UserError
from fmbpo.measure.evaluation import Evaluator
from fmbpo.measure.health import reality_health, returns_health
from fmbpo.measure.reality import check, predict
from fmbpo.measure.validation import mean_summarised, summarised
from fmbpo.running.replicates import Replicate
from fmbpo.runs.findings import Finding
from fmbpo.runs.summary import RealityCheck, SeedResult, TaskResult
from fmbpo.training.behaviour_cloning import act_of, clone
from fmbpo.training.cells import Cell
from fmbpo.training.dataset import Dataset
from fmbpo.training.policy_stage import FinalMeasures, PolicyStage

SAY_EVERY = 10.0
"""Seconds between two lines about the progress of behaviour cloning."""


Returns: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Returns of each episode, by task."""
Baselines: TypeAlias = dict[tuple[Hashable, ...], tuple[Returns, Returns]]
"""Returns of the random policy and of behaviour cloning, by all that they depend on."""


class FinalReturns:
    """Final returns of a grid, gathered stage by stage; ``say`` prints a line."""

    def __init__(self, say: Callable[[str], None], evaluation: EvaluationConfig) -> None:
        self.say, self.evaluation = say, evaluation
        self.cells: list[Cell] = []
        self.measured: list[FinalMeasures] = []
        self.planned: list[NDArray[np.float64]] = []
        """Returns of planning with each policy, if requested."""
        self.predictions: list[list[NDArray[np.float64]]] = []
        """Of each policy's imagined actions: what the replicates' world models predict."""
        self.unplanned: UserError | None = None
        """The failure of planning, if any; the policies' own results are kept."""
        self.random: Returns = {}
        self.cloned: Returns = {}
        """Returns of behaviour cloning, of the tasks whose data have actions."""

    def add(self, stage: PolicyStage) -> None:
        """Evaluate a trained stage, its policies before training, and planning."""
        self.cells += stage.cells
        self.measured += stage.final()
        self.update, self.discount = stage.eager_update, stage.learning.discount
        if self.evaluation.planner == "mppi" and self.unplanned is None:
            self._plan(stage)

    def _plan(self, stage: PolicyStage) -> None:
        def progress(done: int, steps: int) -> None:
            if done % 100 == 0:
                self.say(f"{stage.name}: planning, step {done} of {steps}")

        try:
            self.planned += list(stage.planned_returns(progress))
        except UserError as error:
            self.unplanned = UserError(
                error.what,
                where="planning in the world model",
                remedy="see the run's health, or change [planning], and run the command again; "
                "the policies' own results are kept",
            )
            self.unplanned.__cause__ = error

    def add_baselines(self, evaluator: Evaluator, data: Dataset, known: Baselines) -> None:
        """Evaluate the random policy on every task, and behaviour cloning on the training rows.

        ``known`` holds those of earlier runs of the command, and gets these.
        """
        tasks = tuple(dict.fromkeys(cell.task for cell in self.cells))
        key = data.id, tasks, self.evaluation.seed, self.evaluation.final_episodes
        if key not in known:
            known[key] = self._baselines(evaluator, data.train, tasks)
        self.random, self.cloned = known[key]

    def _baselines(
        self, evaluator: Evaluator, rows: Rows, tasks: Sequence[str]
    ) -> tuple[Returns, Returns]:
        episodes = self.evaluation.final_episodes
        random = dict(zip(tasks, evaluator.random(tasks, episodes), strict=True))
        policies, said = {}, -SAY_EVERY
        for number, task in enumerate(tasks, 1):
            if time.monotonic() - said >= SAY_EVERY:
                said = time.monotonic()
                self.say(f"behaviour cloning: {task}, {number} of {len(tasks)}")
            if (policy := clone(rows, task, evaluator.moved)) is not None:
                policies[task] = policy
        act = act_of(list(policies.values()))
        returns = evaluator.returns(act, list(policies), episodes)
        return random, dict(zip(policies, returns, strict=True))

    def add_predictions(self, models: Iterable[Replicate]) -> None:
        """Let the replicates' world models, one after another, predict what policies imagined."""
        self.predictions = [[] for _ in self.cells]
        for model in models:
            for i, cell in enumerate(self.cells):
                imagined = self.measured[i].imagination
                if model.task in (None, cell.task) and imagined.count:
                    seed = self.evaluation.seed
                    found = predict(self.update, model.pair, model.params, imagined, seed)
                    self.predictions[i].append(found)

    @cached_property
    def reality(self) -> list[RealityCheck | None]:
        """The reality check of each policy."""
        each = zip(self.measured, self.predictions, strict=True)
        return [check(one.imagination, predicted) for one, predicted in each]

    def tasks(self, data: Dataset) -> dict[str, TaskResult]:
        """The summary's table."""
        result = {}
        planned = [row.tolist() for row in self.planned] or [None] * len(self.cells)
        for task, random in self.random.items():
            mine = [i for i, cell in enumerate(self.cells) if cell.task == task]
            untrained = np.concatenate([self.measured[i].untrained for i in mine])
            result[task] = TaskResult(
                {
                    self.cells[i].label: SeedResult(
                        self.measured[i].returns.tolist(),
                        planned[i],
                        stochastic_returns=self.measured[i].stochastic.tolist(),
                        action_noise=self.measured[i].action_noise,
                        reality=self.reality[i],
                    )
                    for i in mine
                },
                random_return_mean=float(random.mean()),
                untrained_return_mean=float(untrained.mean()),
                reference_return=data.planner_return.get(task),
                pwm_return=data.suite[task].pwm_return,
                random_returns=random.tolist(),
                untrained_returns=untrained.tolist(),
                cloned_returns=self.cloned[task].tolist() if task in self.cloned else None,
            )
        return result

    def validation(self) -> dict[str, Any]:
        """Held-out measures of the cells' own world models, each on its cell's task: means over
        the cells, ``before_...`` and ``after_...`` learning beside the policies."""
        found = {}
        models = [one.model for one in self.measured if one.model is not None]
        for named, cells in zip((before, after), zip(*models, strict=True), strict=False):
            means = mean_summarised([summarised(cell) for cell in cells])
            found.update({named(name): value for name, value in means.items()})
        return found

    def health(self, data: Dataset) -> list[Finding]:
        """The gates that the final returns fail."""
        both = zip(self.cells, self.measured, strict=True)
        cells = map(str, self.cells)
        tasks = [data.suite[cell.task] for cell in self.cells]
        real = zip(tasks, self.reality, strict=True)
        return [
            *returns_health({str(cell): one.returns.tolist() for cell, one in both}),
            *reality_health(dict(zip(cells, real, strict=True)), self.discount),
        ]
