"""The offline data: training rows, held-out rows, references."""

from __future__ import annotations

import attrs
import numpy as np
import torch
from torch import Tensor

from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.schema import DataConfig
from fmbpo.data.embedded import store_path
from fmbpo.data.residence import residence
from fmbpo.data.sampler import Rows, action_masks
from fmbpo.data.store import Store, held_out, open_store
from fmbpo.errors import UserError, did_you_mean
from fmbpo.tasks.mt30 import MT30, task_info
from fmbpo.training import seeding
from fmbpo.training.residence_choice import choose


@attrs.frozen
class Dataset:
    """A split data set; its task indices are those of MT30."""

    id: str
    tasks: list[str]
    train: Rows
    held_out: Rows
    planner_return: dict[str, float]
    """Mean return of the planner that collected the data, by task; empty if no planner did."""
    weight_K: Tensor | None = None
    """Mean number of slices per episode and epoch in pretraining, for each of MT30's tasks; None:
    one of each."""


def load_dataset(config: DataConfig, device: torch.device) -> Dataset:
    """Open, check and split the configured store; its rows are read at their first use.

    Raises ``UserError`` as ``open_store``, and if there is nothing to train or validate on.
    """
    store = open_store(store_path(config.path))
    tasks = chosen_tasks(store, config)
    index_E = torch.tensor([task_info(t).index for t in store.tasks])[
        torch.from_numpy(store.episode_task.astype(np.int64))
    ]
    used = np.isin(store.episode_task, [store.tasks.index(t) for t in tasks])
    kept = held_out(store)
    for what, chosen in (("to train on", used & ~kept), ("to validate on", used & kept)):
        if not chosen.any():
            raise UserError(
                f"the data set has no episodes {what}",
                where=str(store.path),
                remedy="provide at least two episodes of a task (data.tasks chooses the tasks)",
            )
    place = residence(store, choose(config, store, device), device)
    rows = Rows(store.episode_ends, place, index_E, action_masks())
    recorded = store.attributes.get("planner_return", {})
    planner = {t: float(recorded[t]["mean"]) for t in tasks if t in recorded}
    train, held = (rows.select(torch.from_numpy(e)) for e in (used & ~kept, used & kept))
    weight_K = None
    if config.weights:
        weights = [config.weights.get(task, 1.0) for task in MT30]
        weight_K = torch.tensor(weights, dtype=torch.float64)
    return Dataset(store.id, tasks, train, held, planner, weight_K)


def by_conventions(data: Dataset, conventions: ConventionsConfig) -> Dataset:
    """The data that policies learn from under these conventions on episodes and action masks.

    Drawn episodes are the same for every cell, whatever its grid.
    """
    train = data.train
    if not conventions.action_mask:
        train = train.unmasked()
    if conventions.episodes == "with_replacement":
        train = train.redrawn(seeding.generator(0, "episodes"))
    return attrs.evolve(data, train=train)


def chosen_tasks(store: Store, config: DataConfig) -> list[str]:
    """The tasks to use. ``UserError`` for a key that names a task without episodes."""
    present = [store.tasks[i] for i in np.unique(store.episode_task)]
    tasks = [t for t in MT30 if t in (config.tasks or present)]
    for key, named, known in (
        ("data.tasks", config.tasks, present), ("data.weights", config.weights, tasks)
    ):  # fmt: skip
        for task in named:
            if task not in known:
                raise UserError(
                    f"{key} names task {task!r}, but the data set has no episodes of it to use",
                    where=str(store.path),
                    remedy=f"{did_you_mean(task, known)} (data.tasks, data.weights)",
                )
    return tasks


def check_horizon(rows: Rows, horizon: int, key: str = "pretrain.horizon") -> None:
    """``UserError`` if an episode is too short for a slice of ``horizon`` + 1 rows."""
    shortest = int((rows.end_E - rows.start_E).min())
    if shortest <= horizon:
        raise UserError(
            f"an episode of {shortest} rows is too short for a slice of {horizon + 1}",
            where="the data set",
            remedy=f"lower {key}, or remove short episodes from the data set",
        )
