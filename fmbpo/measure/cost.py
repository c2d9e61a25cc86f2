"""The floating-point operations of an update, by torch's counter, and numbers of parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import ParamSpec

from torch.utils.flop_counter import FlopCounterMode

from fmbpo.hookspecs import Module

P = ParamSpec("P")


def flops(update: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> int:
    """Operations of one call (matrix products only; a multiply-add counts as two)."""
    with FlopCounterMode(display=False) as counter:
        update(*args, **kwargs)
    return int(counter.get_total_flops())


def parameters(module: Module) -> dict[str, int]:
    """Number of parameters by top-level part, in the module's order."""
    counts = Counter[str]()
    for name, p in module.named_parameters():
        counts[name.split(".")[0]] += p.numel()
    return counts
