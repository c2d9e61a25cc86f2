"""Operations on nested tensors (tuples, dictionaries, parameters)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from fmbpo.hookspecs import Module

Tree = TypeVar("Tree")

Saved: TypeAlias = dict[str, Any]
"""Training state as a checkpoint holds it (``fmbpo.runs.tree``): names to nested values."""


def own_params(module: Module) -> dict[str, Tensor]:
    """Copies of a module's parameters and buffers by name."""
    named = *module.named_parameters(), *module.named_buffers()
    return {name: x.detach().clone() for name, x in named}


def stack(trees: Sequence[Tree]) -> Tree:
    """Trees of the same shape -> one tree with a further leading dimension."""
    stacked: Tree = tree_map(lambda *leaves: torch.stack(leaves), *trees)
    return stacked


def to_device(tree: Tree, device: torch.device) -> Tree:
    """The tree with its tensors on ``device``."""
    moved: Tree = tree_map_only(Tensor, lambda t: t.to(device), tree)
    return moved


def part(name: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors ``NAME.KEY`` of a checkpoint, by key."""
    prefix = f"{name}."
    return {k.removeprefix(prefix): w for k, w in weights.items() if k.startswith(prefix)}


def noise(generators: Sequence[torch.Generator], *shape: int) -> Tensor:
    """Standard normals ``[T, ...]``, each cell's from its own generator."""
    return torch.stack([torch.randn(shape, generator=g) for g in generators])


def set_states(generators: Sequence[torch.Generator], states: Sequence[Tensor]) -> None:
    """Restore the saved states of generators."""
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
