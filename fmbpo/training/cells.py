"""The cells of a grid, one policy per task and seed, and the stages that train them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import attrs

from fmbpo.config.schema import Experiment
from fmbpo.errors import UserError
from fmbpo.training.dataset import Dataset

T = TypeVar("T")


@attrs.frozen
class Cell:
    """One policy of the grid: its task and its seed."""

    task: str
    seed: int

    def __str__(self) -> str:
        return f"{self.task}/{self.seed}"


def grid_tasks(experiment: Experiment, data: Dataset) -> list[str]:
    """The tasks to train policies for; ``UserError`` for a task that the data set lacks."""
    assert experiment.grid is not None
    for task in experiment.grid.tasks:
        if task not in data.tasks:
            raise UserError(
                f"the data set has no episodes of task {task!r} to start imagination from",
                where="grid.tasks",
                remedy=f"choose among {', '.join(data.tasks)}, or another data set",
            )
    return experiment.grid.tasks or data.tasks


def stages(cells: Sequence[T], stack: int) -> dict[str, Sequence[T]]:
    """The cells of each training stage by its name; at most ``stack`` train at once, 0: all."""
    size = stack or len(cells)
    groups = [cells[i : i + size] for i in range(0, len(cells), size)]
    return {f"policies/{i}" if groups[1:] else "policies": g for i, g in enumerate(groups)}
