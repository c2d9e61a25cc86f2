"""What an experiment rests on: data, tasks, checkpoints, earlier runs. Nothing is computed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch

from fmbpo.config import Finetuned, Frozen
from fmbpo.config.schema import DataConfig, Experiment
from fmbpo.data.store import Store, open_store
from fmbpo.errors import UserError
from fmbpo.running.blame import Role, reporting
from fmbpo.running.names import needs_pretraining
from fmbpo.running.preflight.remaining import is_there
from fmbpo.running.preflight.table import Rows
from fmbpo.runs.folder import BEST
from fmbpo.training.cells import grid_tasks
from fmbpo.training.dataset import Dataset, check_horizon, load_dataset, store_path
from fmbpo.training.initial_model import load_world_model
from fmbpo.training.own_models import check_learning
from fmbpo.training.residence_choice import check_loading, choose, described

Loaded: TypeAlias = tuple[tuple[DataConfig, torch.device], Dataset]
"""A data set, behind what was asked for and the device that holds it."""


def find_store(config: DataConfig) -> Store:
    """The configured store, opened: structure and manifest are checked, rows stay on the disk.

    Raises ``UserError`` as ``open_store`` does, and where the id is none.
    """
    path = store_path(config)
    store = open_store(path)
    if not re.fullmatch("sha256:[0-9a-f]{64}", store.id):
        raise UserError(
            f"attribute id is no SHA-256 of its content: {store.id!r}",
            where=str(path),
            remedy=f"see `fmbpo data verify {path}`; collect or import the data set again",
        )
    return store


def find_data(
    rows: Rows, cell: str, e: Experiment, store: Store, device: torch.device, known: list[Loaded]
) -> Dataset | None:
    """The data set in memory, which ``known`` may hold already; a failed row where it cannot be."""

    def load() -> Dataset:
        for wanted, data in known:
            if wanted == (e.data, device):
                return data
        check_loading(choose(e.data, store, device), store, device)
        data = load_dataset(e.data, device)
        data.train.residence.load()
        known.append(((e.data, device), data))
        return data

    data = rows.attempt(cell, "data", load)
    if data is not None:
        place = described(data.train.residence.kind, store, device)
        what = f"{store.rows:,} rows, {len(data.tasks)} tasks, {place}"
        rows.ok(cell, "data", f"{store.id[:19]}: {what}")
    return data


def find_tasks(rows: Rows, cell: str, e: Experiment, data: Dataset | None) -> list[str]:
    """The grid's tasks, or all of the data's; as far as they are known without data."""
    if data is None:
        return e.grid.tasks if e.grid else []
    checks: list[Callable[[], object]] = [
        lambda: check_horizon(data.train, e.pretrain.horizon),
        lambda: check_learning(e, data),
    ]
    if e.grid is not None:
        checks.append(lambda: grid_tasks(e, data))
    bad = [check for check in checks if not rows.passes(cell, "tasks", check)]
    tasks = e.grid.tasks if e.grid and e.grid.tasks else data.tasks
    if not bad:
        rows.ok(cell, "tasks", ", ".join(tasks))
    return tasks


def find_world_model(
    rows: Rows,
    cell: str,
    e: Experiment,
    pretraining: Path | None,
    traceback: Path | None,
) -> None:
    """Where the world model comes from: a checkpoint that fits, a finished pretraining (in the
    folder ``pretraining``, if its name is known), or training that is still to come."""

    def check(path: Path, adopt: bool) -> None:
        with reporting(traceback, Role("world model", e.world_model)):
            load_world_model(e, torch.device("meta"), path, adopt)

    protocol = e.protocol
    if isinstance(protocol, Frozen | Finetuned) and protocol.checkpoint:
        path = Path(protocol.checkpoint)
        if rows.passes(cell, "world model", lambda: check(path, adopt=True)):
            rows.ok(cell, "world model", f"from {path}")
    elif not needs_pretraining(e):
        rows.ok(cell, "world model", "learns from scratch beside each policy")
    elif pretraining is not None and is_there(pretraining):
        best = pretraining / "checkpoints" / BEST
        if rows.passes(cell, "world model", lambda: check(best, adopt=False)):
            rows.ok(cell, "world model", f"{pretraining.name} is complete")
    elif e.policy is not None:
        rows.ok(cell, "world model", f"is trained first: {e.pretrain.iterations:,} updates")
