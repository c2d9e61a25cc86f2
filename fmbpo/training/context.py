"""The experiment, data and device that its stages share."""

from __future__ import annotations

from functools import cached_property

import attrs
import torch

from fmbpo.config.schema import Experiment
from fmbpo.training.dataset import Dataset, by_conventions


@attrs.frozen(eq=False, slots=False)
class Context:
    """An experiment's tables, its data set, and the device that trains."""

    experiment: Experiment
    data: Dataset
    device: torch.device

    @cached_property
    def policy_data(self) -> Dataset:
        """The data that policies learn from, as the experiment's conventions have them."""
        return by_conventions(self.data, self.experiment.of_policies.conventions)
