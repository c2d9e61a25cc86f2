"""Mish on CPUs: torch's values and derivatives, by another formula."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, jacrev, jvp, vmap

from fmbpo.nn.mish import Mish, _Mish

mish = Mish()


@pytest.mark.parametrize(("low", "high"), [(-80, -20), (-20, -5), (-5, 0), (0, 5), (5, 80)])
def test_it_is_as_precise_as_torchs(low, high):
    x = torch.linspace(low, high, 10_001)
    exact = F.mish(x.double())
    assert ((mish(x) - exact).abs() <= 3e-7 * exact.abs() + 1e-30).all()


def test_its_gradient_is_as_precise():
    x = torch.linspace(-30, 30, 10_001)
    (exact,) = torch.autograd.grad(F.mish(wide := x.double().requires_grad_()).sum(), wide)
    (found,) = torch.autograd.grad(mish(leaf := x.requires_grad_()).sum(), leaf)
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=2e-6)


def test_what_is_not_finite_stays_so():
    x = torch.tensor([float("inf"), float("nan"), 1e30, -1e30, 0.0])
    torch.testing.assert_close(mish(x), F.mish(x), equal_nan=True)
    leaf = torch.tensor([1e3, 1e7, 1e30, -1e3, -1e7]).requires_grad_()
    assert torch.autograd.grad(mish(leaf).sum(), leaf)[0].tolist() == [1, 1, 1, 0, 0]


def test_first_and_second_derivatives():
    x = torch.randn(5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(mish, x)
    assert torch.autograd.gradgradcheck(mish, x)


def test_under_vmap_and_function_transforms():
    x = torch.randn(3, 5, dtype=torch.double)
    (wanted,) = torch.autograd.grad(F.mish(leaf := x.clone().requires_grad_()).sum(), leaf)
    torch.testing.assert_close(vmap(mish)(x), F.mish(x))
    torch.testing.assert_close(vmap(mish, in_dims=1, out_dims=1)(x), F.mish(x))
    torch.testing.assert_close(vmap(grad(lambda v: mish(v).sum()))(x), wanted)
    found = vmap(lambda v: jvp(mish, (v,), (torch.ones_like(v),)))(x)
    torch.testing.assert_close(found, (F.mish(x), wanted))
    slow = lambda v: (v * F.softplus(v).tanh()).sum()  # noqa: E731
    for row in x:
        fast, exact = (jacrev(jacrev(f))(row) for f in (lambda v: mish(v).sum(), slow))
        torch.testing.assert_close(fast, exact)


def test_other_types_and_the_compiler_use_torchs(monkeypatch):
    monkeypatch.setattr(_Mish, "apply", None)
    x = torch.randn(4, dtype=torch.bfloat16)
    assert torch.equal(mish(x), F.mish(x))
    whole = torch.compile(mish, fullgraph=True, backend="eager")
    assert torch.equal(whole(x.float()), F.mish(x.float()))
