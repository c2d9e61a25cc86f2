"""Linear and LayerNorm against torch's, in every way in which the engine and plugins use them."""

import gc
import weakref
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, jvp, vmap

from fmbpo.nn import collected
from fmbpo.nn.collected import collect
from fmbpo.nn.layers import LayerNorm, Linear


class Both(LayerNorm):
    """With Mish, in one kernel."""

    def forward(self, x):
        return self.with_mish(x, mish_first=self.first)


class Chain(nn.LayerNorm):
    def forward(self, x):
        return super().forward(F.mish(x)) if self.first else F.mish(super().forward(x))


def pair(kind, first):
    layer = kind(5)
    layer.first = first
    return layer


OURS = {"linear": Linear(5, 3), "norm": LayerNorm(5), "norm, mish": pair(Both, False),
        "mish, norm": pair(Both, True)}  # fmt: skip
TORCHS = {"linear": nn.Linear(5, 3), "norm": nn.LayerNorm(5), "norm, mish": pair(Chain, False),
          "mish, norm": pair(Chain, True)}  # fmt: skip
kinds = pytest.mark.parametrize("kind", OURS)


@pytest.fixture(autouse=True)
def doubles(uncompiled):
    torch.manual_seed(0)
    for layer in (*OURS.values(), *TORCHS.values()):
        layer.double()


def weights(kind, *stack):
    shapes = {name: p.shape for name, p in OURS[kind].named_parameters()}
    return {name: torch.randn(*stack, *shape).double() for name, shape in shapes.items()}


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


def outcome(layer, weights, x, dims=()):
    """The output and all gradients of its weighted sum; ``dims``: of ``vmap``, outermost first."""
    leaves = {name: p.clone().requires_grad_() for name, p in weights.items()}
    x = x.clone().requires_grad_()

    def call(p, x):
        return functional_call(layer, p, (x,))

    for of_weights, of_x in reversed(dims):
        call = vmap(call, in_dims=(of_weights, of_x))
    y = call(leaves, x)
    factors = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
    return y, torch.autograd.grad((y * factors).sum(), [*leaves.values(), x])


@kinds
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 4, 5)])
def test_as_it_is(kind, shape):
    x = torch.randn(*shape).double()
    given = weights(kind)
    close(outcome(OURS[kind], given, x), outcome(TORCHS[kind], given, x))


@kinds
@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0), (1, 0), (0, 1), (None, 1)])
def test_mapped(kind, dims):
    stack = () if dims[0] is None else (2,)
    given = weights(kind, *stack)
    if dims[0] == 1:
        given = {name: p.movedim(0, 1) for name, p in given.items()}
    x = torch.randn(2, 2, 5).double()
    close(outcome(OURS[kind], given, x, [dims]), outcome(TORCHS[kind], given, x, [dims]))


@kinds
@pytest.mark.parametrize("dims", [*product([(0, 0), (0, None), (None, 0)], repeat=2)])
def test_mapped_twice(kind, dims):
    mapped = [sum(d[i] is not None for d in dims) for i in (0, 1)]
    given, x = weights(kind, *[2] * mapped[0]), torch.randn(*[2] * mapped[1], 4, 5).double()
    close(outcome(OURS[kind], given, x, dims), outcome(TORCHS[kind], given, x, dims))


@kinds
def test_only_the_weight_is_mapped(kind):
    given, x = weights(kind, 2), torch.randn(4, 5).double()
    bias = given["bias"][0]
    found, wanted = (
        vmap(lambda w, of=layer: functional_call(of, {"weight": w, "bias": bias}, (x,)))(
            given["weight"]
        )
        for layer in (OURS[kind], TORCHS[kind])
    )
    close(found, wanted)


@kinds
def test_derivatives_of_other_kinds(kind):
    """Second derivatives, ``torch.func.grad`` within ``vmap``, and forward mode, in which each
    argument may have no tangent."""
    given, x = weights(kind, 2), torch.randn(2, 4, 5).double()

    def slope(layer, p, x):
        return grad(lambda x: functional_call(layer, p, (x,)).square().sum())(x)

    def curvature(layer, p, x):
        return grad(lambda p: slope(layer, p, x).square().sum())(p)

    for of in (slope, curvature):
        found, wanted = (
            vmap(lambda p, x, layer=layer, of=of: of(layer, p, x))(given, x)
            for layer in (OURS[kind], TORCHS[kind])
        )
        close(found, wanted)
    one, names = {k: p[0] for k, p in given.items()}, ("weight", "bias", "x")
    values = {**one, "x": x[0]}
    for chosen in product([False, True], repeat=3):
        moving = [name for name, moves in zip(names, chosen, strict=True) if moves]
        if not moving:
            continue
        tangents = [torch.randn_like(values[name]) for name in moving]

        def call(layer, *moved, moving=moving):
            v = values | dict(zip(moving, moved, strict=True))
            return functional_call(layer, {k: v[k] for k in ("weight", "bias")}, (v["x"],))

        found, wanted = (
            jvp(lambda *m, layer=layer: call(layer, *m), tuple(values[n] for n in moving),
                tuple(tangents))
            for layer in (OURS[kind], TORCHS[kind])
        )  # fmt: skip
        close(found, wanted)
    found, wanted = (
        vmap(lambda p, x, layer=layer: jvp(
            lambda x: functional_call(layer, p, (x,)), (x,), (torch.ones_like(x),)
        ))(given, x)
        for layer in (OURS[kind], TORCHS[kind])
    )  # fmt: skip
    close(found, wanted)


# -- collected -------------------------------------------------------------------------------


def net(linear, norm, both):
    """A recurrent network, whose layers have uses of unlike sizes."""
    last = pair(both, True)
    return nn.Sequential(linear(5, 5), norm(5), nn.Tanh(), linear(5, 5), last).double()


def nets():
    """The same of our layers and of torch's."""
    return net(Linear, LayerNorm, Both), net(nn.Linear, nn.LayerNorm, Chain)


def loss(network, p, x, steps=3):
    z, total = x, 0.0
    for step in range(steps):
        z = functional_call(network, p, (z if step % 2 else z[: len(z) // 2],))
        z = torch.cat([z, z]) if step % 2 == 0 else z
        total = total + z.square().sum()
    functional_call(network, p, (x,))  # a use that the loss does not see
    return total + p["0.weight"].square().sum()  # a use outside of the layers


@pytest.mark.parametrize("limit", [0, 1000, 2**28])
@pytest.mark.parametrize("cells", [0, 2])
def test_gradients_of_many_uses(cells, limit, monkeypatch):
    monkeypatch.setattr(collected, "LIMIT", limit)
    networks = nets()
    stack = (cells,) if cells else ()
    given = {k: torch.randn(*stack, *p.shape).double() for k, p in networks[0].named_parameters()}
    x = torch.randn(*stack, 4, 5).double()

    def gradients(network, through):
        leaves = [p.clone().requires_grad_() for p in given.values()]
        p = dict(zip(given, through(leaves), strict=True))
        call = lambda p, x: loss(network, p, x)  # noqa: E731
        return torch.autograd.grad((vmap(call) if cells else call)(p, x).sum(), leaves)

    close(gradients(networks[0], collect), gradients(networks[1], lambda leaves: leaves))


def test_a_loss_that_differentiates_the_network():
    """Gradients within the loss, for the inputs and for weights, are complete and add no uses."""
    networks, x = nets(), torch.randn(4, 5).double()
    given = {k: torch.randn_like(p) for k, p in networks[0].named_parameters()}

    def gradients(network, through, create):
        leaves = [p.clone().requires_grad_() for p in given.values()]
        p = dict(zip(given, through(leaves), strict=True))
        z = x.clone().requires_grad_()
        energy = functional_call(network, p, (z,)).square().sum()
        (force,) = torch.autograd.grad(energy, z, create_graph=create, retain_graph=True)
        slope = torch.autograd.grad(
            energy, list(p.values()), create_graph=create, retain_graph=True
        )
        total = energy + force.square().sum() + sum(s.square().sum() for s in slope)
        return torch.autograd.grad(total, leaves)

    for create in (False, True):
        found = gradients(networks[0], collect, create)
        close(found, gradients(networks[1], lambda leaves: leaves, create))


def test_uses_become_one_product(monkeypatch):
    """Each layer's gradients are computed once, from all rows."""
    rows = []
    real = collected.Uses.multiply

    def counted(self):
        rows.append(sum(len(use[0]) for use in self._kept))
        real(self)

    monkeypatch.setattr(collected.Uses, "multiply", counted)
    network, _ = nets()
    leaves = [p.detach().requires_grad_() for p in network.parameters()]
    p = dict(zip(dict(network.named_parameters()), collect(leaves), strict=True))
    z = torch.randn(4, 5).double()
    for _ in range(6):
        z = functional_call(network, p, (z,))
    torch.autograd.grad(z.sum(), leaves)
    assert sorted(rows) == [6, 24, 24, 24]  # a kernel sums its rows itself


def test_nothing_outlives_its_gradient():
    """No cycle keeps the memory of an update until the next collection of garbage."""
    leaves = [p.detach().requires_grad_() for p in OURS["linear"].parameters()]
    gc.disable()
    try:
        weight, bias = collect(leaves)
        gone = weakref.ref(weight), weakref.ref(weight.collection)
        y = functional_call(
            OURS["linear"], {"weight": weight, "bias": bias}, (torch.randn(4, 5).double(),)
        )
        torch.autograd.grad(y.sum(), leaves)
        del weight, bias, y
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()
