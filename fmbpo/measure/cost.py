"""What an update costs: floating-point operations, counted by torch's own counter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def flops(update: Callable[..., Any], *args: Any) -> int:
    """Operations of one call (matrix products alone; a multiply-add counts as two)."""
    with FlopCounterMode(display=False) as counter:
        update(*args)
    return int(counter.get_total_flops())


def parameters(module: nn.Module) -> dict[str, int]:
    """Number of parameters by top-level part, in the module's order."""
    counts: dict[str, int] = {}
    for name, p in module.named_parameters():
        part = name.split(".")[0]
        counts[part] = counts.get(part, 0) + p.numel()
    return counts
