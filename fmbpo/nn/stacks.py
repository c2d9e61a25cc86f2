"""Weights ``[*S, ...]`` that ``vmap`` has stacked, S, and the tensors that go with them."""

from __future__ import annotations

from torch import Tensor


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
