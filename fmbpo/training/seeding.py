"""The random streams of a run, derived from its seeds and named for their purposes."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def derive(seed: int, *purpose: str) -> int:
    """A different seed for each purpose: 63 bits, stable across machines and versions."""
    entropy = [seed, *(zlib.crc32(word.encode()) for word in purpose)]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, *purpose: str) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


def built(build: Callable[[], M], device: torch.device, seed: int, *purpose: str) -> M:
    """``build()`` with torch's global generator seeded, and restored afterwards.

    Parameters are drawn on the CPU, so that devices do not matter; ``meta`` allocates none.
    """
    on_shapes = device.type == "meta"
    with torch.random.fork_rng(devices=[]), device if on_shapes else contextlib.nullcontext():
        torch.manual_seed(derive(seed, *purpose))
        return build().to(device)
