"""The inputs of an experiment: data, tasks, checkpoints, earlier runs. Nothing is computed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch

from fmbpo.config import Finetuned, Frozen
from fmbpo.config.schema import DataConfig
from fmbpo.data.embedded import store_path
from fmbpo.data.store import Store, open_store
from fmbpo.errors import UserError
from fmbpo.running.blame import Role, reporting
from fmbpo.running.names import needs_pretraining
from fmbpo.running.preflight.candidate import Candidate
from fmbpo.running.preflight.table import Rows
from fmbpo.runs.folder import BEST, RunFolder, checkpoint_of
from fmbpo.training.cells import grid_tasks
from fmbpo.training.dataset import Dataset, check_horizon, load_dataset
from fmbpo.training.initial_model import load_world_model
from fmbpo.training.own_models import check_learning
from fmbpo.training.residence_choice import check_loading, choose, described

Loaded: TypeAlias = tuple[tuple[DataConfig, torch.device], Dataset]
"""A data set, behind its configuration and the device that holds it."""


def find_store(config: DataConfig) -> Store:
    """The configured store, opened: structure and manifest are checked, rows stay on the disk.

    Raises ``UserError`` as ``open_store`` does, and for an id that is no hash.
    """
    path = store_path(config.path)
    store = open_store(path)
    if not re.fullmatch("sha256:[0-9a-f]{64}", store.id):
        raise UserError(
            f"attribute id is no SHA-256 of its content: {store.id!r}",
            where=str(path),
            remedy=f"see `fmbpo data verify {path}`; collect or import the data set again",
        )
    return store


def find_data(rows: Rows, one: Candidate, known: list[Loaded]) -> None:
    """The data set in memory, which ``known`` may hold already; a failed row if it cannot be."""
    e, store, device = one.experiment, one.store, one.device
    if store is None or device is None:
        return

    def load() -> Dataset:
        for wanted, data in known:
            if wanted == (e.data, device):
                return data
        check_loading(choose(e.data, store, device), store, device)
        data = load_dataset(e.data, device)
        data.train.residence.load()
        known.append(((e.data, device), data))
        return data

    one.data = rows.attempt(one.cell, "data", load)
    if one.data is not None:
        place = described(one.data.train.residence.kind, store, device)
        tasks = len(one.data.tasks)
        rows.ok(one.cell, "data", f"{store.id[:19]}: {store.rows:,} rows, {tasks} tasks, {place}")


def find_tasks(rows: Rows, one: Candidate) -> None:
    """The grid's tasks, or all of the data's; as far as they are known without data."""
    e, data = one.experiment, one.data
    one.tasks = e.grid.tasks if e.grid else []
    if data is None:
        return
    checks: list[Callable[[], object]] = [
        lambda: check_horizon(data.train, e.pretrain.horizon),
        lambda: check_learning(e, data),
    ]
    if e.grid is not None:
        checks.append(lambda: grid_tasks(e, data))
    bad = [check for check in checks if not rows.passes(one.cell, "tasks", check)]
    one.tasks = one.tasks or data.tasks
    if not bad:
        rows.ok(one.cell, "tasks", ", ".join(one.tasks))


def find_world_model(rows: Rows, one: Candidate, root: Path, traceback: Path | None) -> None:
    """Where the world model comes from: a checkpoint that fits, a finished pretraining, or
    training that is still to come."""
    cell, e = one.cell, one.experiment

    def check(path: Path, adopt: bool) -> None:
        with reporting(traceback, Role("world model", e.world_model)):
            load_world_model(e, torch.device("meta"), path, adopt)

    protocol = e.protocol
    pretraining = root / one.names[0] if one.names else None
    if isinstance(protocol, Frozen | Finetuned) and protocol.checkpoint:
        path = Path(protocol.checkpoint)
        if rows.passes(cell, "world model", lambda: check(path, adopt=True)):
            rows.ok(cell, "world model", f"from {path}")
    elif not needs_pretraining(e):
        rows.ok(cell, "world model", "learns from scratch beside each policy")
    elif pretraining is not None and RunFolder(pretraining).is_complete:
        best = checkpoint_of(pretraining, BEST)
        if rows.passes(cell, "world model", lambda: check(best, adopt=False)):
            rows.ok(cell, "world model", f"{pretraining.name} is complete")
    elif e.policy is not None:
        rows.ok(cell, "world model", f"is trained first: {e.pretrain.iterations:,} updates")
