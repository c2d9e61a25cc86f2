"""Gradients of weights from all uses of their layer at once.

A rollout of H steps uses a network H times. Autograd computes H gradients of each weight, each the
product of a short batch, and adds them up. Weights from ``collect`` have their layers
(``fmbpo.nn.layers``) keep the inputs and output gradients of their uses instead. When the backward
pass has reached the last use, one long product replaces H short ones and H - 1 sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor

LIMIT = 2**28
"""Bytes that the uses of one layer may keep. Beyond it they are multiplied at once, and their
gradients added up."""

Gradients: TypeAlias = tuple[Tensor, Tensor]
"""Those of a layer's weight and bias."""

Total: TypeAlias = Callable[..., Gradients]
"""A layer's gradients from tensors ``[*S, rows, ...]``, S a stack of layers."""


def collect(leaves: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """The same tensors. Differentiate with respect to ``leaves``, and only once."""
    collection = _Collection()
    own: tuple[Tensor, ...] = _Collected.apply(collection, *leaves)  # type: ignore[no-untyped-call]
    weights = tuple(x.view_as(x) for x in own)
    collection.places = {id(weight): place for place, weight in enumerate(weights)}
    for weight in weights:
        weight.collection = collection  # type: ignore[attr-defined]
    return weights


def uses_of(weight: Tensor, bias: Tensor, total: Total) -> Uses | None:
    """Where a layer with these parameters adds its uses; None if they were not collected."""
    found: _Collection | None = getattr(weight, "collection", None)
    if found is None or id(bias) not in found.places:
        return None
    places = found.places[id(weight)], found.places[id(bias)]
    uses: Uses = found.layers.setdefault((*places, total), Uses(total))
    return uses


def reached(weight: Any) -> bool:
    """Whether this backward pass goes on to the leaves. One within a loss does not, and needs its
    gradients at once. ``weight``: the node of the weight, a view of what ``_Collected`` gave."""
    return bool(torch._C._will_engine_execute_node(weight.next_functions[0][0]))


class Uses:
    """The uses of one layer, or of a stack of layers, in one backward pass."""

    def __init__(self, total: Total) -> None:
        self.total, self.gradients = total, list[Tensor]()
        self._kept, self._bytes = list[tuple[Tensor, ...]](), 0

    def add(self, *use: Tensor) -> None:
        """One use: tensors ``[*S, rows, ...]``."""
        self._kept.append(use)
        self._bytes += sum(x.nbytes for x in use)
        if self._bytes > LIMIT:
            self.multiply()

    def multiply(self) -> None:
        """Adds the gradients of the uses that were kept."""
        if not self._kept:
            return
        joined = (torch.cat(x, -2) if len(x) > 1 else x[0] for x in zip(*self._kept, strict=True))
        found = self.total(*joined)
        before = self.gradients
        self.gradients = [a + b for a, b in zip(before, found, strict=True)] if before else [*found]
        self._kept, self._bytes = [], 0


class _Collection:
    """Uses by the places of weight and bias among the leaves."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self.layers: dict[tuple[int, int, Total], Uses] = {}


class _Collected(torch.autograd.Function):
    """The identity, whose backward pass comes after those of all uses."""

    @staticmethod
    def forward(ctx: Any, collection: _Collection, *leaves: Tensor) -> tuple[Tensor, ...]:
        ctx.collection = collection
        ctx.set_materialize_grads(False)
        return tuple(x.view_as(x) for x in leaves)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        found = list(grads)
        for (*places, _), uses in ctx.collection.layers.items():
            uses.multiply()
            for place, grad in zip(places, uses.gradients, strict=False):
                other = found[place]
                found[place] = grad if other is None else other + grad
        return None, *found
