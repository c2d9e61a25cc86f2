"""The experiment, data, device and processes that its stages share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import ParamSpec, TypeVar

import attrs
import torch

from fmbpo.config.schema import Experiment
from fmbpo.distributed.group import ALONE, Group
from fmbpo.replay import GRAPHS, Replayed
from fmbpo.training.dataset import Dataset, by_conventions

P = ParamSpec("P")
R = TypeVar("R")


@attrs.frozen(eq=False, slots=False)
class Context:
    """An experiment's tables, its data set, and the device and the processes that train."""

    experiment: Experiment
    data: Dataset
    device: torch.device
    group: Group = ALONE
    """The processes that train together."""
    say: Callable[[str], None] = lambda line: None
    """Prints a line."""

    def prepared(self, update: Callable[P, R], name: str) -> Callable[P, R]:
        """The update as ``[system]`` has it run: compiled, replayed, or as it is. ``name`` is for
        messages."""
        if self.experiment.system.compile:
            return torch.compile(update, fullgraph=True)
        return self.replayed(update, name)

    def replayed(self, function: Callable[P, R], name: str) -> Callable[P, R]:
        """The function, replayed unless ``[system]`` or the device does not have it so."""
        graph = self.experiment.system.graph
        if graph == "off" or self.device.type not in GRAPHS:
            return function
        return Replayed(function, name, required=graph == "on", say=self.say)

    @cached_property
    def policy_data(self) -> Dataset:
        """The data that policies learn from, under the experiment's conventions."""
        return by_conventions(self.data, self.experiment.of_policies.conventions)
