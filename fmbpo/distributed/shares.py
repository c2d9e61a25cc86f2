"""Sharing sequences of cells among processes, and joining the parts again.

Trees hold values of T cells: dictionaries and tuples are branches; a tensor or an array
``[T, ...]`` and a list of T entries are leaves; None stays None.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor


def shares(count: int, processes: int) -> list[slice]:
    """``count`` things in order, dealt out as evenly as possible; the first ones may get one more,
    the last ones none."""
    ends = [-(-count * rank // processes) for rank in range(processes + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def joined(parts: Sequence[Any]) -> Any:
    """One tree of all cells from those of consecutive parts."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: joined([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(joined(leaves) for leaves in zip(*parts, strict=True))
    if isinstance(first, list):
        return [entry for part in parts for entry in part]
    if isinstance(first, Tensor):
        return torch.cat([part.to(first.device) for part in parts])
    if isinstance(first, np.ndarray):
        return np.concatenate(parts)
    assert first is None, f"{type(first).__name__} is no value of cells"
    return None


def part_of(tree: Any, part: slice) -> Any:
    """The tree of some cells."""
    if isinstance(tree, dict):
        return {key: part_of(value, part) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(part_of(value, part) for value in tree)
    return None if tree is None else tree[part]
