"""float32 where bfloat16 is too coarse: latents, sums over bins, values of states."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(x: Tensor) -> Tensor:
    """float32 for bfloat16; other types as they are."""
    return x.float() if x.dtype == torch.bfloat16 else x
