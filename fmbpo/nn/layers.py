"""torch's Linear and LayerNorm, for weights that ``vmap`` stacks and ``collect`` collects.

torch's own Linear multiplies stacked biases by 1, and its matrix products copy weights that are
stacked twice.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmbpo.nn.collected import Gradients, reached, uses_of
from fmbpo.nn.norm_mish import moments, norm_mish, through_norm
from fmbpo.nn.stacks import apply, beside, mapped, rows, stacked


class Linear(nn.Linear):
    """``x A^T + b``."""

    def forward(self, x: Tensor) -> Tensor:
        """``[..., inputs]`` -> ``[..., outputs]``."""
        if torch.compiler.is_compiling():
            return super().forward(x)
        return apply(_Linear, x, self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """Normalisation over the last dimension, then a learned scale and offset; the result has the
    type of these."""

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` -> ``[..., D]``."""
        if torch.compiler.is_compiling():
            return super().forward(x)
        return apply(_LayerNorm, x, self.weight, self.bias, self.eps)

    def with_mish(self, x: Tensor, *, mish_first: bool) -> Tensor:
        """The same, with Mish before or behind it, in one compiled kernel."""
        return norm_mish(x, self.weight, self.bias, self.eps, mish_first)


class _Linear(torch.autograd.Function):
    """``x[*S, ..., I]``, ``weight[*S, O, I]``, ``bias[*S, O]`` -> ``[*S, ..., O]``, S a stack."""

    rank = 2

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if dtype := _autocast(x.device.type):
            x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
        depth = weight.dim() - 2
        if not depth:
            return F.linear(x, weight, bias)
        each, weights, biases = (
            t.flatten(0, depth - 1) for t in (rows(x, depth), weight, bias.unsqueeze(-2))
        )
        return torch.baddbmm(biases, each, weights.mT).view(*x.shape[:-1], -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])
        ctx.uses = uses_of(*inputs[1:], _linear_gradients)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = (t.to(grad.dtype) for t in ctx.saved_tensors)
        x_rows, grads = (rows(t, weight.dim() - 2) for t in (x, grad))
        grad_x = (grads @ weight).view(x.shape) if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[1:]):
            return grad_x, None, None
        if ctx.uses is None or not reached(ctx.next_functions[1][0]):
            return grad_x, *_linear_gradients(x_rows, grads)
        ctx.uses.add(x_rows, grads)
        return grad_x, None, None

    @staticmethod
    def jvp(ctx: Any, x: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        of_x, of_weight = ctx.saved_tensors
        depth = of_weight.dim() - 2
        parts = [] if x is None else [rows(x, depth) @ of_weight.mT]
        parts += [] if weight is None else [rows(of_x, depth) @ weight.mT]
        parts += [] if bias is None else [bias.unsqueeze(-2)]
        found: Tensor = sum(parts[1:], parts[0])
        shape = *of_x.shape[:-1], of_weight.shape[-2]
        return found.expand(*of_weight.shape[:depth], -1, -1).reshape(shape)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, int]:
        x, at = mapped(info.batch_size, in_dims, x, weight.dim() - 2)
        weight, bias = stacked(info.batch_size, in_dims, weight, bias)
        return _Linear.apply(x, weight, bias), at  # type: ignore[no-untyped-call]


def _autocast(device: str) -> torch.dtype | None:
    """The type in which autocast, if it is on, has matrix products computed."""
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None


def _linear_gradients(x: Tensor, grad: Tensor) -> Gradients:
    return grad.mT @ x, grad.sum(-2)


class _LayerNorm(torch.autograd.Function):
    """``x[*S, ..., D]``, ``weight[*S, D]``, ``bias[*S, D]`` -> y like ``x``, and ``[*S, ..., 1]``:
    means and inverse deviations."""

    rank = 1

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        width, x = [x.shape[-1]], x.to(weight.dtype)
        if weight.dim() == 1:
            return torch.native_layer_norm(x, width, weight, bias, eps)
        y, mean, scale = torch.native_layer_norm(x, width, None, None, eps)
        return torch.addcmul(beside(x, bias), y, beside(x, weight)), mean, scale

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, ...]
    ) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # no zeros for the gradients of means and deviations
        ctx.save_for_backward(*inputs[:2], *output[1:])
        ctx.save_for_forward(*inputs[:2], *output[1:])
        ctx.uses, ctx.eps = uses_of(*inputs[1:3], _norm_gradients), inputs[3]

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        x, weight, mean, scale = (t.to(grad.dtype) for t in ctx.saved_tensors)
        depth, grad_x = weight.dim() - 1, None
        if ctx.needs_input_grad[0]:
            of_y, factor = (grad * beside(x, weight), None) if depth else (grad, weight)
            grad_x, *_ = torch.ops.aten.native_layer_norm_backward(
                of_y, x, [x.shape[-1]], mean, scale, factor, None, [True, False, False]
            )
        if not any(ctx.needs_input_grad[1:3]):
            return grad_x, None, None, None
        if torch.is_grad_enabled():  # the result may be differentiated again
            mean, scale = moments(x, ctx.eps)
        use = [rows(t, depth) for t in (x, grad, mean, scale)]
        if ctx.uses is None or not reached(ctx.next_functions[1][0]):
            return grad_x, *_norm_gradients(*use), None
        ctx.uses.add(*use)
        return grad_x, None, None, None

    @staticmethod
    def jvp(
        ctx: Any, x: Tensor | None, weight: Tensor | None, bias: Tensor | None, _: None
    ) -> tuple[Tensor, None, None]:
        of_x, of_weight, mean, scale = ctx.saved_tensors
        normal = (of_x - mean) * scale
        found = torch.zeros_like(normal)
        if x is not None:
            found = through_norm(x, normal, scale) * beside(of_x, of_weight)
        if weight is not None:
            found = found + normal * beside(of_x, weight)
        return found if bias is None else found + beside(of_x, bias), None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, bias: Tensor,
        eps: float,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:  # fmt: skip
        x, at = mapped(info.batch_size, in_dims, x, weight.dim() - 1)
        weight, bias = stacked(info.batch_size, in_dims, weight, bias)
        return _LayerNorm.apply(x, weight, bias, eps), (at,) * 3  # type: ignore[no-untyped-call]


def _norm_gradients(x: Tensor, grad: Tensor, mean: Tensor, scale: Tensor) -> Gradients:
    return (((x - mean) * scale) * grad).sum(-2), grad.sum(-2)
