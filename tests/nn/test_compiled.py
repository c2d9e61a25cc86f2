"""Compiled kernels: operators that equal the functions that they were made from."""

import os
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap

from fmbpo.errors import UserError
from fmbpo.nn import compiled
from fmbpo.nn.blocks import NormedLinear, plain_mlp
from fmbpo.nn.compiled import compiling, use_kernels
from fmbpo.replay import Replayed
from fmbpo.replay.recorder import Recording


@torch.enable_grad()
def gradients(network, params, x):
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    x = x.clone().requires_grad_()
    y = vmap(lambda p, x: functional_call(network, p, (x,)))(leaves, x)
    return y, *torch.autograd.grad(y.square().sum(), [*leaves.values(), x])


def stacked(network, cells=2):
    torch.manual_seed(0)
    return {k: torch.randn(cells, *p.shape) for k, p in network.named_parameters()}


@pytest.mark.skipif(not (os.environ.get("CXX") or shutil.which("g++")), reason="no C++ compiler")
@pytest.mark.parametrize(
    "network",
    [
        pytest.param(NormedLinear(5, 7), id="world model's"),
        pytest.param(plain_mlp(5, [7], 3), id="policy's", marks=pytest.mark.endurance),
    ],
)
def test_the_compilers_code(network):
    """Forward and backward, as it is and in a graph. In the policy's kernels Mish comes first."""
    params, x = stacked(network), torch.randn(2, 4, 5)
    wanted = gradients(network, params, x)
    with compiling():
        found = gradients(network, params, x)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

    def update(params, x):
        with compiling():
            return gradients(network, params, x)

    replayed = Replayed(update, "an update", required=True, say=print)
    for given in (x, x, x + 1):
        pairs = zip(replayed(params, given), update(params, given), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_one_kernel_replaces_a_chain(uncompiled):
    network = plain_mlp(5, [7], 3)
    params, x, counts = stacked(network), torch.randn(2, 4, 5), []
    for on in (False, True):

        def update(*inputs, on=on):
            with compiling(on):
                return gradients(network, dict(zip(params, inputs, strict=False)), inputs[-1])

        recorder = Recording(update, [*params.values(), x]).recorder
        counts.append(len(recorder.kernels))
    assert counts[1] < 0.6 * counts[0]


@pytest.mark.parametrize("half", [False, True])
def test_only_mish_behind_a_norm_is_a_kernel(uncompiled, half):
    network = nn.Sequential(NormedLinear(5, 8), NormedLinear(8, 8, nn.Tanh()))
    params, x = stacked(network), torch.randn(2, 4, 5)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        wanted = gradients(network, params, x)
        with compiling():
            found = gradients(network, params, x)
    assert uncompiled == ["_norm_mish", "_norm_mish_backward"]
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=2e-2 if half else 1e-5, atol=2e-2 if half else 1e-5)


def test_on_meta_and_outside_of_the_block_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(compiled, "_compiled", None)
    x, network = torch.randn(2, 5), NormedLinear(5, 7)
    network(x)
    with compiling():
        assert use_kernels(x)
        assert not use_kernels(x.to("meta"))
        network.to("meta")(x.to("meta"))
    assert not use_kernels(x)


def test_a_machine_without_a_compiler(monkeypatch):
    def lacking(*_):
        raise RuntimeError("No working C++ compiler found in config.cpp.cxx: ('g++',)\nmore")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", lacking)
    with compiling(), pytest.raises(UserError, match=r"No working C\+\+ compiler.*\n.*\"off\""):
        NormedLinear(5, 11)(torch.randn(3, 5))


def test_mish_and_norm_of_the_kernels(uncompiled):
    x = torch.randn(3, 7)
    norm = NormedLinear(7, 7).norm
    plain = F.layer_norm(x, [7])
    torch.testing.assert_close(norm.with_mish(x, mish_first=False), F.mish(plain))
    torch.testing.assert_close(norm.with_mish(x, mish_first=True), F.layer_norm(F.mish(x), [7]))
