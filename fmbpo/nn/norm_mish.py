"""Layer normalisation and Mish as one compiled kernel for each direction.

``mish_first``: Mish comes before the normalisation, as in actors and critics, or behind it, as in
world models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fmbpo.nn.collected import Gradients, reached, uses_of
from fmbpo.nn.compiled import Kernel
from fmbpo.nn.mish import factors, slope
from fmbpo.nn.stacks import apply, mapped, stacked


def norm_mish(x: Tensor, weight: Tensor, bias: Tensor, eps: float, mish_first: bool) -> Tensor:
    """``x[..., D]``, ``weight[D]``, ``bias[D]`` -> ``[..., D]``, in the type of the weight."""
    return apply(_NormMish, x, weight, bias, eps, mish_first)


def moments(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Means and inverse deviations ``[..., 1]`` of ``x[..., D]``."""
    variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    return mean, (variance + eps).rsqrt()


def through_norm(along: Tensor, normal: Tensor, scale: Tensor) -> Tensor:
    """The Jacobian of the normalisation times ``along[..., D]``, a gradient or a tangent: it is
    symmetric."""
    moved = along - along.mean(-1, keepdim=True)
    return (moved - normal * (along * normal).mean(-1, keepdim=True)) * scale


def _norm_mish(
    x: Tensor, w: Tensor, b: Tensor, eps: float, mish_first: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """``x[S, R, D]``, ``w[S, 1, D]``, ``b[S, 1, D]`` -> y like x, means and inverse deviations
    ``[S, R, 1]``."""
    x = x.to(w.dtype)
    x = _mish(x) if mish_first else x
    mean, scale = moments(x, eps)
    y = (x - mean) * scale * w + b
    return (y if mish_first else _mish(y)), mean, scale


def _norm_mish_backward(
    grad: Tensor, x: Tensor, w: Tensor, b: Tensor, mean: Tensor, scale: Tensor, mish_first: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, w and b."""
    wide = x.to(w.dtype)
    normal = ((_mish(wide) if mish_first else wide) - mean) * scale
    grad = grad if mish_first else grad * _slope(normal * w + b)
    found = through_norm(grad * w, normal, scale)
    found = found * _slope(wide) if mish_first else found
    return found.to(x.dtype), (grad * normal).sum(1, keepdim=True), grad.sum(1, keepdim=True)


def _mish(x: Tensor) -> Tensor:
    return x * factors(x)[1]


def _slope(x: Tensor) -> Tensor:
    return slope(x, *factors(x))


_FORWARD = Kernel(
    _norm_mish,
    "Tensor x, Tensor w, Tensor b, float eps, bool mish_first",
    lambda x, w, *_: tuple(w.new_empty(*x.shape[:2], n) for n in (x.shape[2], 1, 1)),
)


def _norm_mish_backward_x(
    grad: Tensor, x: Tensor, w: Tensor, b: Tensor, mean: Tensor, scale: Tensor, mish_first: bool
) -> tuple[Tensor]:
    """The gradient of x alone."""
    return _norm_mish_backward(grad, x, w, b, mean, scale, mish_first)[:1]


_GIVEN = "Tensor grad, Tensor x, Tensor w, Tensor b, Tensor mean, Tensor scale, bool mish_first"
_BACKWARD = Kernel(
    _norm_mish_backward, _GIVEN, lambda _, *like: tuple(map(torch.empty_like, like[:3]))
)
_BACKWARD_OF_X = Kernel(_norm_mish_backward_x, _GIVEN, lambda _, x, *__: (torch.empty_like(x),))


class _NormMish(torch.autograd.Function):
    """``x[*S, ..., D]``, ``weight[*S, D]``, ``bias[*S, D]`` -> y like ``x``, and ``[S, rows, 1]``:
    means and inverse deviations."""

    rank = 1

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, eps: float, mish_first: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, scale = _FORWARD(*_in_rows(x, weight, bias), eps, mish_first)
        return y.view(x.shape), mean, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, ctx.eps, ctx.mish_first = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # no zeros for the gradients of the moments
        ctx.save_for_backward(x, weight, bias, *output[1:])
        ctx.save_for_forward(x, weight, bias)
        ctx.uses = uses_of(weight, bias, _summed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None, None
        x, weight, bias, mean, scale = ctx.saved_tensors
        given = _in_rows(x, weight, bias)
        of_rows = grad.reshape(given[0].shape)
        learns = any(ctx.needs_input_grad[1:3])
        backward: Callable[..., tuple[Tensor, ...]] = _BACKWARD if learns else _BACKWARD_OF_X
        if torch.is_grad_enabled():  # the result may be differentiated again
            mean, scale = _norm_mish(*given, ctx.eps, ctx.mish_first)[1:]
            backward = _norm_mish_backward
        found = backward(of_rows, *given, mean, scale, ctx.mish_first)
        grad_x = found[0].view(x.shape)
        if not learns:
            return grad_x, None, None, None, None
        sums = [t.reshape(*weight.shape[:-1], 1, -1) for t in found[1:]]
        if ctx.uses is None or not reached(ctx.next_functions[1][0]):
            return grad_x, *_summed(*sums), None, None
        ctx.uses.add(*sums)
        return grad_x, None, None, None, None

    @staticmethod
    def jvp(
        ctx: Any, x: Tensor | None, weight: Tensor | None, bias: Tensor | None, *_: None
    ) -> tuple[Tensor, None, None]:
        at, moves = ctx.saved_tensors, (x, weight, bias)
        along = [torch.zeros_like(a) if m is None else m for a, m in zip(at, moves, strict=True)]
        found = _tangent(*_in_rows(*at), *_in_rows(*along), ctx.eps, ctx.mish_first)
        return found.view(at[0].shape), None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, bias: Tensor,
        eps: float, mish_first: bool,
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:  # fmt: skip
        x, at = mapped(info.batch_size, in_dims, x, weight.dim() - 1)
        weight, bias = stacked(info.batch_size, in_dims, weight, bias)
        found = _NormMish.apply(x, weight, bias, eps, mish_first)  # type: ignore[no-untyped-call]
        return found, (at, None, None)


def _summed(of_weight: Tensor, of_bias: Tensor) -> Gradients:
    return of_weight.sum(-2), of_bias.sum(-2)


def _tangent(
    x: Tensor, w: Tensor, b: Tensor, dx: Tensor, dw: Tensor, db: Tensor, eps: float, first: bool
) -> Tensor:
    """That of ``_norm_mish``'s y along dx, dw and db."""
    _, mean, scale = _norm_mish(x, w, b, eps, first)
    moved = dx * _slope(x) if first else dx
    normal = ((_mish(x) if first else x) - mean) * scale
    found = through_norm(moved, normal, scale) * w + normal * dw + db
    return found if first else found * _slope(normal * w + b)


def _in_rows(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``[S, rows, D]``, ``[S, 1, D]`` twice, with the stack as one dimension."""
    count, width = weight.shape[:-1].numel(), x.shape[-1]
    each = x.reshape(count, -1, width), weight.reshape(count, 1, width)
    return *each, bias.reshape(count, 1, width)
