"""A follower carries out the orders of a run's leader, in a process of its own.

The orders are ``experiment``, then ``pretrain`` or ``policies``, which make a stage, and then the
names of the stage's methods. Results go to the leader, which writes all files but a plugin's
traceback. Only after the order ``replicates`` does a follower write a run of its own
(``fmbpo.running.side_by_side``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fmbpo.config.schema import Experiment
from fmbpo.distributed.group import Failed, Group
from fmbpo.distributed.shares import part_of
from fmbpo.measure.evaluation import Evaluator, threads
from fmbpo.running import side_by_side
from fmbpo.running.blame import Role, reporting
from fmbpo.running.run import train_alone
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.dataset import Dataset, load_dataset
from fmbpo.training.device import resolve_device
from fmbpo.training.initial_model import InitialModel
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.pretraining import Pretraining
from fmbpo.training.trees import to_device


def follow(group: Group) -> None:
    """Carry out the leader's orders until it ends the group. Raises as stages do, and ``Lost``."""
    follower = _Follower(group)
    with follower.held:
        for name, arguments in group.orders():
            follower.obey(name, arguments)


class _Follower:
    def __init__(self, group: Group) -> None:
        self.group, self.held = group, ExitStack()
        self.data: dict[tuple[str, torch.device], Dataset] = {}
        self.stage: Pretraining | PolicyTraining | None = None
        """None if the cells are fewer than the processes."""

    def obey(self, name: str, arguments: Sequence[Any]) -> None:
        """Carry out one order. Errors name the plugin, as in the leader."""
        if name == "experiment":
            self.begin(*arguments)
        elif name == side_by_side.ORDER:
            self.stage = None
            (replicates,) = arguments
            train = partial(train_alone, self.context, _say_nothing)
            side_by_side.obey(replicates, train, self.group)
        elif name in ("pretrain", "policies", "step", "load"):
            with reporting(self.folder, *self.roles):
                getattr(self, name)(*arguments)
        else:
            self.group.answer(self.asked(name, arguments))

    def begin(self, experiment: Experiment, folder: Path) -> None:
        """Prepare the experiment of the next stages. ``folder``: the place of a plugin's
        traceback."""
        e, self.folder, self.stage = experiment, folder, None
        device = resolve_device(e.system.device)
        key = (repr((e.data, e.tasks)), device)
        if key not in self.data:
            self.data[key] = load_dataset(e.data, device, e.tasks)
        self.context = Context(e, self.data[key], device, self.group)
        self.roles = [Role("policy", e.policy)] if e.policy else []
        self.roles.append(Role("world model", e.world_model))
        here = self.group.local_size
        self.held.close()
        self.held.enter_context(threads(e.system.threads, here))
        runner = self.held.enter_context(
            EpisodeRunner(e.evaluation.simulators(here), self.data[key].suite)
        )
        self.evaluator = Evaluator(runner, e.evaluation.seed)

    def pretrain(self, replicate: int) -> None:
        """Make the stage that trains a world model on this process's part of each batch."""
        self.stage = None  # two do not have to fit in memory
        self.stage = Pretraining(self.context, replicate)

    def policies(self, name: str, cells: Sequence[Cell], model: InitialModel) -> None:
        """Make the stage that trains this process's cells."""
        self.stage, self.part = None, self.group.share(len(cells))
        if own := cells[self.part]:
            module = model.build(self.context)
            self.stage = PolicyTraining(name, own, self.context, module, self.evaluator)

    def step(self, iteration: int) -> None:
        """One step of the stage."""
        if self.stage is not None:
            metrics = self.stage.step(iteration)
            if isinstance(self.stage, PolicyTraining):
                self.group.send(torch.stack(list(metrics.values())))

    def load(self, *saved: Any) -> None:
        """Continue from a checkpoint: the whole one of a world model, a part of that of cells."""
        if isinstance(self.stage, PolicyTraining):
            saved = part_of(saved, self.part)
        if self.stage is not None:
            self.stage.load(*saved)

    def asked(self, name: str, arguments: Sequence[Any]) -> object:
        """The result of the stage's method, or its failure."""
        if self.stage is None:
            return None
        try:
            with reporting(self.folder, *self.roles):
                found: object = getattr(self.stage, name)(*arguments)
                return to_device(found, torch.device("cpu"))
        except Exception as error:
            return Failed(error)


def _say_nothing(line: str) -> None:
    """Only the leader speaks."""
