"""Functions over tensors as compiled kernels that the dispatcher sees.

``torch.compile`` hides its code from autograd, ``vmap`` and recorded updates (``fmbpo.replay``). A
`Kernel` is an operator: it computes on plain tensors, it is recorded like torch's own, and it
writes to memory that it is given. TorchInductor compiles it for each geometry of its arguments,
once per process, and keeps the code in its cache on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from fmbpo.errors import UserError

_LIBRARY: Any = torch.library.Library("fmbpo", "DEF")  # type: ignore[no-untyped-call]
_ON = ContextVar("compiling", default=False)


@contextmanager
def compiling(on: bool = True) -> Iterator[None]:
    """Inside the block, layers use compiled kernels, or not."""
    token = _ON.set(on)
    try:
        yield
    finally:
        _ON.reset(token)


def use_kernels(x: Tensor) -> bool:
    """Whether layers use compiled kernels for tensors on this one's device."""
    traced = torch.compiler.is_compiling()  # as a contract check does
    return not traced and _ON.get() and x.device.type in ("cpu", "cuda")


class Kernel:
    """``function`` of tensors as an operator ``fmbpo::name``.

    ``results``: new tensors for the results, from the arguments. Arguments that are no tensors,
    such as numbers, are constants of the compiled code.
    """

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        schema: str,
        results: Callable[..., tuple[Tensor, ...]],
    ) -> None:
        """``schema``: the arguments, such as ``"Tensor x, float eps"``."""
        self.function, self.results = function, results
        name = function.__name__.lstrip("_")
        count = function.__annotations__["return"].count("Tensor")
        kinds = [f"Tensor({letter}!)" for letter in "abcdefgh"[:count]]
        outs = ", ".join(f"{kind} out{i}" for i, kind in enumerate(kinds))
        _LIBRARY.define(f"{name}({schema}) -> ({', '.join(['Tensor'] * count)})")
        _LIBRARY.define(f"{name}.out({schema}, *, {outs}) -> ({', '.join(kinds)})")
        for made, call in ((name, self._made), (f"{name}.out", self._written)):
            _LIBRARY.impl(made, call, "CompositeExplicitAutograd")
        self._operator = getattr(torch.ops.fmbpo, name)
        self._code: dict[object, Callable[..., object]] = {}

    def __call__(self, *args: Any) -> tuple[Tensor, ...]:
        """New tensors."""
        found = self._operator(*args)
        return found if isinstance(found, tuple) else (found,)

    def _made(self, *args: Any) -> Tensor | tuple[Tensor, ...]:
        outs = {f"out{i}": x for i, x in enumerate(self.results(*args))}
        return self._written(*args, **outs)

    def _written(self, *args: Any, **outs: Tensor) -> Tensor | tuple[Tensor, ...]:
        results = tuple(outs.values())
        tensors = [x for x in (*args, *results) if isinstance(x, Tensor)]
        constants = [None if isinstance(x, Tensor) else x for x in args]
        threads = torch.get_num_threads() if tensors[0].device.type == "cpu" else 0
        key = (threads, *constants, *((x.device, x.dtype, x.shape, x.stride()) for x in tensors))
        code = self._code.get(key)
        if code is None:
            code = self._code[key] = _compiled(self.function, constants, tensors, threads)
        code(*tensors)
        return results if len(results) > 1 else results[0]


def _compiled(
    function: Callable[..., tuple[Tensor, ...]],
    constants: Sequence[object],
    tensors: Sequence[Tensor],
    threads: int,
) -> Callable[..., object]:
    """Code that writes the function's results to the last of the tensors."""
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx
    from torch.fx.experimental.proxy_tensor import make_fx

    # The threads are part of the code, but only by this setting of the key to Inductor's cache.
    settings = config.patch({"cpp.threads": threads}) if threads else config.patch({})
    with _disable_current_modes(), torch.inference_mode(False), torch.no_grad(), settings:
        examples = [
            torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
            for x in tensors
        ]
        try:
            code: Any = compile_fx(make_fx(_writing(function, constants))(*examples), examples)
        except Exception as error:
            raise UserError(
                f"a kernel cannot be compiled: {str(error).strip().splitlines()[0]}",
                where="system.compile",
                remedy='install a C++ compiler, such as g++ (on a GPU: Triton), or use "off"',
            ) from error
    return cast(Callable[..., object], code)


def _writing(
    function: Callable[..., tuple[Tensor, ...]], constants: Sequence[object]
) -> Callable[..., tuple[()]]:
    """Takes the function's tensors and those for its results, and writes these."""

    def write(*given: Tensor) -> tuple[()]:
        left = iter(given)
        args = [next(left) if constant is None else constant for constant in constants]
        for out, found in zip(left, function(*args), strict=True):
            out.copy_(found)
        return ()

    return write
