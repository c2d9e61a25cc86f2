"""The experiment, data, device and processes that its stages share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import ParamSpec, TypeVar

import attrs
import torch

from fmbpo.config.schema import Experiment
from fmbpo.distributed.group import ALONE, Group
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

    def compiled(self, update: Callable[P, R]) -> Callable[P, R]:
        """The update, under ``torch.compile`` if the experiment asks for it."""
        return torch.compile(update, fullgraph=True) if self.experiment.system.compile else update

    @cached_property
    def policy_data(self) -> Dataset:
        """The data that policies learn from, under the experiment's conventions."""
        return by_conventions(self.data, self.experiment.of_policies.conventions)
