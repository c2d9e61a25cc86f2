"""Nested tensors (tuples, dictionaries, parameters) as one thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only


def own_params(module: nn.Module) -> dict[str, Tensor]:
    """Copies of a module's parameters by name."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def stack(trees: Sequence[Any]) -> Any:
    """Trees of one shape -> one tree with a further leading dimension."""
    return tree_map(lambda *leaves: torch.stack(leaves), *trees)


def to_device(tree: Any, device: torch.device) -> Any:
    """The tree with its tensors on ``device``."""
    return tree_map_only(Tensor, lambda t: t.to(device), tree)
