"""Checks of the measures of flows: curvature and growth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map_only

from fmbpo.protocols import Curved, Grows
from fmbpo.testing.contract.subject import (
    PolicySubject,
    WorldModelSubject,
    close,
    generator,
    near,
)
from fmbpo.testing.outcomes import expect, expecting


@torch.no_grad()
def curvature_is_a_mean_over_rows(subject: WorldModelSubject) -> None:
    """The report shows a flow's curvature: one number, not negative, whatever the batch size."""
    module = subject.module
    if not isinstance(module, Curved):
        return
    inputs = subject.inputs()
    both = tree_map_only(Tensor, lambda x: torch.cat([x, x]), inputs)
    found = [module.curvature(*some) for some in (inputs, both)]
    _is_a_measure("`curvature`", *found)


@torch.no_grad()
def growth_is_a_mean_over_rows(subject: PolicySubject) -> None:
    """The diagnostics record a gradient's growth: one positive number, whatever the batch size and
    the length of the vector; they map it over stacked parameters."""
    module: Any = subject.module
    if not isinstance(module, Grows):
        return
    inputs = subject.inputs()
    vector = torch.randn(inputs.task.mask_BA.shape, generator=generator(7)).to(inputs.noise)
    doubled = tree_map_only(Tensor, lambda x: torch.cat([x, x]), (*inputs, vector))
    longer = module.growth(*inputs, 10 * vector)
    found = [module.growth(*inputs, vector), module.growth(*doubled)]
    _is_a_measure("`growth`", *found)
    remedy = "divide by the norm of the vector"
    positive = bool(found[0] > 0)
    expect(positive, "`growth` is positive", "take a norm of the gradient", f"{found[0]}")
    expected = "`growth` does not depend on the vector's length"
    expect(near(found[0], longer), expected, remedy, f"{found[0]} and {longer}")
    params = {f"module.{k}": torch.stack([p, p]) for k, p in subject.module.named_parameters()}
    call = _Growth(module)
    with expecting("`growth` maps over stacked parameters", "no .item(), no branch on data"):
        stacked = vmap(lambda own: functional_call(call, own, (*inputs, vector)))(params)
    equal = near(stacked, torch.stack([found[0]] * 2))
    remedy = "read the parameters of the module that it is called on"
    expect(equal, "stacked parameters give the same `growth` as single ones", remedy)


class _Growth(nn.Module):
    """``growth`` as ``forward``, for ``functional_call``."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Any) -> Any:
        return self.module.growth(*arguments)


def _is_a_measure(name: str, one: Tensor, doubled: Tensor) -> None:
    """A finite 0-d number of at least 0, the same for each row twice."""
    single, found = f"{name}'s result has shape []", f"{list(one.shape)}"
    expect(one.dim() == 0, single, "see fmbpo/protocols.py", found)
    right = bool(torch.isfinite(one)) and float(one) >= 0
    remedy = "average squares over rows, and keep divisors away from 0"
    expect(right, f"{name} is finite and not negative", remedy, f"{one}")
    equal = close(one, doubled, rtol=1e-4, atol=1e-6)
    expected = f"{name} of each row twice is that of each row once"
    expect(equal, expected, "take the mean over rows, not the sum", f"{one} and {doubled}")
