"""The residence of a data set's rows: the memory that holds them during sampling.

``stream`` (`Stored`): on the disk, for data sets larger than memory; `StreamSampler` reads them in
order, one window at a time. ``host`` (`InMemory`): in the host's memory; batches are made there and
sent to the device. ``device`` (`InMemory`): in the memory of the training device.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from zarr.codecs import BytesCodec

from fmbpo.data.sending import send
from fmbpo.data.store import Store
from fmbpo.data.store_format import DATA_ARRAYS, check_values, damaged, read

Kind: TypeAlias = Literal["device", "host", "stream"]

PIECE_ROWS = 65_536
"""Rows packed at a time while a store is loaded into memory."""


class Stored:
    """Rows that stay on the disk, and slices of them.

    Plain float32 chunks are read in part, by position; compressed chunks are decoded whole, and
    the last one of each array is cached. Reading checks that all values are finite.

    Attributes:
        kind: the name of the residence.
        device: the device of the batches.
        worker: a thread that draws batches in advance; None if that gains nothing.
        row_width: columns of a packed row: observation, action and reward, concatenated.
        widths: of these three.
        block_rows: rows per chunk of the observations, best read at once.
        plain: whether chunks are bare little-endian numbers, so that rows can be read singly.
    """

    def __init__(self, store: Store, device: torch.device, kind: Kind = "stream") -> None:
        self.store, self.device, self.kind = store, device, kind
        self.worker = None if kind == "device" else ThreadPoolExecutor(1, "batches")
        self.row_width = store.layout.row_width
        self.widths = store.layout.obs_width, store.layout.action_width, 1
        self.block_rows = int(store.arrays["data/obs"].chunks[0])
        self.plain = all(
            getattr(store.arrays[name].metadata, "codecs", ()) == (BytesCodec(endian="little"),)
            for name in DATA_ARRAYS
        )
        self._last: dict[str, tuple[int, NDArray[np.float32]]] = {}

    def load(self) -> None:
        """Read rows that belong in memory now, not with the first batch; UserError if damaged."""

    def span(
        self, start: int, end: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Rows ``start`` to ``end`` (exclusive), ``[n, row_width]``, in ``out`` if it is given.

        Raises `UserError` for chunks that cannot be read and unfit values (`worst`).
        """
        packed = np.empty((end - start, self.row_width), np.float32) if out is None else out
        column = 0
        for name, width in zip(DATA_ARRAYS, self.widths, strict=True):
            chunk = int(self.store.arrays[name].chunks[0])
            row = start
            while row < end:
                until = min((row // chunk + 1) * chunk, end)
                values = self._read(name, row // chunk, row % chunk, until - row)
                check_values(values, row, name, self.store.episode_ends, self.store.path)
                part = packed[row - start : until - start, column : column + width]
                part[:] = values.reshape(part.shape)
                row = until
            column += width
        return packed

    def on_host(self, row_B: Tensor, horizon: int) -> Tensor:
        """Slices of ``horizon`` + 1 rows from the given first rows, as they have to be sent to the
        device: the slices ``[H + 1, B, row_width]`` or, if the device has all rows, ``row_B``.

        Here they are read from the disk, in the order of their rows.
        """
        packed = np.empty((len(row_B), horizon + 1, self.row_width), np.float32)
        first_B = row_B.numpy()
        for i in np.argsort(first_B, kind="stable"):
            self.span(int(first_B[i]), int(first_B[i]) + horizon + 1, packed[i])
        return torch.from_numpy(packed).transpose(0, 1).contiguous()

    def on_device(self, sent: Tensor, horizon: int) -> Tensor:
        """The slices on the device, from the result of ``on_host`` after ``send``."""
        return sent

    def gather(self, row_B: Tensor, horizon: int) -> Tensor:
        """Slices ``[H + 1, B, row_width]`` on ``device`` at once."""
        (sent,) = send([self.on_host(row_B, horizon)], self.device)
        return self.on_device(sent, horizon)

    def _read(self, name: str, chunk: int, offset: int, count: int) -> NDArray[np.float32]:
        array, path = self.store.arrays[name], self.store.path
        width = self.widths[DATA_ARRAYS.index(name)]
        if self.plain:
            key = array.metadata.encode_chunk_key((chunk, 0)[: array.ndim])
            place = path / name / key
            try:
                values = np.fromfile(place, "<f4", count * width, offset=4 * offset * width)
            except OSError as error:
                raise damaged(f"unreadable: {error}", str(place)) from error
            if len(values) < count * width:
                raise damaged("truncated", str(place))
            return values.reshape(count, width)
        last = self._last.get(name)
        if last is None or last[0] != chunk:
            rows = int(array.chunks[0])
            last = chunk, read(array, name, path, slice(chunk * rows, (chunk + 1) * rows))
            self._last[name] = last
        return last[1][offset : offset + count]


class InMemory(Stored):
    """All rows of a store in memory, as one tensor ``[N, row_width]``.

    They are read on first use, so never for a complete run. Reading needs memory for all rows and
    one piece of ``PIECE_ROWS``.
    """

    @cached_property
    def packed(self) -> Tensor:
        """All rows; `UserError` for damaged ones."""
        place = self.device if self.kind == "device" else torch.device("cpu")
        packed = torch.empty(self.store.rows, self.row_width, device=place)
        step = math.ceil(PIECE_ROWS / self.block_rows) * self.block_rows
        for start in range(0, self.store.rows, step):
            end = min(start + step, self.store.rows)
            packed[start:end] = torch.from_numpy(self.span(start, end))
        self._last.clear()
        return packed

    def load(self) -> None:
        """See `Stored`."""
        self.packed  # noqa: B018 (access reads the rows)

    def on_host(self, row_B: Tensor, horizon: int) -> Tensor:
        """See `Stored`."""
        return row_B if self.kind == "device" else self._slices(row_B, horizon)

    def on_device(self, sent: Tensor, horizon: int) -> Tensor:
        """See `Stored`."""
        return self._slices(sent, horizon) if self.kind == "device" else sent

    def _slices(self, row_B: Tensor, horizon: int) -> Tensor:
        step_H = torch.arange(horizon + 1, device=row_B.device)
        return self.packed[row_B + step_H.unsqueeze(1)]


def residence(store: Store, kind: Kind, device: torch.device) -> Stored:
    """The rows of a store in the residence of this kind."""
    return (Stored if kind == "stream" else InMemory)(store, device, kind)
