"""From the host to the device: everything that an update needs, in one copy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

ALIGNED = 16
"""Bytes at whose multiples tensors begin in the buffer."""


def send(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors in the host's memory -> the same on ``device``; on a CPU, the tensors themselves.

    A GPU gets them by one copy from page-locked memory, for which the host does not wait.
    """
    if device.type == "cpu":
        return list(tensors)
    flat = [t.contiguous().reshape(-1).view(torch.uint8) for t in tensors]
    sizes = [-(-len(part) // ALIGNED) * ALIGNED for part in flat]
    begins = [0, *accumulate(sizes)]
    buffer = torch.empty(begins.pop(), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for begin, part in zip(begins, flat, strict=True):
        buffer[begin : begin + len(part)] = part
    there = buffer.to(device, non_blocking=True)
    return [
        there[begin : begin + len(part)].view(tensor.dtype).view(tensor.shape)
        for begin, part, tensor in zip(begins, flat, tensors, strict=True)
    ]
