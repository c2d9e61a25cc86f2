"""The arithmetic of matrix products in updates. Parameters, moments and results stay float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch

from fmbpo.errors import UserError

Precision: TypeAlias = Literal["float32", "tf32", "bfloat16"]


def resolve_precision(name: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """``"auto"`` is TF32 on a GPU and float32 on a CPU. ``UserError`` for an arithmetic that the
    device does not have."""
    on_gpu = device.type == "cuda"
    if name == "auto":
        return "tf32" if on_gpu else "float32"
    if name == "tf32" and device.type == "cpu":
        what = "TF32 is an arithmetic of GPUs, and this run computes on the CPU"
        raise UserError(what, where="system.precision", remedy='use "auto" or "float32"')
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    lacking = {"cpu": lambda: not supported(),
               "cuda": lambda: not torch.cuda.is_bf16_supported()}  # fmt: skip
    if name == "bfloat16" and lacking.get(device.type, lambda: False)():
        what = f"this {'GPU' if on_gpu else 'CPU'} has no bfloat16 arithmetic"
        raise UserError(what, where="system.precision", remedy='use "auto" or "float32"')
    return name


@contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Matrix products in this precision inside the block: bfloat16 by autocast, which keeps sums,
    norms and exponentials in float32."""
    if precision == "bfloat16":
        with torch.autocast(device.type, torch.bfloat16):
            yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
