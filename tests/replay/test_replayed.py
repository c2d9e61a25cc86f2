"""Functions that are recorded, checked and replayed; and those that are not fit for it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._pytree import tree_leaves

from fmbpo.errors import UserError
from fmbpo.replay import Replayed


def replayed(function, required=False):
    said = []
    return Replayed(function, "it", required=required, say=said.append), said


def test_the_second_call_no_longer_calls_the_function():
    calls = []

    def double(x):
        calls.append(x)
        return 2 * x

    fast, said = replayed(double)
    for n in range(5):
        assert torch.equal(fast(torch.full((3,), float(n))), torch.full((3,), 2.0 * n))
    assert len(calls) == 2
    assert not said


def test_other_shapes_are_recorded_anew():
    fast, said = replayed(lambda x: x.sum(0))
    for rows in (3, 5, 3, 5, 3):
        x = torch.randn(rows, 2)
        assert torch.equal(fast(x), x.sum(0))
    assert len(fast.programs) == 2
    assert not said


def test_trees_keep_their_structure():
    fast, _ = replayed(lambda pair, scale: {"sum": [pair[0] + pair[1]], "scaled": pair[0] * scale})
    pair = torch.ones(2), torch.arange(2.0)
    for _ in range(3):
        found = fast(pair, torch.tensor(3.0))
    assert list(found) == ["sum", "scaled"]
    assert torch.equal(found["sum"][0], torch.tensor([1.0, 2.0]))
    assert torch.equal(found["scaled"], torch.full((2,), 3.0))


KEPT = torch.arange(3.0)


def expanded(rows):
    return torch.arange(float(rows)).unsqueeze(1).expand(rows, 4)


@pytest.mark.parametrize(
    "function",
    {
        "an input": lambda x: (x, x + 1),
        "a view of an input": lambda x: (x[:, :2], x + 1),
        "a constant": lambda x: (torch.ones(3), x + 1),
        "a tensor from before": lambda x: (KEPT, x + KEPT[0]),
        "views of one tensor": lambda x: tuple((x * 2).split([1, 3], 1)),
        "a copy that is changed": lambda x: (x.clone().mul_(2).add_(x), x * 1),
        "a copy of what is not used again": lambda x: ((y := (x + 1).clone()).mul_(2), y.sum()),
        "a copy of what is used again": lambda x: ((y := x + 1).clone().mul_(2), y.sum()),
        "filled in place": lambda x: (torch.zeros_like(x).add_(x), torch.zeros(2)),
        "no value of the input": lambda x: (torch.zeros_like(x) + 1, torch.full_like(x, 2)),
        "NaN": lambda x: (x / 0 * 0, x),
        "several results of one operation": lambda x: (*x.max(1), *torch.sort(x, 1)),
        "a gradient": lambda x: torch.autograd.grad(
            (y := x.detach().requires_grad_()).tanh().square().sum(), [y]
        ),
        "indices": lambda x: (x[torch.tensor([2, 0])], x[:, x.argmax(1)]),
        "turned in place": lambda x: (
            ((y := x.mT @ x).t_() @ y),
            (x + 1).unsqueeze_(0).squeeze_(0),
        ),
        "a vector and a matrix": lambda x: x[0] @ x.mT,
        "attention": lambda x: torch.nn.functional.scaled_dot_product_attention(
            *[x.reshape(1, 1, *x.shape)] * 3
        ),
        "integers": lambda x: ((x > 1).long().cumsum(0), x.argmax(1)),
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("inputs", [expanded, lambda rows: torch.randn(rows, 4)])
def test_equal_to_the_bit(function, inputs):
    function = function[1]

    def call(x):
        with torch.enable_grad():
            return function(x)

    fast, said = replayed(call)
    results = []
    for n in range(4):
        x = inputs(3) + n
        found, wanted = fast(x), function(x)
        for a, b in zip(tree_leaves(found), tree_leaves(wanted), strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))
        results.append((found, [leaf.clone() for leaf in tree_leaves(found)]))
    for found, copies in results:
        for a, b in zip(tree_leaves(found), copies, strict=True):
            assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    assert not said


def remembering():
    calls = [0]

    def function(x):
        calls[0] += 1
        return x * calls[0]

    return function


BUFFER = torch.zeros(3)

UNFIT = {
    "noise": (lambda x: x + torch.randn(3), "aten.randn draws random numbers"),
    "dropout": (lambda x: torch.dropout(x, 0.5, True), "aten.bernoulli_ draws random numbers"),
    "item": (lambda x: x * x.sum().item(), "aten._local_scalar_dense reads a tensor's value"),
    "branch": (lambda x: x if x.sum() > 0 else -x, "_local_scalar_dense reads a tensor's value"),
    "mask": (lambda x: x[x > 0], "aten.index makes a tensor whose shape depends on values"),
    "input": (lambda x: x.add_(1), "aten.add_ changes a tensor that was made before the update"),
    "buffer": (lambda x: BUFFER.mul_(0.9).add_(x) + 0, "aten.mul_ changes a tensor that was made"),
    "number": (lambda x: (x, 3.0), "3.0 among its arguments or results is not a tensor"),
    "memory": (remembering(), "its replay computes other numbers than a second call"),
    "numpy": (lambda x: x + float(x.numpy()[0]), "Tensor.numpy reads a tensor's values"),
    "array": (lambda x: x + float(np.asarray(x)[0]), "reads a tensor's values"),
    "list": (lambda x: x * (1 if x.long().tolist()[0] else 2), "Tensor.tolist reads"),
    "resized": (lambda x: (y := x + 1).resize_(2) * 1 + y.sum(), "aten.resize_ changes the memory"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_an_unfit_function_runs_as_it_is_and_says_why_once(case):
    function, reason = UNFIT[case]
    fast, said = replayed(function)
    for _ in range(4):
        fast(torch.randn(3))
    (line,) = said
    assert line.startswith("it runs step by step, not as a graph: ")
    assert reason in line


@pytest.mark.parametrize("case", UNFIT)
def test_an_unfit_function_is_an_error_if_it_must_be_replayed(case):
    function, reason = UNFIT[case]
    fast, _ = replayed(function, required=True)
    with pytest.raises(UserError, match="it cannot run as a graph") as error:
        fast(torch.randn(3))
    assert reason in str(error.value)
    assert error.value.where == "system.graph"


def test_an_unfit_backward_pass_is_seen():
    class Reads(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            return grad * float(grad.sum())

    def function(x):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            return torch.autograd.grad(Reads.apply(leaf).sum(), [leaf])

    fast, said = replayed(function)
    fast(torch.randn(3))
    assert "reads a tensor's value" in said[0]


def test_the_functions_own_error_is_its_own():
    fast, said = replayed(lambda x: x @ torch.ones(7))
    with pytest.raises(RuntimeError, match="size"):
        fast(torch.randn(3))
    assert not said


# -- any program of views, new tensors and changes in place --------------------------------------

STEPS = {
    "add": lambda a, b: a + b,
    "mix": lambda a, b: a * 0.5 - b.mT.mT,
    "product": lambda a, b: a @ b.mT @ a / 9,
    "view": lambda a, b: a.mT.contiguous().mT,
    "rows": lambda a, b: torch.cat([a[1:], b[:1]]),
    "copy": lambda a, b: a.clone(),
    "change": lambda a, b: a.clone().mul_(0.5).add_(b),
    "norm": lambda a, b: torch.nn.functional.layer_norm(a, (4,)) + b.sum(0),
    "softmax": lambda a, b: a.softmax(-1) - b.expand(2, 4, 4)[1],
    "zeros": lambda a, b: torch.zeros_like(a).index_add_(0, torch.tensor([2, 0]), b[:2]),
}
programs = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 30), st.integers(0, 30)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(program=programs, kept=st.sets(st.integers(0, 30), min_size=1, max_size=3))
def test_any_program_is_replayed_to_the_bit(program, kept):
    def function(x, y):
        found = [x, y]
        for name, a, b in program:
            found.append(STEPS[name](found[a % len(found)], found[b % len(found)]))
        return [found[-1], *(found[k % len(found)] for k in sorted(kept))]

    fast, said = replayed(function)
    torch.manual_seed(0)
    earlier = []
    for _ in range(4):
        inputs = torch.randn(4, 4), torch.randn(4, 4)
        found = fast(*inputs)
        assert all(map(torch.equal, found, function(*inputs)))
        earlier.append((found, [x.clone() for x in found]))
    assert all(all(map(torch.equal, *both)) for both in earlier)
    assert not said
