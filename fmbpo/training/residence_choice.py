"""Chooses the residence of a data set, and computes its memory there.

``auto`` is the first of ``device``, ``host`` and ``stream`` that fits in the total memory, whatever
other programs use: ``stream`` gives different batches, so the choice must not change when a run is
continued. ``check_loading`` checks the free memory.
"""

from __future__ import annotations

import numpy as np
import torch

from fmbpo.base import free_memory
from fmbpo.base.text import bytes_text
from fmbpo.config.schema import DataConfig
from fmbpo.data.residence import PIECE_ROWS, Kind
from fmbpo.data.sampler import START_ROWS
from fmbpo.data.store import Store
from fmbpo.data.stream import window_bytes
from fmbpo.errors import UserError

DEVICE_SHARE = 0.6
"""The largest share of a GPU's memory for rows under ``auto``; the rest is for training."""
HOST_SHARE = 0.8
"""The largest share of the host's memory for rows under ``auto``."""


def choose(config: DataConfig, store: Store, device: torch.device) -> Kind:
    """The configured residence, or the first that fits."""
    if config.residence != "auto":
        return config.residence
    needed = store.rows * store.layout.row_bytes
    if device.type == "cuda" and needed <= DEVICE_SHARE * free_memory.device_total(device):
        return "device"
    total = free_memory.host_total()
    if total is None or needed <= HOST_SHARE * total:
        return "device" if device.type == "cpu" else "host"
    return "stream"


def check_loading(kind: Kind, store: Store, device: torch.device) -> None:
    """``UserError`` if rows do not fit in the free memory."""
    if kind == "stream":
        return
    place, free, on_gpu = "memory", free_memory.host_free(), False
    if kind == "device" and device.type == "cuda":
        place, free, on_gpu = str(device), free_memory.device_free(device), True
    piece = min(max(PIECE_ROWS, int(store.arrays["data/obs"].chunks[0])), store.rows)
    rows = store.rows + (0 if on_gpu else 2 * piece)  # decoded, and packed
    needed = rows * store.layout.row_bytes
    if free is not None and needed > free:
        other = "host or stream" if on_gpu else "stream"
        raise UserError(
            f"{store.rows:,} rows need {bytes_text(needed)} of {place}, "
            f"{bytes_text(free)} are free",
            where=str(store.path),
            remedy=f"choose data.residence = {other}, a smaller data set, or a larger machine",
        )


def streaming_bytes(store: Store, tasks: int) -> int:
    """Additional host memory for sampling from the disk: windows, and a pool of starts per task."""
    longest = int(np.diff(store.episode_ends, prepend=0).max())
    block = int(store.arrays["data/obs"].chunks[0])
    pools = tasks * START_ROWS * 4 * store.layout.obs_width
    return window_bytes(store.layout, store.rows, block, longest) + pools


def described(kind: Kind, store: Store, device: torch.device) -> str:
    """A text on the place of the rows and their bytes there."""
    held = bytes_text(store.rows * store.layout.row_bytes)
    if kind == "stream":
        return f"{held} stay on the disk and are read in windows (stream)"
    return f"{held} on {device}" if kind == "device" else f"{held} in the host's memory (host)"
