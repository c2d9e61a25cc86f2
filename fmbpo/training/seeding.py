"""Every random stream of a run, derived from its seeds and named for its purpose."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def derive(seed: int, *purpose: str) -> int:
    """A seed of its own for each purpose: 63 bits, stable across machines and versions."""
    entropy = [seed, *(zlib.crc32(word.encode()) for word in purpose)]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, *purpose: str) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


def built(build: Callable[[], M], seed: int, *purpose: str) -> M:
    """``build()`` with torch's global generator seeded, and left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, *purpose))
        return build()
