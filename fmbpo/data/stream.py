"""World-model batches from a store on the disk: whole blocks in random order, mixed in a window.

An epoch takes the store's blocks (one chunk of each array, with the episodes that begin in it) in
random order. One window of ``WINDOW_ROWS`` is in memory at a time; its episodes are shuffled
together and each gives one slice, while a thread reads the next window. An epoch has each episode
as often as an epoch of `SliceSampler`; only the order differs.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate

import attrs
import numpy as np
import torch
from torch import Tensor

from fmbpo.data.sampler import (
    WHOLE,
    Drawn,
    Rows,
    Sampler,
    SliceSampler,
    ahead,
    first_rows,
    turns,
)
from fmbpo.data.store_format import Layout

WINDOW_ROWS = 4_194_304
"""Rows shuffled together: 520 MB of MT30's, and another 520 MB for the next window."""


@attrs.frozen
class _Window:
    """Blocks in memory: ``packed[from_row[i] + k]`` is the store's row ``first_row[i] + k``."""

    packed: Tensor
    first_row: Tensor
    from_row: Tensor

    def gather(self, row_B: Tensor, horizon: int) -> Tensor:
        block = torch.searchsorted(self.first_row, row_B, right=True) - 1
        place_B = row_B - self.first_row[block] + self.from_row[block]
        return self.packed[place_B + torch.arange(horizon + 1).unsqueeze(1)]


class StreamSampler(SliceSampler):
    """One slice per epoch from every episode, read from the disk one window at a time.

    At most twice ``window_rows`` are in memory, plus the rows of each block's last episode beyond
    the block. A window has at least one block. The state names the blocks that were drawn; loading
    a state reads its window again.
    """

    _saved = ("queue", "following", "window", "order")

    def __init__(
        self,
        rows: Rows,
        horizon: int,
        batch: int,
        seed: int,
        weight_K: Tensor | None = None,
        part: slice = WHOLE,
        window_rows: int = WINDOW_ROWS,
    ) -> None:
        super().__init__(rows, horizon, batch, seed, weight_K, part)
        self.stored = rows.residence
        block_E = rows.start_E // self.stored.block_rows
        by_block = torch.argsort(rows.start_E, stable=True)
        counts = torch.unique(block_E, return_counts=True)[1]
        self.episodes = torch.split(by_block, counts.tolist())
        self.blocks_at_once = max(1, window_rows // self.stored.block_rows)
        self.queue = self.window = self.following = self.order
        self._reader = ThreadPoolExecutor(1, "windows")
        self._read: dict[tuple[int, ...], Future[_Window]] = {}

    def next(self) -> Drawn:
        """See `Sampler`."""
        pieces, labels, missing = [], [], self.count
        while missing:
            while not len(self.order):
                self._advance()
            episode_B, self.order = self.order[:missing], self.order[missing:]
            row_B = first_rows(self.rows, episode_B, self.horizon, self.generator)
            pieces.append(self._loaded().gather(row_B, self.horizon))
            labels.append(self.rows.labels(row_B, episode_B, self.horizon))
            missing -= len(episode_B)
        whole = (torch.cat(parts)[self.part] for parts in zip(*labels, strict=True))
        return Drawn(torch.cat(pieces, 1)[:, self.part], *whole)

    def _advance(self) -> None:
        """Move to the next window, shuffle its episodes, and draw the window after it."""
        self.window = self.following if len(self.following) else self._draw()
        self.following = self._draw()
        mine = torch.cat([self.episodes[block] for block in self.window.tolist()])
        self.order = turns(mine, self.weight_E, self.generator)

    def _draw(self) -> Tensor:
        """The next blocks of this epoch, or the first blocks of the next epoch."""
        if not len(self.queue):
            self.queue = torch.randperm(len(self.episodes), generator=self.generator)
        drawn, self.queue = self.queue.tensor_split([self.blocks_at_once])
        return drawn

    def _loaded(self) -> _Window:
        """The current window; starts reading the next one."""
        wanted = [tuple(blocks.tolist()) for blocks in (self.window, self.following)]
        self._read = {blocks: read for blocks, read in self._read.items() if blocks in wanted}
        for blocks in wanted:
            if blocks not in self._read:
                self._read[blocks] = self._reader.submit(self._read_blocks, blocks)
        return self._read[wanted[0]].result()

    def _read_blocks(self, blocks: tuple[int, ...]) -> _Window:
        spans = []
        for block in sorted(blocks):
            mine = self.episodes[block]
            spans.append((int(self.rows.start_E[mine[0]]), int(self.rows.end_E[mine].max())))
        from_row = [0, *accumulate(last - first for first, last in spans)]
        packed = np.empty((from_row[-1], self.stored.row_width), np.float32)
        for (first, last), begin in zip(spans, from_row, strict=False):
            self.stored.span(first, last, packed[begin : begin + last - first])
        first_row = torch.tensor([first for first, _ in spans])
        return _Window(torch.from_numpy(packed), first_row, torch.tensor(from_row[:-1]))


def slice_sampler(
    rows: Rows,
    horizon: int,
    batch: int,
    seed: int,
    weight_K: Tensor | None = None,
    part: slice = WHOLE,
) -> Sampler:
    """The sampler for the rows' residence."""
    kind = StreamSampler if rows.residence.kind == "stream" else SliceSampler
    return ahead(kind(rows, horizon, batch, seed, weight_K, part))


def window_bytes(layout: Layout, rows: int, block_rows: int, longest: int) -> int:
    """Most bytes that a `StreamSampler` of ``rows`` rows holds: two windows, if no episode has
    more than ``longest`` rows."""
    blocks = max(1, WINDOW_ROWS // block_rows)
    return 2 * min(blocks * (block_rows + longest), rows) * layout.row_bytes
