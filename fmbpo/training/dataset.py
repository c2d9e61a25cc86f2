"""The offline data: training rows, held-out rows, references."""

from __future__ import annotations

import json
import math

import attrs
import numpy as np
import torch
from torch import Tensor

from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.schema import DataConfig
from fmbpo.data.embedded import store_path
from fmbpo.data.residence import residence
from fmbpo.data.sampler import Rows
from fmbpo.data.store import Store, held_out, open_store
from fmbpo.data.store_format import REWARDS
from fmbpo.errors import UserError, did_you_mean
from fmbpo.tasks.known import NO_OWN, Own, suite_of
from fmbpo.tasks.suite import Suite
from fmbpo.training import seeding
from fmbpo.training.residence_choice import choose


@attrs.frozen
class Dataset:
    """A split data set; its task indices are those of its suite."""

    id: str
    suite: Suite
    """The whole suites of all tasks in the store, whichever are used."""
    tasks: list[str]
    train: Rows
    held_out: Rows
    planner_return: dict[str, float]
    """Mean return of the planner that collected the data, by task; empty if no planner did."""
    rewards: tuple[float, float] | None = None
    """The smallest and the largest reward, if the store says them."""
    weight_K: Tensor | None = None
    """Mean number of slices per episode and epoch in pretraining, for each task of the suite; None:
    one of each."""


def load_dataset(config: DataConfig, device: torch.device, own: Own = NO_OWN) -> Dataset:
    """Open, check and split the configured store; its rows are read at their first use.

    ``own``: the experiment's definitions of tasks. Raises ``UserError`` as ``open_store``, if there
    is nothing to train or validate on, and if a task is not defined or has other sizes.
    """
    store = open_store(store_path(config.path))
    suite = store_suite(store, own)
    tasks = chosen_tasks(store, config, suite)
    index_E = torch.tensor([suite.index(t) for t in store.tasks])[
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
    terminated = torch.from_numpy(store.episode_terminated)
    rows = Rows(store.episode_ends, place, index_E, suite, terminated)
    recorded = store.attributes.get("planner_return", {})
    planner = {t: float(recorded[t]["mean"]) for t in tasks if t in recorded}
    train, held = (rows.select(torch.from_numpy(e)) for e in (used & ~kept, used & kept))
    weight_K = None
    if config.weights:
        weights = [config.weights.get(task, 1.0) for task in suite.names]
        weight_K = torch.tensor(weights, dtype=torch.float64)
    low, high = store.attributes.get(REWARDS, (None, None))
    rewards = None if low is None else (float(low), float(high))
    return Dataset(store.id, suite, tasks, train, held, planner, rewards, weight_K)


def store_suite(store: Store, own: Own) -> Suite:
    """The whole suites of the store's tasks. ``UserError`` for a task that neither a suite nor the
    experiment has, or that has other sizes than in the store."""
    for name, table in store.own_tasks.items():
        if name not in own:
            lines = "; ".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
            raise UserError(
                f"the data set has task {name!r}, which the experiment does not define",
                where=str(store.path),
                remedy=f"add the table [tasks.{name}]; the data were made with {lines}",
            )
    suite = suite_of(store.tasks, {name: own[name] for name in store.own_tasks})
    sizes = store.attributes["obs_dims"], store.attributes["action_dims"]
    for name, *recorded in zip(store.tasks, *sizes, strict=True):
        expected = [suite[name].obs_dim, suite[name].action_dim]
        if recorded != expected:
            raise UserError(
                f"task {name!r} has {recorded} numbers per observation and action in the data set, "
                f"{expected} in the simulator",
                where=str(store.path),
                remedy="use the environment that the data were made in, or collect the data again",
            )
    if (store.layout.obs_width, store.layout.action_width) != (suite.obs_width, suite.action_width):
        raise UserError(
            f"rows of {store.layout.obs_width} and {store.layout.action_width} numbers, but the "
            f"suite {suite.name} has {suite.obs_width} and {suite.action_width}",
            where=str(store.path),
            remedy="install the version of the suite that the data were made with, or make the "
            "data set again",
        )
    return suite


def check_rewards(data: Dataset, bound: float) -> None:
    """``UserError`` for rewards that the bins of a world model do not reach. ``bound``: the outer
    bins in symlog (``fmbpo.nn.two_hot``)."""
    largest = max(map(abs, data.rewards or (0.0,)))
    if (needed := math.log1p(largest)) > bound:
        raise UserError(
            f"rewards reach {largest:,.6g} in the data, but the world model's bins end at "
            f"{math.expm1(bound):,.6g}",
            where="world_model.reward_bound",
            remedy=f"set it to {math.ceil(10 * needed) / 10:g} or more (it counts in symlog)",
        )


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


def chosen_tasks(store: Store, config: DataConfig, suite: Suite) -> list[str]:
    """The tasks to use. ``UserError`` for a key that names a task without episodes."""
    present = [store.tasks[i] for i in np.unique(store.episode_task)]
    tasks = [t for t in suite.names if t in (config.tasks or present)]
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


def with_slices(rows: Rows, horizon: int, key: str = "pretrain.horizon") -> Rows:
    """The episodes that are long enough for a slice of ``horizon`` + 1 rows.

    ``UserError``, naming ``key``, if a task has none.
    """
    length_E = rows.end_E - rows.start_E
    chosen = rows.select(length_E > horizon)
    for task in torch.unique(rows.task_E):
        if not (chosen.task_E == task).any():
            longest = int(length_E[rows.task_E == task].max())
            raise UserError(
                f"the longest episode of task {rows.suite.names[int(task)]!r} has {longest} rows, "
                f"too few for a slice of {horizon + 1}",
                where="the data set",
                remedy=f"lower {key}, or add longer episodes to the data set",
            )
    return chosen
