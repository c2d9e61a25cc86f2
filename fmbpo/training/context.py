"""The experiment, data, device and processes that its stages share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import ParamSpec, TypeVar

import attrs
import torch

from fmbpo.config.schema import Experiment
from fmbpo.data.residence import Kind
from fmbpo.distributed.group import ALONE, Group
from fmbpo.errors import UserError
from fmbpo.nn.compiled import compiling
from fmbpo.replay import GRAPHS, Replayed
from fmbpo.training.dataset import Dataset, by_conventions
from fmbpo.training.precision import computing, resolve_precision

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
        """The update as ``[system]`` has it run: in its precision, with compiled kernels, replayed.
        ``name`` is for messages."""
        system = self.experiment.system
        precision = resolve_precision(system.precision, self.device)

        def as_set(*args: P.args, **kwargs: P.kwargs) -> R:
            with computing(precision, self.device), compiling(system.compile == "on"):
                return update(*args, **kwargs)

        return self.replayed(as_set, name)

    def replayed(self, function: Callable[P, R], name: str) -> Callable[P, R]:
        """The function, replayed unless ``[system]`` or the device does not have it so."""
        graph, kind = self.experiment.system.graph, self.device.type
        if graph == "on" and kind not in (*GRAPHS, "meta"):
            what, remedy = f"there are no graphs on {kind}", 'use "auto" or "off"'
            raise UserError(what, where="system.graph", remedy=remedy)
        if graph == "off" or kind not in GRAPHS:
            return function
        return Replayed(function, name, required=graph == "on", say=self.say)

    @cached_property
    def policy_data(self) -> Dataset:
        """The data that policies learn from, under the experiment's conventions."""
        return by_conventions(self.data, self.experiment.of_policies.conventions)


def settled(experiment: Experiment, residence: Kind, device: torch.device) -> Experiment:
    """The experiment as a run on this device records it: with the residence of its data, and the
    precision and kernels of its updates."""
    system = experiment.system
    precision = resolve_precision(system.precision, device)
    kernels = "off" if system.compile == "auto" else system.compile
    return attrs.evolve(
        experiment,
        data=attrs.evolve(experiment.data, residence=residence),
        system=attrs.evolve(system, precision=precision, compile=kernels),
    )
