"""Gradients, clipping and Adam as pure functions over tensors.

A whole update can thus be recorded, and mapped over stacked parameters. The arithmetic is that of
``torch.optim.Adam`` (arXiv 1412.6980) and ``torch.nn.utils.clip_grad_norm_``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map_only

from fmbpo.hookspecs import Metrics, Module
from fmbpo.nn.collected import collect
from fmbpo.protocols import Projects

Params: TypeAlias = dict[str, Tensor]
A = TypeVar("A")

EPS = 1e-8
_FUSED = "cpu", "cuda"


def gradient(
    loss: Callable[..., tuple[Tensor, A]],
    params: Params,
    *args: object,
    stacked: bool = False,
    buffers: Collection[str] = (),
) -> tuple[Params, A]:
    """Gradient of ``loss(params, *args) -> (loss, auxiliary)`` and the auxiliary output, detached.

    ``buffers``: the names of those that do not learn; their gradient is 0.

    ``stacked``: every argument has a leading dimension of cells, over which ``loss`` is mapped.
    Cells are independent, so the gradient of the sum is the stack of the cells' gradients.

    ``torch.func.grad`` would keep its result differentiable, for which PyTorch replaces fused
    backward kernels with chains of elementwise ones (a fifth of the CPU time of a policy update).
    """
    still = {name: params[name].detach() for name in buffers}
    leaves = {k: p.detach().requires_grad_() for k, p in params.items() if k not in still}
    with torch.enable_grad():
        aliases = dict(zip(leaves, collect(leaves.values()), strict=True))
        value, auxiliary = (vmap(loss) if stacked else loss)({**aliases, **still}, *args)
        grads = torch.autograd.grad(value.sum(), list(leaves.values()))
    detached: A = tree_map_only(Tensor, Tensor.detach, auxiliary)
    none = {name: torch.zeros_like(x) for name, x in still.items()}
    return {**dict(zip(leaves, grads, strict=True)), **none}, detached


def buffers_of(module: Module) -> tuple[str, ...]:
    """The names of a module's buffers. Updates hold them among its parameters: Adam leaves them as
    they are, since their gradient is 0."""
    return tuple(name for name, _ in module.named_buffers())


def split(metrics: Metrics, buffers: Collection[str]) -> tuple[Params, Metrics]:
    """The new values of buffers that a loss returns among its metrics, and the other metrics."""
    new = {name: value for name, value in metrics.items() if name in buffers}
    return new, {name: value for name, value in metrics.items() if name not in buffers}


def flatten(params: Params, lead: int = 0) -> Tensor:
    """All entries as one vector ``[..., P]``, in the order of the names; the first ``lead``
    dimensions, which all parameters share, stay.

    Clipping and Adam work on such vectors: a handful of operations instead of a dozen for each
    parameter.
    """
    parts = [params[name] for name in sorted(params)]
    return torch.cat([p.reshape(*p.shape[:lead], -1) for p in parts], -1)


def unflatten(flat: Tensor, like: Params) -> Params:
    """The inverse of ``flatten``: views of ``flat`` with the names and shapes of ``like``."""
    names, lead = sorted(like), flat.dim() - 1
    parts = torch.split(flat, [like[name].shape[lead:].numel() for name in names], -1)
    views = {name: x.view(like[name].shape) for name, x in zip(names, parts, strict=True)}
    return {name: views[name] for name in like}


def in_one_vector(params: Params, lead: int = 0) -> Params:
    """The parameters as views of one vector, as they lie after an update: the last bits of a matrix
    product depend on strides and alignment, and a checkpoint keeps neither."""
    return unflatten(flatten(params, lead), params)


def projected(
    views: Params,
    project: Callable[[Params], Params],
    others: Params | None = None,
    buffers: Params | None = None,
) -> Params:
    """``project`` of ``others`` and of the views of one new vector, written to that vector; also
    the new values of ``buffers``."""
    found = project({**(others or {}), **views, **(buffers or {})})
    for name, view in views.items():
        if found[name] is not view:
            view.copy_(found[name])
    return {**found, **views}


class AdamState(NamedTuple):
    """First and second moments ``[..., P]``, and the numbers of steps taken ``[...]`` (float)."""

    first: Tensor
    second: Tensor
    steps: Tensor

    def clone(self) -> AdamState:
        """The same state in tensors of its own."""
        return AdamState(*(x.clone() for x in self))


def adam_init(params: Tensor) -> AdamState:
    """Zero moments for vectors of parameters ``[..., P]``, no steps."""
    zeros = torch.zeros_like(params)
    return AdamState(zeros, zeros.clone(), params.new_zeros(params.shape[:-1]))


def adam_step_(
    params: Tensor,
    grads: Tensor,
    state: AdamState,
    learning_rate: Tensor,
    betas: Sequence[float],
    scales: Sequence[tuple[int, float]] = (),
) -> None:
    """One Adam step of vectors ``[..., P]`` in place; the learning rate is 0-d.

    ``scales``: pairs ``(entries, factor)`` that cut P into parts, each of which learns at its
    factor times the rate.

    On CPUs and GPUs, torch's fused kernel makes the step in one pass. The formulas below take ten
    passes; they are for tensors without values (``meta``).
    """
    parts = scales or [(params.shape[-1], 1.0)]
    state.steps.add_(1)
    if params.device.type in _FUSED:
        _fused_step(params, grads, state, learning_rate, betas, parts)
        return
    beta1, beta2 = betas
    correction1, correction2 = 1 - beta1**state.steps, (1 - beta2**state.steps).sqrt()
    rate = torch.cat([(learning_rate * factor).expand(entries) for entries, factor in parts])
    state.first.lerp_(grads, 1 - beta1)
    state.second.mul_(beta2).addcmul_(grads, grads, value=1 - beta2)
    denominator = state.second.sqrt() / correction2.unsqueeze(-1) + EPS
    params.sub_(rate / correction1.unsqueeze(-1) * state.first / denominator)


def _fused_step(
    params: Tensor,
    grads: Tensor,
    state: AdamState,
    learning_rate: Tensor,
    betas: Sequence[float],
    parts: Sequence[tuple[int, float]],
) -> None:
    """The kernel takes dense tensors and one rate: each part of each vector is a tensor."""
    rows = [x.view(-1, x.shape[-1]) for x in (params, grads, state.first, state.second)]
    steps = list(state.steps.reshape(-1))
    begin = 0
    for entries, factor in parts:
        p, g, m, v = (list(x[:, begin : begin + entries]) for x in rows)
        torch._fused_adam_(
            p, g, m, v, [], steps, lr=learning_rate * factor, beta1=betas[0], beta2=betas[1],
            weight_decay=0.0, eps=EPS, amsgrad=False, maximize=False,
        )  # fmt: skip
        begin += entries


def clip(grads: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Scale each vector of ``[..., P]`` to an L2 norm of at most ``limit``; also returns the
    original norms ``[...]``."""
    norm = torch.linalg.vector_norm(grads, dim=-1, keepdim=True)
    return grads * (limit / (norm + 1e-6)).clamp(max=1.0), norm.squeeze(-1)


def projection(module: object) -> Callable[[Params], Params]:
    """The module's ``project``, or the identity."""
    return module.project if isinstance(module, Projects) else lambda params: params


def linear_decay(start: float, end: float, fraction: float) -> float:
    """PWM's schedule: from ``start`` at fraction 0 to ``end`` at 1."""
    return start + (end - start) * fraction
