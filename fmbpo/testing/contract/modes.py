"""Checks of the ways in which the engine runs a plugin: compiled, stacked, in bfloat16, on GPUs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from fmbpo.base.text import counted, text_of
from fmbpo.replay import Replayed
from fmbpo.testing.accelerator import DEVICE, Accelerator
from fmbpo.testing.contract.subject import (
    Subject,
    close,
    fixed_seed,
    tensors_of,
)
from fmbpo.testing.outcomes import ContractError, expect, expecting

_FEW = 2
"""Steps that Dynamo reads: the first, and one that follows another. It takes as long for each."""


class _Call(nn.Module):
    """``predict``, ``rollout`` and ``loss`` as one ``forward``, for ``functional_call``."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.module = subject.module
        self._component, self._partner = subject.component, subject.partner
        self._of_loss = subject.of_loss

    def forward(self, example: Any) -> tuple[Tensor, ...]:
        inputs, noise, of_loss = example
        hooks, module = self._component, self.module
        predicted = tensors_of(module, hooks.predict(module, *inputs))
        partner = self._partner(inputs)
        rollout = hooks.rollout(module, inputs[0], partner, inputs.task, noise)
        loss, metrics = hooks.loss(module, *self._of_loss(of_loss))
        return *predicted, *rollout[:3], *rollout.extras.values(), loss, *metrics.values()


@torch.no_grad()
def _example(subject: Subject) -> Any:
    return subject.inputs(), subject.noise(), subject.example()


def _near(a: Any, b: Any) -> bool:
    return close(a, b, rtol=1e-3, atol=1e-5)


def _lines_that_read(graph: torch.fx.GraphModule) -> Iterator[str]:
    """Source lines that read a tensor's value into Python, or whose shapes depend on one."""
    for node in graph.graph.nodes:
        value = node.meta.get("example_value")
        sizes = value.shape if isinstance(value, Tensor) else (value,)
        if any(isinstance(size, torch.SymInt | torch.SymFloat | torch.SymBool) for size in sizes):
            lines = str(node.meta.get("stack_trace") or node).splitlines()
            yield next(line.strip() for line in reversed(lines) if line.strip(" ~^"))


@torch.no_grad()
def compiles_as_one_graph(subject: Subject) -> None:
    """The hooks read no tensor's value into Python, as Dynamo finds with ``fullgraph=True``: a GPU
    would be waited for. The compiled hooks equal the eager ones."""
    subject = attrs.evolve(subject, horizon=_FEW)
    call, example = _Call(subject), _example(subject)
    wanted = call(example)  # an error here does not come from compiling
    reading: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Any:
        reading.extend(_lines_that_read(graph))
        return graph.forward

    torch._dynamo.reset()
    remedy = "no .item(), no `if` on a tensor's value, no numpy; fixed shapes"
    try:
        with expecting("the hooks compile as one graph", remedy):
            found = torch.compile(call, fullgraph=True, backend=backend)(example)
    except ContractError as error:
        if "builtin print" not in text_of(error.__cause__ or error):
            raise
        remedy = "remove `print`; a number worth seeing is a metric of `loss`"
        expected = "no hook prints: a recorded hook would print once, and a compiled one fails"
        raise ContractError(expected, remedy, "a hook calls `print`") from error.__cause__
    # Reading a value compiles, but the CPU then waits for the device.
    remedy = "no .item(), no shape that depends on data: use torch.where and fixed shapes"
    expect(not reading, "the hooks read no value of a tensor", remedy, f"`{''.join(reading[:1])}`")
    expect(_near(found, wanted), "compiled equals eager", "look for state kept between calls")


@torch.no_grad()
def runs_as_a_graph(subject: Subject) -> None:
    """The engine records an update once, with its backward pass, and replays it: the hooks draw no
    random numbers, read no tensor's value, and keep nothing from call to call."""
    call, example = _Call(subject), _example(subject)
    params = {name: p.detach() for name, p in call.named_parameters()}
    said: list[str] = []

    def update(params: dict[str, Tensor], example: Any) -> list[Tensor]:
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        with torch.enable_grad():
            found = functional_call(call, leaves, (example,))
            learns = [x.sum() for x in found if x.requires_grad]
            grads = torch.autograd.grad(learns, list(leaves.values()), allow_unused=True)
        return [x.detach() for x in (*found, *grads) if x is not None]

    fast = Replayed(update, "the hooks", required=False, say=said.append)
    remedy = "no random numbers, no .item(), no numpy; no attribute that a hook changes"
    results = [fast(params, example) for _ in range(2)]
    expect(not said, "the hooks run as a graph", remedy, "".join(said))
    equal = all(map(torch.equal, results[1], update(params, example)))
    expect(equal, "a replay of the hooks equals the hooks to the bit", remedy)


@torch.no_grad()
def stacked_equals_a_loop(subject: Subject) -> None:
    """The engine trains many policies or models at once, with their parameters stacked (vmap)."""
    subjects = [attrs.evolve(subject, seed=seed) for seed in (1, 2)]
    table: list[dict[str, Tensor]] = [
        {f"module.{k}": p for k, p in s.module.named_parameters()} for s in subjects
    ]
    stacked = {name: torch.stack([params[name] for params in table]) for name in table[0]}
    call, example = _Call(subjects[0]), _example(subjects[0])
    remedy = "no random numbers, no in-place change of new tensors, no .item(), no shapes from data"
    with expecting("the hooks map over stacked parameters", remedy):
        found = vmap(lambda params: functional_call(call, params, (example,)))(stacked)
    predicted = found[: len(subjects[0].predict(example[0]))]
    remedy = "in every call, read the parameters of the module that the hook is given"
    differ = not any(torch.equal(*both) for both in predicted)
    expect(differ, "different parameters give different predictions", remedy)
    for place, params in enumerate(table):
        equal = _near([x[place] for x in found], functional_call(call, params, (example,)))
        expect(equal, "stacked parameters give the same results as single ones", remedy)


@torch.no_grad()
def modes_are_equal(subject: Subject) -> None:
    """``train()`` and ``eval()`` make no difference: the engine calls neither."""
    call, example = _Call(subject), _example(subject)
    found = []
    for mode in (call.train, call.eval):
        with fixed_seed(0):
            found.append(mode()(example))
    equal = close(*found)
    expect(equal, "train mode equals eval mode", "no dropout, no batch statistics")


@torch.no_grad()
def bfloat16_stays_close(subject: Subject) -> None:
    """Under bfloat16 autocast, predictions are finite and close to those in float32."""
    inputs = subject.inputs()
    wanted = subject.predict(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = subject.predict(inputs)
    for a, b in zip(wanted, found, strict=True):
        off = float((a - b.float()).abs().max())
        near = torch.allclose(a, b.float(), rtol=0.1, atol=0.1 * float(a.abs().max()))
        expected = "predictions in bfloat16 are finite and within a tenth of those in float32"
        remedy = "compute exponentials and small differences in float32"
        expect(near and math.isfinite(off), expected, remedy, f"off by {off:.2g}")


@torch.no_grad()
def evaluations_are_counted_right(subject: Subject) -> None:
    """The module declares its passes through the network, the cost that studies report."""
    inputs, noise, declared = subject.inputs(), subject.noise(), subject.module.evaluations
    remedy = "declare the uses of the most used layer per `predict`: 2 K for K sub-steps of Heun"
    calls: dict[str, tuple[int, Callable[[], object]]] = {
        "predict": (1, lambda: subject.predict(inputs)),
        "rollout": (len(noise), lambda: subject.rollout(inputs, noise)),
    }
    for hook, (steps, call) in calls.items():
        with _Products(subject.module.parameters()) as products:
            call()
        most = max(products.uses.values(), default=0)
        expected = f"module.evaluations = {declared} passes through the network per `{hook}` step"
        found = f"a layer is used {counted(most, 'time')} in {counted(steps, 'step')}"
        expect(most == declared * steps, expected, remedy, found)


class _Products(TorchFunctionMode):
    """Counts the products of each parameter with data, also as a part or a function of it: a
    transpose, a slice, a normalised weight."""

    NAMES = frozenset(
        ("linear", "bilinear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm",
         "baddbmm", "einsum", "conv1d", "conv2d", "conv3d", "gru_cell", "lstm_cell")
    )  # fmt: skip

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.uses: Counter[int] = Counter()
        matrices: list[Tensor] = [x for x in parameters if x.ndim > 1]
        # The tensors stay alive, so that no other gets the id of one.
        self._made_of = {id(x): (x, frozenset([id(x)])) for x in matrices}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = [x for x in tree_leaves((args, kwargs or {})) if isinstance(x, Tensor)]
        known = [self._made_of[id(x)][1] for x in leaves if id(x) in self._made_of]
        own = frozenset[int]().union(*known)
        made = func(*args, **(kwargs or {}))
        if len(known) == len(leaves):
            for x in tree_leaves(made) if own else ():
                if isinstance(x, Tensor):
                    self._made_of[id(x)] = x, own
        elif getattr(func, "__name__", "") in self.NAMES:
            self.uses.update(own)
        return made


@torch.no_grad()
def makes_tensors_where_its_arguments_are(subject: Subject) -> None:
    """On another device, every tensor must be on that device. A constant made on the CPU is not;
    copying one in every call makes the host wait for the device."""
    example = _example(subject)
    remedy = (
        "make constants from an argument (x.new_ones, device=x.device) or as Python numbers; "
        "a tensor in a plain attribute does not move with the module"
    )
    _Call(subject)(example)  # an error here does not come from the device
    with Accelerator() as device:
        call, moved = _Call(subject).to(DEVICE), _moved(example, DEVICE)
        device.clear()
        with expecting("the hooks compute on the device of their arguments and parameters", remedy):
            call(moved)
        copies = device.copies_in + device.copies_out
    remedy = "keep constants as Python numbers, or make them by x.new_full"
    expect(
        not copies,
        "the hooks copy nothing between host and device",
        remedy,
        counted(copies, "tensor"),
    )


def _moved(example: Any, device: str | torch.device) -> Any:
    return tree_map_only(Tensor, lambda t: t.to(device), example)


@torch.no_grad()
def equal_on_the_gpu(subject: Subject) -> None:
    """The hooks give the same results on a GPU, also if captured as a CUDA graph."""
    example = _example(subject)
    wanted = _Call(subject)(example)
    call, moved = _Call(subject).to("cuda"), _moved(example, "cuda")
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        call(moved)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call(moved)
    graph.replay()
    torch.cuda.synchronize()
    equal = close(wanted, [x.cpu() for x in found], 1e-2, 1e-3)
    expect(equal, "the GPU gives the same as the CPU", "make tensors on x's device")
