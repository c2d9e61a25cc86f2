"""A stage that trains policies, as the rest of a run sees it: cells and their measures."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbpo.base.metrics import DIAGNOSTICS_SECONDS, RETURN, Row
from fmbpo.config.schema import EvaluationConfig, PolicyLearningConfig
from fmbpo.measure.reality import Imagination
from fmbpo.measure.validation import Measures
from fmbpo.pwm.pair import Pair
from fmbpo.pwm.policy import PolicyUpdate
from fmbpo.runs.findings import Finding
from fmbpo.training.cells import Cell
from fmbpo.training.trees import Saved

Progress = Callable[[int, int], None]


@attrs.frozen(eq=False)
class FinalMeasures:
    """The final evaluation of one policy."""

    returns: NDArray[np.float64]
    """``[E]``, of the deterministic policy."""
    stochastic: NDArray[np.float64]
    """``[E]``, with the policy's noise drawn."""
    untrained: NDArray[np.float64]
    """``[E]``, of the policy before training; E is smaller, since one baseline covers all
    policies."""
    action_noise: float
    """The noise of its actions (``Actors.action_noise``) in the states that it visited."""
    imagination: Imagination
    """Its imagined episodes from these states."""
    model: tuple[Measures, Measures] | None
    """Held-out measures of its own world model, if it has one, before and after it learned."""


class PolicyStage(ABC):
    """Policies in training; all measures are in the order of ``cells``."""

    name: str
    cells: Sequence[Cell]
    evaluation: EvaluationConfig
    learning: PolicyLearningConfig
    pair: Pair
    """The modules; stacked parameters replace the policy's."""
    eager_update: PolicyUpdate

    @abstractmethod
    def step(self, iteration: int) -> dict[str, Tensor]:
        """One update of every cell; metrics ``[cells]``."""

    @abstractmethod
    def returns(self, episodes: int) -> NDArray[np.float64]:
        """``[cells, episodes]`` returns of the deterministic policies."""

    @property
    @abstractmethod
    def overlaps(self) -> bool:
        """Whether an evaluation that has begun goes on during the next steps."""

    @abstractmethod
    def begin_returns(self, episodes: int) -> None:
        """Begin the episodes of ``returns`` with the present policies; each ``step`` then advances
        them by one step in the simulator, if there is one left."""

    @abstractmethod
    def returns_over(self) -> bool:
        """Whether these episodes have ended."""

    @abstractmethod
    def end_returns(self) -> NDArray[np.float64]:
        """Their returns, as of ``returns``, after all steps that are left."""

    @abstractmethod
    def model_measures(self) -> list[dict[str, float]]:
        """Held-out measures of each cell's own world model; empty without such models."""

    @abstractmethod
    def gradients(self) -> dict[str, Tensor]:
        """Measures ``[cells]`` of the actor's gradients (``fmbpo.pwm.diagnostics``)."""

    @abstractmethod
    def final(self) -> list[FinalMeasures]:
        """The final evaluation of each cell."""

    @abstractmethod
    def planned_returns(self, progress: Progress) -> NDArray[np.float64]:
        """``[cells, planning.episodes]`` returns of planning in the world models at every step,
        from plans of the policy."""

    @abstractmethod
    def health(self) -> list[Finding]:
        """Gates that the cells' own world models did not pass when last measured."""

    @abstractmethod
    def count_flops(self) -> int:
        """Floating-point operations of one update of all cells."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Policies, critics and their own world models, if any, stacked along the cells."""

    @abstractmethod
    def state(self) -> Saved:
        """Optimisers, return scales, generators: a tree of cells (``fmbpo.distributed.shares``)."""

    @abstractmethod
    def load(self, weights: Mapping[str, Tensor], state: Saved) -> None:
        """Continue from a checkpoint."""

    def describe(self, metrics: Mapping[str, Tensor]) -> list[Row]:
        """Means over the cells, then each cell's metrics, in one transfer from the device."""
        values = torch.stack(list(metrics.values())).tolist()
        means = [sum(row) / len(row) for row in values]
        cells = zip(zip(*values, strict=True), self.cells, strict=True)
        named = [
            Row(dict(zip(metrics, own, strict=True)), c.task, c.seed, c.number) for own, c in cells
        ]
        return [Row(dict(zip(metrics, means, strict=True))), *named]

    def evaluate(self, iteration: int) -> list[Row]:
        """Mean returns in the simulator, of all cells and of each."""
        return self._rows(self.returns(self.evaluation.episodes))

    def begin_evaluation(self) -> None:
        """Begin ``evaluate``; only if the stage ``overlaps``."""
        self.begin_returns(self.evaluation.episodes)

    def end_evaluation(self) -> list[Row]:
        """The result of ``evaluate`` when it was begun."""
        return self._rows(self.end_returns())

    def _rows(self, returns_TE: NDArray[np.float64]) -> list[Row]:
        means = returns_TE.mean(1)
        rows = [Row({RETURN: float(means.mean())})]
        measured = self.model_measures() or [{}] * len(self.cells)
        for cell, mean, measures in zip(self.cells, means, measured, strict=True):
            rows.append(Row({RETURN: float(mean), **measures}, cell.task, cell.seed, cell.number))
        return rows

    def diagnose(self) -> list[Row]:
        """``gradients`` on the starts of the next step."""
        began = time.monotonic()
        means, *cells = self.describe(self.gradients())
        seconds = {DIAGNOSTICS_SECONDS: time.monotonic() - began}
        return [Row({**means.values, **seconds}), *cells]
