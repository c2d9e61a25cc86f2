"""Batches from episodes held in memory; every random choice comes from a saved generator."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fmbpo.data.store import Episodes
from fmbpo.hookspecs import Batch


class Rows:
    """Some episodes of a data set: its rows as one tensor on one device, and where they lie.

    ``task_E`` holds ids of the study's task list (not of the store's), ``mask_KA`` one row of 0/1
    for each of those ids.
    """

    def __init__(
        self, episodes: Episodes, task_E: Tensor, mask_KA: Tensor, device: torch.device
    ) -> None:
        columns = [episodes.obs, episodes.action, episodes.reward[:, None]]
        self.packed = torch.from_numpy(np.concatenate(columns, 1)).to(device)
        self.obs_width = episodes.obs.shape[1]
        self.end_E = torch.from_numpy(episodes.episode_ends)
        self.start_E = torch.cat([self.end_E.new_zeros(1), self.end_E[:-1]])
        self.task_E = task_E
        self.mask_KA = mask_KA.to(device)
        self.device = device

    def select(self, chosen_E: Tensor) -> Rows:
        """The episodes where ``chosen_E`` is true; the rows themselves are shared."""
        some = copy.copy(self)
        some.start_E, some.end_E = self.start_E[chosen_E], self.end_E[chosen_E]
        some.task_E = self.task_E[chosen_E]
        return some

    def unmasked(self) -> Rows:
        """The same with all action dimensions taken for real ones."""
        same = copy.copy(self)
        same.mask_KA = torch.ones_like(self.mask_KA)
        return same

    def redrawn(self, generator: torch.Generator) -> Rows:
        """As many episodes of each task, drawn with replacement."""
        drawn = []
        for task in torch.unique(self.task_E):
            (mine,) = torch.nonzero(self.task_E == task, as_tuple=True)
            drawn.append(mine[torch.randint(len(mine), (len(mine),), generator=generator)])
        index = torch.cat(drawn)
        some = copy.copy(self)
        some.start_E, some.end_E = self.start_E[index], self.end_E[index]
        some.task_E = self.task_E[index]
        return some

    def of_task(self, task: int) -> Rows:
        """The episodes of one task."""
        return self.select(self.task_E == task)

    def gather(self, row_B: Tensor, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
        """Slices of ``horizon`` + 1 rows: obs ``[H + 1, B, O]``, action ``[H, B, A]``,
        reward ``[H, B]`` (the action and reward of row t led to row t)."""
        index = row_B + torch.arange(horizon + 1).unsqueeze(1)
        packed = self.packed[index.to(self.device)]
        obs, action = packed[..., : self.obs_width], packed[1:, :, self.obs_width : -1]
        return obs, action, packed[1:, :, -1]


class SliceSampler:
    """One slice from every episode an epoch, in random order, at a uniformly random offset."""

    def __init__(self, rows: Rows, horizon: int, batch: int, seed: int) -> None:
        self.rows, self.horizon, self.batch = rows, horizon, batch
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)

    def sample(self) -> Batch:
        """The next batch."""
        while len(self.order) < self.batch:
            epoch = torch.randperm(len(self.rows.start_E), generator=self.generator)
            self.order = torch.cat([self.order, epoch])
        episode_B, self.order = self.order[: self.batch], self.order[self.batch :]
        start, end = self.rows.start_E[episode_B], self.rows.end_E[episode_B]
        u = torch.rand(self.batch, generator=self.generator, dtype=torch.float64)
        offset = (u * (end - start - self.horizon)).floor().long()
        obs, action, reward = self.rows.gather(start + offset, self.horizon)
        index = self.rows.task_E[episode_B].to(self.rows.device)
        return Batch(obs, action, reward, index, self.rows.mask_KA[index])

    def state(self) -> dict[str, Tensor]:
        """All that the next batches depend on."""
        return {"generator": self.generator.get_state(), "order": self.order}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state``."""
        self.generator.set_state(state["generator"])
        self.order = state["order"]


class StartSampler:
    """Observations of one task, uniform over the rows of its episodes."""

    def __init__(self, rows: Rows, task: int) -> None:
        mine = rows.of_task(task)
        spans = zip(mine.start_E.tolist(), mine.end_E.tolist(), strict=True)
        self.rows = rows
        self.row_M = torch.cat([torch.arange(start, end) for start, end in spans])

    def sample(self, batch: int, generator: torch.Generator) -> Tensor:
        """``[B, O]``."""
        row = self.row_M[torch.randint(len(self.row_M), (batch,), generator=generator)]
        return self.rows.packed[row.to(self.rows.device), : self.rows.obs_width]


def action_masks(widths: Sequence[int], action_width: int) -> Tensor:
    """``[K, A]`` with 1 in the first ``widths[k]`` places of row k."""
    return (torch.arange(action_width) < torch.tensor(widths).unsqueeze(1)).float()
