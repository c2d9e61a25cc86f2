"""The inputs of an experiment: data, tasks, checkpoints, earlier runs. Computes nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import attrs
import torch

from fmbpo.config.schema import DataConfig, Experiment
from fmbpo.data.embedded import store_path
from fmbpo.data.store import Store, open_store
from fmbpo.distributed.group import Group
from fmbpo.errors import UserError
from fmbpo.nn import two_hot
from fmbpo.nn.world_model import WorldModelConfig
from fmbpo.running.blame import Role, reporting
from fmbpo.running.earlier import check_plugins, finished, first_models
from fmbpo.running.names import RunNames, run_names
from fmbpo.running.preflight.table import Rows
from fmbpo.running.side_by_side import side_by_side
from fmbpo.runs.folder import BEST, RunFolder, check_place, checkpoint_of, worker
from fmbpo.tasks.known import Own
from fmbpo.tasks.suite import Suite
from fmbpo.training.cells import Cell, grid_cells, grid_tasks
from fmbpo.training.context import Context, settled
from fmbpo.training.dataset import Dataset, load_dataset, store_suite, with_slices
from fmbpo.training.initial_model import load_world_model
from fmbpo.training.own_models import check_learning
from fmbpo.training.pretraining import sharing
from fmbpo.training.residence_choice import check_loading, choose, described

Loaded: TypeAlias = tuple[tuple[DataConfig, torch.device, Own], Dataset]
"""The arguments of ``load_dataset``, and the data set."""


@attrs.define
class Candidate:
    """An experiment under its ``cell`` name (empty outside a study). None: not known, or an
    earlier check failed."""

    cell: str
    experiment: Experiment
    accept_versions: bool = False
    """Whether complete parts of other plugin versions are used."""
    device: torch.device | None = None
    store: Store | None = None
    recorded: Experiment | None = None
    """The experiment as ``settled``."""
    names: RunNames | None = None
    """Names of the run folders."""
    data: Dataset | None = None
    tasks: list[str] = attrs.field(factory=list)
    """The grid's tasks."""

    def name(self, rows: Rows) -> None:
        """Set the names of the run folders, which depend on the residence of the data and on the
        precision, unless something is wrong."""
        e, store, device = self.experiment, self.store, self.device
        if store is not None and not rows.failed(self.cell):
            self.recorded = settled(e, choose(e.data, store, device), device) if device else e
            recorded = self.recorded
            self.names = rows.attempt(self.cell, "runs", lambda: run_names(recorded, store.id))

    @property
    def cells(self) -> list[Cell]:
        """The grid's cells; none without policies."""
        return grid_cells(self.experiment, self.tasks) if self.experiment.policy else []

    @property
    def data_tasks(self) -> list[str]:
        """Tasks of the data, as far as they are known."""
        e = self.experiment
        return self.data.tasks if self.data else e.data.tasks or [e.expected_suite.names[0]]

    @property
    def suite(self) -> Suite:
        """That of the data, or the expected one."""
        e, store = self.experiment, self.store
        return store_suite(store, e.tasks) if store else e.expected_suite

    @property
    def context(self) -> Context:
        """For the stages; data and device must be known."""
        assert self.data is not None and self.device is not None
        return Context(self.experiment, self.data, self.device)


def text_of_processes(experiment: Experiment, group: Group, models: int) -> str:
    """The processes that train, and their shares; ``models``: world models of one command."""
    e, text = experiment, f"{group.size}"
    if e.policy:
        text += ", each with a part of the policies"
    if e.policy and not e.needs_pretraining:
        return text
    if sharing(e.pretrain, group) is group:
        return f"{text}; all for pretraining"
    if side_by_side(e.pretrain, group, models):
        return f"{text}; each with a world model of its own"
    return f"{text}; the first one alone for pretraining"


def find_store(experiment: Experiment) -> Store:
    """Open the configured store and check its structure, manifest and suite; rows stay on the disk.

    Raises ``UserError`` as ``open_store`` and ``store_suite``, and for an id that is not a hash.
    """
    path = store_path(experiment.data.path)
    store = open_store(path)
    if not re.fullmatch("sha256:[0-9a-f]{64}", store.id):
        raise UserError(
            f"attribute id is not the SHA-256 of its content: {store.id!r}",
            where=str(path),
            remedy=f"see `fmbpo data verify {path}`; collect or import the data set again",
        )
    store_suite(store, experiment.tasks)
    return store


def find_data(rows: Rows, one: Candidate, known: list[Loaded]) -> None:
    """Load the data set, unless ``known`` has it; adds a failed row if that is impossible."""
    e, store, device = one.experiment, one.store, one.device
    if store is None or device is None:
        return

    def load() -> Dataset:
        for wanted, data in known:
            if wanted == (e.data, device, e.tasks):
                return data
        check_loading(choose(e.data, store, device), store, device)
        data = load_dataset(e.data, device, e.tasks)
        data.train.residence.load()
        known.append(((e.data, device, e.tasks), data))
        return data

    one.data = rows.attempt(one.cell, "data", load)
    if one.data is not None:
        place = described(one.data.train.residence.kind, store, device)
        tasks = len(one.data.tasks)
        rows.ok(one.cell, "data", f"{store.id[:19]}: {store.rows:,} rows, {tasks} tasks, {place}")


def find_tasks(rows: Rows, one: Candidate) -> None:
    """Set the grid's tasks, or all of the data's; without data only those that the grid names."""
    e, data = one.experiment, one.data
    one.tasks = e.grid.tasks
    if data is None:
        return
    checks: list[Callable[[], object]] = [
        lambda: with_slices(data.train, e.pretrain.horizon),
        lambda: check_learning(e, data),
    ]
    if e.policy is not None:
        checks.append(lambda: grid_tasks(e, data))
    passed = [rows.passes(one.cell, "tasks", check) for check in checks]
    one.tasks = one.tasks or data.tasks
    if all(passed):
        rows.ok(one.cell, "tasks", ", ".join(one.tasks))
        _warn_of_short(rows, one.cell, data, e.pretrain.horizon)
        _warn_of_ends(rows, one.cell, data, e.world_model.config)
        _warn_of_small(rows, one.cell, data, e.world_model.config)


def _warn_of_short(rows: Rows, cell: str, data: Dataset, horizon: int) -> None:
    """A warning if world models cannot learn from some episodes, since they are too short."""
    length_E = data.train.end_E - data.train.start_E
    if short := int((length_E <= horizon).sum()):
        what = f"{short} of {len(length_E)} training episodes have fewer rows than a slice of "
        what += f"{horizon + 1}, so that world models do not learn from them"
        rows.warn(cell, "tasks", what, "lower pretrain.horizon")


def _warn_of_ends(rows: Rows, cell: str, data: Dataset, config: object) -> None:
    """A warning if episodes terminate and the world model, one with the shared settings, does not
    predict it."""
    blind = isinstance(config, WorldModelConfig) and not config.continuation_coef
    terminated_E = data.train.terminated_E
    if blind and terminated_E.any():
        what = f"{int(terminated_E.sum())} of {len(terminated_E)} training episodes end in a "
        what += "terminal state, but imagined episodes never end"
        rows.warn(cell, "tasks", what, "set world_model.continuation_coef, for example to 1")


def _warn_of_small(rows: Rows, cell: str, data: Dataset, config: object) -> None:
    """A warning if all rewards lie within the middle bin of a world model with the shared
    settings."""
    largest = max(map(abs, data.rewards or (0.0,)))
    if isinstance(config, WorldModelConfig):
        width = two_hot.step(config.reward_bound)
        if 0 < math.log1p(largest) < width:
            what = f"all rewards lie within ±{largest:.3g}, less than a bin of the world model, "
            what += f"{math.expm1(width):.3g}"
            remedy = f"set world_model.reward_bound, for example to {1.1 * math.log1p(largest):.2g}"
            rows.warn(cell, "tasks", what, remedy)


def find_earlier(rows: Rows, one: Candidate, root: Path) -> bool:
    """What earlier runs left in the run's folders; whether nothing remains to do."""
    cell, e, names = one.cell, one.experiment, one.names
    if names is None:
        return False

    def warn(what: str, place: str) -> None:
        rows.warn(cell, "plugins", f"{place}: {what}", "--accept-plugin-versions: it is used")

    accept = one.accept_versions
    rows.passes(cell, "plugins", lambda: check_plugins(e, names, root, accept, warn))
    if rows.attempt(cell, "runs", lambda: finished(e, names, root)):
        rows.ok(cell, "runs", f"{names.result} is complete")
        return True
    rows.ok(cell, "runs", "\n".join(names))
    for name in names:
        if name == names.policies or not RunFolder(root / name).is_complete:
            rows.passes(cell, "runs", partial(check_place, root / name))
        if at_work := worker(root / name):
            what = f"{name} is in use by {at_work}"
            rows.warn(cell, "runs", what, "`fmbpo run` waits for it, or ends if --no-wait is given")
    return False


def find_world_model(rows: Rows, one: Candidate, root: Path, traceback: Path | None) -> None:
    """Find the origin of the world model: a checkpoint that fits, a finished pretraining, or
    training still to come."""
    cell, e = one.cell, one.experiment

    def check(path: Path, said: str, adopt: bool) -> str:
        with reporting(traceback, Role("world model", e.world_model)):
            load_world_model(e, one.suite, torch.device("meta"), path, adopt)
        return said

    if checkpoint := getattr(e.protocol, "checkpoint", ""):
        rows.found(cell, "world model", lambda: check(Path(checkpoint), f"from {checkpoint}", True))
        return
    if not e.needs_pretraining:
        rows.ok(cell, "world model", "learns from scratch beside each policy")
        return
    names = one.names
    models = first_models(e, names, root) if names else {}
    runs = {seed: path.parent.parent for seed, path in models.items() if path}
    complete = {seed: run for seed, run in runs.items() if RunFolder(run).is_complete}
    for run in complete.values():
        best, said = checkpoint_of(run, BEST), f"{run.name} is complete"
        rows.found(cell, "world model", partial(check, best, said, False))
    missing = [seed for seed in e.grid.seeds if seed not in complete]
    if e.policy is None or not missing:
        return
    first = "is" if len(e.grid.seeds) == 1 else f"{len(missing)} of {len(e.grid.seeds)} are"
    said = f"{first} trained first: {e.pretrain.iterations:,} updates"
    if names and (root / names.policies / "config.json").exists():
        gone = " and ".join(names.pretraining[seed] for seed in missing)
        said += f"; {names.policies} was begun earlier and continues only in equal world models"
        remedy = f"put {gone} back, or move {names.policies} away"
        rows.warn(cell, "world model", said, remedy)
    else:
        rows.ok(cell, "world model", said)
