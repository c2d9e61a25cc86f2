"""Where the rows of a data set lie while it is sampled, behind one interface.

``device``: all of them on the device that trains. ``host``: in the host's memory; batches are made
there and sent. ``stream``: on the disk, for sets larger than memory (`Stored`); `StreamSampler`
reads them in order, a window at a time.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from zarr.codecs import BytesCodec

from fmbpo.data.store import Store
from fmbpo.data.store_format import DATA_ARRAYS, LAYOUT, REMAKE, check_finite, read
from fmbpo.errors import UserError

Kind: TypeAlias = Literal["device", "host", "stream"]

WIDTHS = tuple(LAYOUT[name][1] or 1 for name in DATA_ARRAYS)
ROW_WIDTH = sum(WIDTHS)
"""Columns of a packed row: observation, action, reward."""
PIECE_ROWS = 65_536
"""Rows that are packed at once where all of a store goes to memory."""


class Residence(Protocol):
    """Rows of a store, packed: observation, action and reward side by side."""

    kind: Kind
    device: torch.device
    """Where batches come out."""
    worker: ThreadPoolExecutor | None
    """One thread that makes batches ahead; None where that gains nothing."""

    def load(self) -> None:
        """Bring the rows there now and not with the first batch. ``UserError`` for damaged ones."""

    def gather(self, row_B: Tensor, horizon: int) -> Tensor:
        """Slices of ``horizon`` + 1 rows from the given first ones: ``[H + 1, B, ROW_WIDTH]`` on
        ``device``."""


class InMemory:
    """``device`` and ``host``: all rows of a store as one tensor ``[N, ROW_WIDTH]``.

    They are read when they are first needed, which for a run that is complete is never. That takes
    no more memory than they and one piece.
    """

    def __init__(self, store: Store, kind: Literal["device", "host"], device: torch.device) -> None:
        self.kind: Kind = kind
        self.device = device
        self.worker = ThreadPoolExecutor(1, "batches") if kind == "host" else None
        self._stored = Stored(store, device)

    @cached_property
    def packed(self) -> Tensor:
        """All rows. ``UserError`` for damaged ones."""
        store, block = self._stored.store, self._stored.block_rows
        place = self.device if self.kind == "device" else torch.device("cpu")
        packed = torch.empty(store.rows, ROW_WIDTH, device=place)
        step = math.ceil(PIECE_ROWS / block) * block
        for start in range(0, store.rows, step):
            end = min(start + step, store.rows)
            packed[start:end] = torch.from_numpy(self._stored.span(start, end))
        return packed

    def load(self) -> None:
        """See `Residence`."""
        self.packed  # noqa: B018 (it is read here)

    def gather(self, row_B: Tensor, horizon: int) -> Tensor:
        """See `Residence`."""
        packed = self.packed[_slices(row_B, horizon).to(self.packed.device)]
        return to_device(packed, self.device)


class Stored:
    """``stream``: rows that stay on the disk.

    Chunks that are plain float32 are read in part, by position; others (compressed) are decoded
    whole, the last one of each array being kept. Every value that is read is checked to be finite.

    Attributes:
        block_rows: rows of a chunk, what is best read at once.
        plain: whether a few rows can be read without decoding a chunk.
    """

    kind: Kind = "stream"

    def __init__(self, store: Store, device: torch.device) -> None:
        self.store, self.device = store, device
        self.worker: ThreadPoolExecutor | None = ThreadPoolExecutor(1, "batches")
        self.block_rows = int(store.arrays["data/obs"].chunks[0])
        self.plain = all(_is_plain(store.arrays[name]) for name in DATA_ARRAYS)
        self._last: dict[str, tuple[int, NDArray[np.float32]]] = {}

    def load(self) -> None:
        """See `Residence`: nothing is to be brought."""

    def span(
        self, start: int, end: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Rows ``start`` to ``end``, ``[n, ROW_WIDTH]``, written to ``out`` where it is given.

        Raises ``UserError`` for chunks that cannot be read and values that are not finite.
        """
        packed = np.empty((end - start, ROW_WIDTH), np.float32) if out is None else out
        column = 0
        for name, width in zip(DATA_ARRAYS, WIDTHS, strict=True):
            chunk = int(self.store.arrays[name].chunks[0])
            row = start
            while row < end:
                until = min((row // chunk + 1) * chunk, end)
                values = self._read(name, row // chunk, row % chunk, until - row)
                check_finite(values, row, name, self.store.episode_ends, self.store.path)
                packed[row - start : until - start, column : column + width] = values.reshape(
                    len(values), width
                )
                row = until
            column += width
        return packed

    def gather(self, row_B: Tensor, horizon: int) -> Tensor:
        """See `Residence`; rows are read in the order in which they lie, each chunk once."""
        packed = np.empty((len(row_B), horizon + 1, ROW_WIDTH), np.float32)
        first_B = row_B.numpy()
        for i in np.argsort(first_B, kind="stable"):
            self.span(int(first_B[i]), int(first_B[i]) + horizon + 1, packed[i])
        return to_device(torch.from_numpy(packed).transpose(0, 1).contiguous(), self.device)

    def _read(self, name: str, chunk: int, offset: int, count: int) -> NDArray[np.float32]:
        array, path = self.store.arrays[name], self.store.path
        width = LAYOUT[name][1] or 1
        if self.plain:
            key = array.metadata.encode_chunk_key((chunk, 0)[: array.ndim])
            place = path / name / key
            try:
                values = np.fromfile(place, "<f4", count * width, offset=4 * offset * width)
            except OSError as error:
                raise UserError(f"unreadable: {error}", where=str(place), remedy=REMAKE) from error
            if len(values) < count * width:
                raise UserError("truncated", where=str(place), remedy=REMAKE)
            return values.reshape(count, width)
        last = self._last.get(name)
        if last is None or last[0] != chunk:
            rows = int(array.chunks[0])
            last = chunk, read(array, name, path, slice(chunk * rows, (chunk + 1) * rows))
            self._last[name] = last
        return last[1][offset : offset + count]


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """The same on ``device``; to a GPU from page-locked memory, which need not be waited for."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def _slices(row_B: Tensor, horizon: int) -> Tensor:
    return row_B + torch.arange(horizon + 1).unsqueeze(1)


def _is_plain(array: Any) -> bool:
    codecs = array.metadata.codecs
    little = len(codecs) == 1 and isinstance(codecs[0], BytesCodec)
    return little and str(getattr(codecs[0].endian, "value", "")) == "little"
