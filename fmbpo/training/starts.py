"""Real states that imagination starts from, of several cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from fmbpo.data.sampler import Drawn, Rows, SliceStarts, start_samplers
from fmbpo.hookspecs import Batch
from fmbpo.pwm.pair import Pair
from fmbpo.training.dataset import with_slices
from fmbpo.training.trees import stack

Begun: TypeAlias = tuple[Tensor, Batch | tuple[()]]
"""Observations ``[T, B, O]``, and the real steps around them; see ``fmbpo.pwm.start.Start``."""


class CellStarts:
    """A sampler for each cell: of single observations or, if a plugin of the pair asks for real
    steps, of sub-trajectories."""

    def __init__(self, rows: Rows, index: Sequence[int], pair: Pair) -> None:
        """``index``: the task of each cell."""
        self.first, self.steps = pair.warm_up, pair.warm_up + pair.real_steps
        tasks = sorted(set(index))
        if self.steps:
            rows = with_slices(rows, self.steps, "the real steps that a plugin asks for")
            slices = {task: SliceStarts(rows, task, self.steps) for task in tasks}
            self.slices, self.single = [slices[i] for i in index], None
        else:
            single = start_samplers(rows, tasks)
            self.slices, self.single = [], [single[i] for i in index]

    def drawn(self, batch: int, generators: Sequence[torch.Generator]) -> list[Tensor]:
        """The next ones of every cell, as they have to be sent to the device."""
        if self.single is not None:
            each = zip(self.single, generators, strict=True)
            return [torch.stack([own.draw(batch, generator) for own, generator in each])]
        pairs = zip(self.slices, generators, strict=True)
        return list(stack([own.draw(batch, generator) for own, generator in pairs]))

    def sent(self, parts: Sequence[Tensor]) -> Begun:
        """Those that were drawn, from the tensors on the device."""
        if self.single is not None:
            each = zip(self.single, *parts, strict=True)
            return torch.stack([own.observations(of_cell) for own, of_cell in each]), ()
        cells = zip(self.slices, *parts, strict=True)
        return self.of_batch(stack([own.real(Drawn(*of_cell)) for own, *of_cell in cells]))

    def of_batch(self, own: Batch) -> Begun:
        """The first ones of stacked sub-trajectories."""
        obs_TBO = own.obs_HBO[:, self.first]
        if not self.steps:
            return obs_TBO, ()
        cut = (x[:, : self.steps] for x in (own.action_HBA, own.reward_HB, own.terminated_HB))
        action, reward, ends = cut
        obs = own.obs_HBO[:, : self.steps + 1]
        return obs_TBO, Batch(obs, action, reward, own.index_B, own.mask_BA, ends)
