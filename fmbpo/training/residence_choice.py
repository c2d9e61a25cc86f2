"""Which residence a data set gets, and the memory that it takes there.

``auto`` is the first of ``device``, ``host`` and ``stream`` that fits into the machine's memory as
a whole, whatever other programs take of it: ``stream`` gives other batches, is part of what a run
is, and must not be another choice when the run is continued. Whether enough is free is
``check_loading``'s question.
"""

from __future__ import annotations

import attrs
import numpy as np
import torch

from fmbpo.base import free_memory
from fmbpo.base.text import bytes_text
from fmbpo.config.schema import DataConfig, Experiment
from fmbpo.data.residence import PIECE_ROWS, Kind
from fmbpo.data.sampler import START_ROWS
from fmbpo.data.store import Store
from fmbpo.data.store_format import ROW_BYTES
from fmbpo.data.stream import window_bytes
from fmbpo.errors import UserError
from fmbpo.tasks.mt30 import OBS_WIDTH

DEVICE_SHARE = 0.6
"""Most of a GPU's memory that ``auto`` gives to rows; the rest is for training."""
HOST_SHARE = 0.8
"""Most of the host's memory that ``auto`` gives to rows."""


def choose(config: DataConfig, store: Store, device: torch.device) -> Kind:
    """The residence that is asked for, or the first that fits."""
    if config.residence != "auto":
        return config.residence
    needed = store.rows * ROW_BYTES
    if device.type == "cuda" and needed <= DEVICE_SHARE * free_memory.device_total(device):
        return "device"
    total = free_memory.host_total()
    if total is None or needed <= HOST_SHARE * total:
        return "device" if device.type == "cpu" else "host"
    return "stream"


def settled(experiment: Experiment, kind: Kind) -> Experiment:
    """The experiment with its residence, as the run's record has it."""
    return attrs.evolve(experiment, data=attrs.evolve(experiment.data, residence=kind))


def check_loading(kind: Kind, store: Store, device: torch.device) -> None:
    """``UserError`` if rows that belong in memory do not fit into the free memory."""
    if kind == "stream":
        return
    place, free, on_gpu = "memory", free_memory.host_free(), False
    if kind == "device" and device.type == "cuda":
        place, free, on_gpu = str(device), free_memory.device_free(device), True
    piece = min(max(PIECE_ROWS, int(store.arrays["data/obs"].chunks[0])), store.rows)
    needed = (store.rows + (0 if on_gpu else 2 * piece)) * ROW_BYTES  # decoded, and packed
    if free is not None and needed > free:
        other = "host or stream" if on_gpu else "stream"
        raise UserError(
            f"{store.rows:,} rows need {bytes_text(needed)} of {place}, "
            f"{bytes_text(free)} are free",
            where=str(store.path),
            remedy=f"choose data.residence = {other}, a smaller data set, or a larger machine",
        )


def streaming_bytes(store: Store, tasks: int) -> int:
    """Host memory that sampling from the disk takes beside a run: windows, and a pool of starts a
    task."""
    longest = int(np.diff(store.episode_ends, prepend=0).max())
    block = int(store.arrays["data/obs"].chunks[0])
    return window_bytes(store.rows, block, longest) + tasks * START_ROWS * 4 * OBS_WIDTH


def described(kind: Kind, store: Store, device: torch.device) -> str:
    """Where the rows are and how many bytes they take there, for people."""
    held = bytes_text(store.rows * ROW_BYTES)
    if kind == "stream":
        return f"{held} stay on the disk and are read in windows (stream)"
    return f"{held} on {device}" if kind == "device" else f"{held} in the host's memory (host)"
