"""Policies in training whose cells are spread over the processes of a run: the leader's side.

Every method gives the followers an order (``fmbpo.running.following``), does the same for the
leader's own cells, and joins the results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbpo.distributed.group import Failed, Group
from fmbpo.distributed.shares import joined, part_of, shares
from fmbpo.hookspecs import WorldModel
from fmbpo.measure.evaluation import Evaluator
from fmbpo.runs.findings import Finding
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.initial_model import InitialModel
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.policy_stage import FinalMeasures, PolicyStage, Progress
from fmbpo.training.trees import Saved


def policy_stage(
    name: str,
    cells: Sequence[Cell],
    context: Context,
    model: InitialModel,
    module: WorldModel,
    evaluator: Evaluator,
) -> PolicyStage:
    """The stage in this process, or spread over the group's. ``module``: built from ``model``."""
    group = context.group
    group.order("policies", name, cells, model)
    own = PolicyTraining(name, cells[group.share(len(cells))], context, module, evaluator)
    return SpreadPolicies(own, cells, group) if group.size > 1 else own


class SpreadPolicies(PolicyStage):
    """The cells of all processes; the leader has the first ones."""

    def __init__(self, own: PolicyTraining, cells: Sequence[Cell], group: Group) -> None:
        self.own, self.cells, self.group = own, cells, group
        self.name, self.learning, self.pair = own.name, own.learning, own.pair
        self.eager_update, self.evaluation = own.eager_update, own.evaluation
        every = shares(len(cells), group.size)
        self.shares = [share for share in every if share.stop > share.start]
        self.counts = [share.stop - share.start for share in every]

    def _each(self, name: str, *arguments: object, own: tuple[object, ...] = ()) -> list[Any]:
        """The results of ``PolicyTraining.NAME(*arguments)`` by process. ``own``: the leader's
        further arguments."""
        self.group.order(name, *arguments)
        found: object
        try:
            found = getattr(self.own, name)(*arguments, *own)
        except Exception as error:  # raised when all have answered, so that the run may go on
            found = Failed(error)
        return self.group.answers(found)[: len(self.shares)]

    def step(self, iteration: int) -> dict[str, Tensor]:
        """See ``PolicyStage``."""
        self.group.order_step(iteration)
        own = self.own.step(iteration)
        mine = torch.stack(list(own.values()))
        whole = torch.cat([mine, *self.group.received(mine, self.counts[1:])], 1)
        return dict(zip(own, whole, strict=True))

    def returns(self, episodes: int) -> NDArray[np.float64]:
        """See ``PolicyStage``."""
        found: NDArray[np.float64] = joined(self._each("returns", episodes))
        return found

    @property
    def overlaps(self) -> bool:
        """See ``PolicyStage``."""
        return self.own.overlaps

    def begin_returns(self, episodes: int) -> None:
        """See ``PolicyStage``."""
        self._each("begin_returns", episodes)

    def returns_over(self) -> bool:
        """See ``PolicyStage``; of the leader's cells."""
        return self.own.returns_over()

    def end_returns(self) -> NDArray[np.float64]:
        """See ``PolicyStage``."""
        found: NDArray[np.float64] = joined(self._each("end_returns"))
        return found

    def model_measures(self) -> list[dict[str, float]]:
        """See ``PolicyStage``."""
        found: list[dict[str, float]] = joined(self._each("model_measures"))
        return found

    def gradients(self) -> dict[str, Tensor]:
        """See ``PolicyStage``."""
        found: dict[str, Tensor] = joined(self._each("gradients"))
        return found

    def final(self) -> list[FinalMeasures]:
        """See ``PolicyStage``."""
        found: list[FinalMeasures] = joined(self._each("final"))
        return found

    def planned_returns(self, progress: Progress) -> NDArray[np.float64]:
        """See ``PolicyStage``; ``progress`` is the leader's."""
        found: NDArray[np.float64] = joined(self._each("planned_returns", own=(progress,)))
        return found

    def health(self) -> list[Finding]:
        """See ``PolicyStage``."""
        found: list[Finding] = joined(self._each("health"))
        return found

    def count_flops(self) -> int:
        """See ``PolicyStage``."""
        return sum(self._each("count_flops"))

    def weights(self) -> dict[str, Tensor]:
        """See ``PolicyStage``."""
        found: dict[str, Tensor] = joined(self._each("weights"))
        return found

    def state(self) -> Saved:
        """See ``PolicyStage``."""
        found: Saved = joined(self._each("state"))
        return found

    def load(self, weights: Mapping[str, Tensor], state: Saved) -> None:
        """See ``PolicyStage``."""
        saved = dict(weights), state
        self.group.order("load", *saved)
        self.own.load(*part_of(saved, self.shares[0]))
