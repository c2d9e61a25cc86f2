"""Nested tensors (tuples, dictionaries, parameters) as one thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from fmbpo.hookspecs import Module

Tree = TypeVar("Tree")

Saved: TypeAlias = dict[str, Any]
"""Training state as a checkpoint holds it (``fmbpo.runs.tree``): names to nested values."""


def own_params(module: Module) -> dict[str, Tensor]:
    """Copies of a module's parameters by name."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def stack(trees: Sequence[Tree]) -> Tree:
    """Trees of one shape -> one tree with a further leading dimension."""
    stacked: Tree = tree_map(lambda *leaves: torch.stack(leaves), *trees)
    return stacked


def to_device(tree: Tree, device: torch.device) -> Tree:
    """The tree with its tensors on ``device``."""
    moved: Tree = tree_map_only(Tensor, lambda t: t.to(device), tree)
    return moved
