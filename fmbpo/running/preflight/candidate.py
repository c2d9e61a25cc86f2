"""One experiment under the preflight, with everything that has been found of it so far."""

from __future__ import annotations

import attrs
import torch

from fmbpo.config.schema import Experiment
from fmbpo.data.store import Store
from fmbpo.running.names import run_names
from fmbpo.running.preflight.table import Rows
from fmbpo.tasks.mt30 import MT30
from fmbpo.training.context import Context
from fmbpo.training.dataset import Dataset
from fmbpo.training.residence_choice import choose, settled


@attrs.define
class Candidate:
    """An experiment by the name of its ``cell`` (empty outside a study); None: not known, or
    refused by an earlier check."""

    cell: str
    experiment: Experiment
    device: torch.device | None = None
    store: Store | None = None
    names: tuple[str, str] | None = None
    """Run folders: of the pretraining, and of the policies."""
    data: Dataset | None = None
    tasks: list[str] = attrs.field(factory=list)
    """Of the grid."""

    def name(self, rows: Rows) -> None:
        """Find the names of the run folders, which depend on where rows are sampled from."""
        store, device = self.store, self.device
        if store is None:
            return
        e = self.experiment
        recorded = settled(e, choose(e.data, store, device)) if device else e
        self.names = rows.attempt(self.cell, "runs", lambda: run_names(recorded, store.id))

    @property
    def folders(self) -> tuple[str, str]:
        """``names``, or names of folders that nobody has."""
        return self.names or (f"{self.cell}/pretraining", f"{self.cell}/policies")

    @property
    def data_tasks(self) -> list[str]:
        """Tasks of the data, or as many as are known without."""
        return self.data.tasks if self.data else self.experiment.data.tasks or list(MT30)[:1]

    @property
    def context(self) -> Context:
        """For the stages; data and device are there."""
        assert self.data is not None and self.device is not None
        return Context(self.experiment, self.data, self.device)
