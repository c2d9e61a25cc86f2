"""Weights ``[*S, ...]`` that ``vmap`` has stacked, S, and the tensors that go with them.

`apply` takes the levels of ``vmap`` off by hand, through the functions that functorch's own Python
uses: its way for an ``autograd.Function`` takes ten times as long as a small layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch._functorch.utils import enable_single_level_autograd_function


def apply(function: Any, x: Tensor, weight: Tensor, bias: Tensor, *constants: object) -> Tensor:
    """The first result of an ``autograd.Function`` of a layer, whose ``rank`` is that of a single
    weight. Other transforms than ``vmap`` are left to functorch."""
    tensors = x, weight, bias
    wrapped = [t for t in tensors if _functorch.is_functorch_wrapped_tensor(t)]
    if not all(map(_functorch.is_batchedtensor, wrapped)):
        return _first(function.apply(*tensors, *constants))
    if not wrapped:
        return _plainly(function, *tensors, *constants)
    level = max(map(_functorch.maybe_get_level, wrapped))
    own, dims = zip(*(_functorch._unwrap_batched(t, level) for t in tensors), strict=True)
    size = next(t.shape[d] for t, d in zip(own, dims, strict=True) if d is not None)
    x, at = mapped(size, dims, own[0], own[1].dim() - function.rank)
    found = apply(function, x, *stacked(size, dims, *own[1:]), *constants)
    return _functorch._add_batch_dim(found, at, level)


def apply_elementwise(function: Any, x: Tensor) -> Tensor:
    """The same for a function of one tensor, entry by entry."""
    if not _functorch.is_functorch_wrapped_tensor(x):
        return _plainly(function, x)
    if not _functorch.is_batchedtensor(x):
        return _first(function.apply(x))
    level = _functorch.maybe_get_level(x)
    own, dim = _functorch._unwrap_batched(x, level)
    assert dim is not None
    return _functorch._add_batch_dim(apply_elementwise(function, own), dim, level)


def _plainly(function: Any, *args: object) -> Tensor:
    with enable_single_level_autograd_function():
        return _first(super(torch.autograd.Function, function).apply(*args))


def _first(found: Tensor | tuple[Tensor, ...]) -> Tensor:
    return found[0] if isinstance(found, tuple) else found


def mapped(size: int, in_dims: tuple[int | None, ...], x: Tensor, depth: int) -> tuple[Tensor, int]:
    """``x`` with its mapped dimension where the layer has it: with mapped weights in front of their
    stack of this depth, otherwise behind it; and its place."""
    at = depth if in_dims[1] is None and in_dims[2] is None else 0
    return (x.expand(size, *x.shape) if in_dims[0] is None else x.movedim(in_dims[0], at)), at


def stacked(
    size: int, in_dims: tuple[int | None, ...], weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Both with their mapped dimension in front, unless neither has one."""
    if in_dims[1] is None and in_dims[2] is None:
        return weight, bias
    dims = zip(in_dims[1:3], (weight, bias), strict=True)
    found = [
        x.expand(size, *x.shape) if d is None else x.movedim(d, 0) if d else x for d, x in dims
    ]
    return found[0], found[1]


def rows(x: Tensor, depth: int) -> Tensor:
    """``[*S, ..., D]`` -> ``[*S, rows, D]``."""
    return x.reshape(*x.shape[:depth], -1, x.shape[-1])


def beside(x: Tensor, weight: Tensor) -> Tensor:
    """``weight[*S, D]`` as ``[*S, 1, ..., D]``, to stand beside ``x[*S, ..., D]``."""
    middle = [1] * (x.dim() - weight.dim())
    return weight.view(*weight.shape[:-1], *middle, weight.shape[-1])
