"""The cells of a grid, one policy each, and the stages that train them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import attrs

from fmbpo.base.metrics import seed_label
from fmbpo.config.schema import Experiment
from fmbpo.errors import UserError
from fmbpo.training.dataset import Dataset


@attrs.frozen
class Cell:
    """One policy of the grid: its task, the seed of its replicate, and its number in it."""

    task: str
    seed: int
    number: int = 0

    @property
    def label(self) -> str:
        """The seed in tables and records: ``42``, and ``42.1``, ``42.2`` for further policies."""
        return seed_label(self.seed, self.number)

    @property
    def purpose(self) -> tuple[str, ...]:
        """The words by which the cell's random streams differ from others of its seed."""
        return (self.task, f"policy {self.number}") if self.number else (self.task,)

    def __str__(self) -> str:
        return f"{self.task}/{self.label}"


def grid_tasks(experiment: Experiment, data: Dataset) -> list[str]:
    """The tasks to train policies for; ``UserError`` for a task that the data set lacks."""
    for task in experiment.grid.tasks:
        if task not in data.tasks:
            raise UserError(
                f"the data set has no episodes of task {task!r} to start imagination from",
                where="grid.tasks",
                remedy=f"choose among {', '.join(data.tasks)}, or another data set",
            )
    return experiment.grid.tasks or data.tasks


def grid_cells(experiment: Experiment, tasks: Sequence[str]) -> list[Cell]:
    """The cells of these tasks: by replicate if each has its own pretrained world model, then by
    task."""
    grid = experiment.grid
    numbers = range(grid.policies_per_model)
    cells = [Cell(task, seed, n) for task in tasks for seed in grid.seeds for n in numbers]
    if experiment.needs_pretraining:
        cells.sort(key=lambda cell: grid.seeds.index(cell.seed))
    return cells


def stages(experiment: Experiment, cells: Sequence[Cell]) -> dict[str, Sequence[Cell]]:
    """The cells of each training stage by its name.

    ``cells`` are in the order of ``grid_cells``. Those of a stage train in one world model, at most
    ``policy_learning.stack`` at once (0: all).
    """
    stack = experiment.of_policies.policy_learning.stack
    groups: list[Sequence[Cell]] = []
    for _, together in groupby(cells, lambda c: experiment.needs_pretraining and c.seed):
        group = list(together)
        size = stack or len(group)
        groups += [group[i : i + size] for i in range(0, len(group), size)]
    return {f"policies/{i}" if groups[1:] else "policies": g for i, g in enumerate(groups)}
