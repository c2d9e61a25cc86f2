"""Checks of the ways in which the engine runs a plugin: compiled, stacked, in other precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from fmbpo.testing.contract.subject import Policy, Subject, WorldModel, broken, world


class _Call(nn.Module):
    """``predict``, ``rollout`` and ``loss`` as one forward, so that parameters can be put in."""

    def __init__(self, subject: Subject, module: nn.Module) -> None:
        super().__init__()
        self.module, self._subject = module, subject

    def forward(self, example: Any) -> tuple[Tensor, ...]:
        subject, module = self._subject, self.module
        if isinstance(subject, WorldModel):
            z, action, task, noise, many, batch, loss_noise = example
            predicted = tuple(subject.component.predict(module, z, action, task, noise))
            rollout = subject.component.rollout(module, z, lambda t, _: action, task, many)
            loss, metrics = subject.component.loss(module, batch, loss_noise)
        else:
            z, task, noise, many, imagined = example
            predicted = (subject.component.predict(module, z, task, noise),)
            rollout = subject.component.rollout(module, z, world, task, many)
            loss, metrics = subject.component.loss(module, imagined)
        return *predicted, *rollout, loss, *metrics.values()


def _example(subject: Subject, module: Any) -> Any:
    inputs = subject.inputs(module)
    if isinstance(subject, WorldModel):
        many = subject.noise(module, 0)
        return *inputs, many, subject.batch(module), subject.loss_noise(module)
    assert isinstance(subject, Policy)
    with torch.no_grad():
        imagined = subject.imagined(subject.rollout(module), inputs.task.mask_BA)
    return inputs.z, inputs.task, inputs.noise, subject.noise(module, 0), imagined


def _close(a: Any, b: Any, rtol: float = 1e-3, atol: float = 1e-5) -> bool:
    return all(
        torch.allclose(x, y, rtol=rtol, atol=atol)
        for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True)
    )


def _lines_that_read(graph: torch.fx.GraphModule) -> Iterator[str]:
    """Lines of source that read a tensor's value into Python, or whose shapes depend on it."""
    for node in graph.graph.nodes:
        value = node.meta.get("example_value")
        sizes = value.shape if isinstance(value, Tensor) else (value,)
        if any(isinstance(size, torch.SymInt | torch.SymFloat | torch.SymBool) for size in sizes):
            lines = str(node.meta.get("stack_trace") or node).splitlines()
            yield next(line.strip() for line in reversed(lines) if line.strip(" ~^"))


def compiles_as_one_graph(subject: Subject) -> None:
    """The engine compiles whole updates with ``fullgraph=True``: no ``.item()``, no Python
    branch on data; and the compiled hooks equal the eager ones."""
    module = subject.module()
    call, example = _Call(subject, module), _example(subject, module)
    with torch.no_grad():
        wanted = call(example)  # what is wrong without compiling is no matter of compiling
    reading: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        reading.extend(_lines_that_read(graph))
        return graph.forward

    torch._dynamo.reset()
    try:
        with torch.no_grad():
            found = torch.compile(call, fullgraph=True, backend=backend)(example)
    except Exception as error:
        broken(
            "the hooks compile as one graph",
            f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
            "no .item(), no `if` on a tensor's value, no numpy; fixed shapes",
        )
    if reading:  # which compiles, and has the device wait
        broken(
            "the hooks read no value of a tensor",
            f"`{reading[0]}`",
            "no .item() and no shape that depends on data: torch.where, fixed shapes",
        )
    with torch.no_grad():
        if not _close(found, wanted):
            broken("compiled equals eager", "it does not", "look for state kept between calls")


def stacked_equals_a_loop(subject: Subject) -> None:
    """Many policies or models train in one program, their parameters stacked (vmap)."""
    modules = [subject.module(seed) for seed in (1, 2)]
    inputs = subject.inputs(modules[0])
    call, example = _Call(subject, modules[0]), _example(subject, modules[0])
    names = [name for name, _ in modules[0].named_parameters()]
    table = [dict(m.named_parameters()) for m in modules]
    stacked = {
        f"module.{name}": torch.stack([params[name].detach() for params in table]) for name in names
    }
    try:
        with torch.no_grad():
            found = vmap(lambda params: functional_call(call, params, (example,)))(stacked)
    except Exception as error:
        broken(
            "the hooks map over stacked parameters",
            f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
            "no in-place change of new tensors, no .item(), no data-dependent shapes",
        )
    if any(torch.equal(*x) for x in found[: len(subject.predict(modules[0], inputs))]):
        broken(
            "other parameters give other predictions",
            "the same ones",
            "use the module that the hook is given, not one kept elsewhere",
        )
    for place, params in enumerate(table):
        own = {f"module.{name}": params[name].detach() for name in names}
        with torch.no_grad():
            alone = functional_call(call, own, (example,))
        if not _close([x[place] for x in found], list(alone)):
            broken(
                "stacked parameters give what each gives alone",
                "another result",
                "use the parameters of the module that the hook is given, in every call anew",
            )


def modes_are_equal(subject: Subject) -> None:
    """``train()`` and ``eval()`` are the same: the engine calls neither."""
    module = subject.module()
    example = _example(subject, module)
    call = _Call(subject, module)
    with torch.no_grad():
        a = call.train()(example)
        b = call.eval()(example)
    if not _close(a, b, 0, 0):
        broken("train mode equals eval mode", "it does not", "no dropout, no batch statistics")


def bfloat16_stays_close(subject: Subject) -> None:
    """Under autocast in bfloat16 predictions stay finite and near those in float32."""
    module = subject.module()
    inputs = subject.inputs(module)
    with torch.no_grad():
        wanted = subject.predict(module, inputs)
        with torch.autocast("cpu", torch.bfloat16):
            found = subject.predict(module, inputs)
    for a, b in zip(wanted, found, strict=True):
        if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
            broken("predictions are finite", "some are not", "see the check `stays_finite`")
        if not torch.allclose(a, b.float(), rtol=0.1, atol=0.1 * float(a.abs().max())):
            broken(
                "predictions in bfloat16 within a tenth of those in float32",
                f"off by {float((a - b.float()).abs().max()):.2g}",
                "compute exponentials and small differences in float32",
            )


def evaluations_are_counted_right(subject: Subject) -> None:
    """The declared number of network passes is the cost that studies report."""
    module = subject.module()
    inputs = subject.inputs(module)
    with torch.no_grad(), _Products() as products:
        subject.predict(module, inputs)
    most = max(products.uses.values(), default=0)
    if most != module.evaluations:
        broken(
            f"module.evaluations = {module.evaluations} passes through the network a step",
            f"a layer is used {most} times",
            "declare what `predict` does: for Heun with K sub-steps 2 K; a layer that one pass "
            "uses twice counts twice",
        )


class _Products(TorchFunctionMode):
    """Counts the matrix products that each parameter takes part in."""

    NAMES = frozenset(
        ("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "einsum")
    )

    def __init__(self) -> None:
        super().__init__()
        self.uses: Counter[int] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self.NAMES:
            leaves = tree_leaves((args, kwargs or {}))
            matrices = {id(x) for x in leaves if isinstance(x, nn.Parameter) and x.ndim > 1}
            self.uses.update(matrices)
        return func(*args, **(kwargs or {}))


def makes_tensors_where_its_arguments_are(subject: Subject) -> None:
    """On another device every tensor must be there: a constant made on the CPU is not."""
    module = subject.module()
    device = torch.device("meta")
    example = tree_map_only(Tensor, lambda t: t.to(device), _example(subject, module))
    call = _Call(subject, module.to(device))
    try:
        with torch.no_grad():
            call(example)
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0]
        broken(
            "the hooks compute on the device of their arguments and parameters",
            f"on another one: {type(error).__name__}: {text[:160]}",
            "make constants from an argument (x.new_ones, device=x.device) or as Python numbers; "
            "a tensor in a plain attribute stays where it was made",
        )


def equal_on_the_gpu(subject: Subject) -> None:
    """The hooks give the same on a GPU, captured as a CUDA graph too."""
    module = subject.module()
    example = _example(subject, module)
    with torch.no_grad():
        wanted = _Call(subject, module)(example)
        device = torch.device("cuda")
        call = _Call(subject, module.to(device))
        moved = tree_map_only(Tensor, lambda t: t.to(device), example)
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            call(moved)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = call(moved)
        graph.replay()
        torch.cuda.synchronize()
    if not _close(wanted, [x.cpu() for x in found], 1e-2, 1e-3):
        broken("the GPU gives what the CPU gives", "another result", "make tensors on x's device")


CHECKS = (
    compiles_as_one_graph,
    stacked_equals_a_loop,
    modes_are_equal,
    bfloat16_stays_close,
    evaluations_are_counted_right,
    makes_tensors_where_its_arguments_are,
)
GPU_CHECKS = (equal_on_the_gpu,)
