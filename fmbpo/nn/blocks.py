"""Layers of TD-MPC2's world model (arXiv 2310.16828) and of PWM's actor and critic (2407.02466)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmbpo.nn.compiled import use_kernels
from fmbpo.nn.layers import LayerNorm, Linear
from fmbpo.nn.mish import Mish
from fmbpo.nn.precise import precise

SIMPLEX_DIM = 8
"""Size of one SimNorm group."""


def simnorm(x: Tensor, group: int = SIMPLEX_DIM) -> Tensor:
    """Softmax over groups of ``group`` entries: ``[..., D]`` -> ``[..., D]``."""
    groups: Tensor = precise(x).reshape(*x.shape[:-1], -1, group)
    if x.device.type == "cpu":  # there, a softmax over so short a last dimension is not vectorised
        return groups.mT.softmax(-2).mT.flatten(-2)
    return groups.softmax(-1).flatten(-2)


class SimNorm(nn.Module):
    """``simnorm`` as a layer."""

    def __init__(self, group: int = SIMPLEX_DIM) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` -> ``[..., D]``."""
        return simnorm(x, self.group)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A Linear with the world model's initialisation: truncated normal (σ = 0.02), zero bias."""
    layer = Linear(inputs, outputs)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


class NormedLinear(nn.Module):
    """The world model's block: Linear -> LayerNorm -> activation (Mish by default)."""

    def __init__(self, inputs: int, outputs: int, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.linear = linear(inputs, outputs)
        self.norm = LayerNorm(outputs)
        self.activation = activation or Mish()

    def forward(self, x: Tensor) -> Tensor:
        """``[..., inputs]`` -> ``[..., outputs]``."""
        y: Tensor = self.linear(x)
        if use_kernels(y) and isinstance(self.activation, Mish):
            return self.norm.with_mish(y, mish_first=False)
        y = self.activation(self.norm(y))
        return y


def normed_mlp(inputs: int, units: Sequence[int], last: nn.Module) -> nn.Sequential:
    """NormedLinear blocks of the given widths, then ``last``."""
    return nn.Sequential(*(NormedLinear(a, b) for a, b in pairwise([inputs, *units])), last)


def network(inputs: int, units: Sequence[int], outputs: int) -> nn.Sequential:
    """``normed_mlp`` that ends in a Linear."""
    return normed_mlp(inputs, units, linear(units[-1], outputs))


def plain_mlp(inputs: int, units: Sequence[int], outputs: int) -> nn.Sequential:
    """The actor's and critic's network: blocks of Linear -> Mish -> LayerNorm, then a Linear."""
    layers: list[nn.Module] = []
    for width in units:
        layers += [Linear(inputs, width), Mish(), LayerNorm(width)]
        inputs = width
    return _PlainMLP(*layers, Linear(inputs, outputs))


class _PlainMLP(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        *blocks, last = self
        for linear, mish, norm in zip(blocks[::3], blocks[1::3], blocks[2::3], strict=True):
            assert isinstance(norm, LayerNorm)
            x = linear(x)
            x = norm.with_mish(x, mish_first=True) if use_kernels(x) else norm(mish(x))
        y: Tensor = last(x)
        return y


def join(x: Tensor, embedding: Tensor, *more: Tensor) -> Tensor:
    """``[..., B, D]``, a task embedding ``[B, E]``, and further ``[..., B, M]`` side by side."""
    return torch.cat([x, embedding.expand(*x.shape[:-1], -1), *more], -1)


class TaskEmbedding(nn.Module):
    """A learned row per task, of norm at most 1.

    The look-up limits the norm, and ``project`` writes the limited rows back after every update.
    (TD-MPC2's ``nn.Embedding(max_norm=1)`` writes to its weight in the forward pass, so it cannot
    be compiled or mapped.)
    """

    def __init__(self, tasks: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tasks, width).uniform_(-0.02, 0.02))

    def forward(self, index: Tensor) -> Tensor:
        """``[B]`` int64 -> ``[B, E]``."""
        row: Tensor = F.embedding(index, self.weight)
        return row + (self.project(row) - row).detach()

    def project(self, rows: Tensor) -> Tensor:
        """``[..., E]`` with longer rows scaled to norm 1; no gradient."""
        rows = rows.detach()
        norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        limited: Tensor = rows * (1.0 / (norm + 1e-7)).clamp(max=1.0)
        return limited


class EmbedsTasks(nn.Module):
    """A world model's part for tasks: ``embed``, and the projection of the embedding's rows."""

    def __init__(self, tasks: int, width: int) -> None:
        super().__init__()
        self.task_dim, self.task_embedding = width, TaskEmbedding(tasks, width)

    def embed(self, index: Tensor) -> Tensor:
        """``[B]`` task ids -> ``[B, E]``."""
        e: Tensor = self.task_embedding(index)
        return e

    def project(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Parameters after an update, with the task embedding's rows scaled to norm at most 1."""
        name = "task_embedding.weight"
        return {**params, name: self.task_embedding.project(params[name])}


def freeze(module: nn.Module) -> None:
    """Stop every parameter from learning; gradients still flow through to the inputs.

    Existing gradients are removed, since an optimiser would still apply them.
    """
    module.requires_grad_(False)
    module.zero_grad(set_to_none=True)
