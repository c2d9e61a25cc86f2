"""The offline data as the engine uses it: training rows, held-out rows, references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
import torch

from fmbpo.data.embedded import embedded_path
from fmbpo.data.sampler import Rows, action_masks
from fmbpo.data.store import Episodes, held_out, load
from fmbpo.engine import seeding
from fmbpo.errors import UserError, did_you_mean
from fmbpo.experiment.conventions import ConventionsConfig
from fmbpo.experiment.schema import DataConfig
from fmbpo.tasks.mt30 import ACTION_WIDTH, MT30, task_info

EMBEDDED = "embedded"


@attrs.frozen
class Dataset:
    """A data set, split, with its tasks' ids being those of MT30 (the world model's)."""

    id: str
    tasks: list[str]
    train: Rows
    held_out: Rows
    planner_return: dict[str, float]
    """Mean return of the planner that collected the data, by task; empty where none did."""


def load_dataset(config: DataConfig, device: torch.device) -> Dataset:
    """Read, check and split the configured store. Errors are the store's own ``UserError``s."""
    path = embedded_path() if config.path == EMBEDDED else Path(config.path)
    episodes = load(path)
    tasks = _chosen(episodes, config.tasks, path)
    index_E = torch.tensor([task_info(t).index for t in episodes.tasks])[
        torch.from_numpy(episodes.episode_task.astype(np.int64))
    ]
    used = np.isin(episodes.episode_task, [episodes.tasks.index(t) for t in tasks])
    kept = held_out(episodes)
    masks = action_masks([info.action_dim for info in MT30.values()], ACTION_WIDTH)
    rows = Rows(episodes, index_E, masks, device)
    for what, chosen in (("to train on", used & ~kept), ("to validate on", used & kept)):
        if not chosen.any():
            raise UserError(
                f"the data set has no episodes {what}",
                where=str(path),
                remedy="give at least two episodes of a task (data.tasks chooses the tasks)",
            )

    planner = {
        t: float(episodes.planner_return[t]["mean"]) for t in tasks if t in episodes.planner_return
    }
    train, held = (rows.select(torch.from_numpy(e)) for e in (used & ~kept, used & kept))
    return Dataset(episodes.id, tasks, train, held, planner)


def by_conventions(data: Dataset, conventions: ConventionsConfig) -> Dataset:
    """The data that policies learn from: which episodes, and whether actions are masked.

    Drawn episodes are the same for every cell, whatever else is in its grid.
    """
    train = data.train
    if not conventions.action_mask:
        train = train.unmasked()
    if conventions.episodes == "with_replacement":
        train = train.redrawn(seeding.generator(0, "episodes"))
    return attrs.evolve(data, train=train)


def _chosen(episodes: Episodes, wanted: Sequence[str], path: Path) -> list[str]:
    present = [episodes.tasks[i] for i in np.unique(episodes.episode_task)]
    for task in wanted:
        if task not in present:
            raise UserError(
                f"the data set has no episodes of task {task!r}",
                where=str(path),
                remedy=f"{did_you_mean(task, present)} (data.tasks)",
            )
    return [t for t in MT30 if t in (wanted or present)]


def check_horizon(rows: Rows, horizon: int, key: str = "pretrain.horizon") -> None:
    """``UserError`` where an episode is too short for a slice of ``horizon`` + 1 rows."""
    shortest = int((rows.end_E - rows.start_E).min())
    if shortest <= horizon:
        raise UserError(
            f"an episode of {shortest} rows is too short for a slice of {horizon + 1}",
            where="the data set",
            remedy=f"lower {key}, or leave short episodes out of the data set",
        )
