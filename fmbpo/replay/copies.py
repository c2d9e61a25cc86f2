"""Copies of tensors that keep their layout: the last bits of a product depend on strides and
alignment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, UntypedStorage


def lying(
    storage: UntypedStorage,
    dtype: torch.dtype,
    offset: int,
    size: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    """The tensor of this type and geometry in a storage."""
    return torch.empty(0, dtype=dtype, device=storage.device).set_(storage, offset, size, stride)


def geometry(tensor: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Offset, size and stride."""
    return int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride()


def copied(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies; tensors that share a storage share one again."""
    copies: dict[int, UntypedStorage] = {}
    for storage in (tensor.untyped_storage() for tensor in tensors):
        if storage._cdata not in copies:
            copies[storage._cdata] = storage.clone()  # type: ignore[no-untyped-call]
    return [lying(copies[t.untyped_storage()._cdata], t.dtype, *geometry(t)) for t in tensors]


def writable(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies that can be written one by one: as ``copied``, but tensors that overlap themselves (an
    expanded one) or each other become dense and apart."""
    of_storage: dict[int, list[Tensor]] = {}
    for tensor in tensors:
        of_storage.setdefault(tensor.untyped_storage()._cdata, []).append(tensor)
    apart = {key: _apart(group) for key, group in of_storage.items()}
    alike = iter(copied([t for t in tensors if apart[t.untyped_storage()._cdata]]))
    return [
        next(alike) if apart[t.untyped_storage()._cdata] else t.detach().clone().contiguous()
        for t in tensors
    ]


def _apart(group: Sequence[Tensor]) -> bool:
    """Whether the tensors of one storage and type fill at least half of it, and no two of their
    entries are one."""
    first, entries = group[0], sum(tensor.numel() for tensor in group)
    total = first.untyped_storage().nbytes() // first.element_size()
    expanded = any(
        s == 0 and n > 1 for t in group for n, s in zip(t.shape, t.stride(), strict=True)
    )
    mixed = any(tensor.dtype != first.dtype for tensor in group)
    if expanded or mixed or 2 * entries < total:
        return False
    covered = torch.zeros(total, dtype=torch.uint8)
    for tensor in group:
        covered.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).fill_(1)
    return int(covered.count_nonzero()) == entries
