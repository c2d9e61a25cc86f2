"""The operations of one call of a function over tensors, as torch's dispatcher sees them.

Autograd and ``vmap`` have done their work there: an update is a list of kernels on plain tensors.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from attrs import define, frozen
from torch import Tensor, UntypedStorage
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fmbpo.replay.copies import copied, geometry, lying, writable

T = TypeVar("T")

_REFUSED = {
    torch.Tag.nondeterministic_seeded: "draws random numbers",
    torch.Tag.data_dependent_output: "reads a tensor's value",
    torch.Tag.dynamic_output_shape: "makes a tensor whose shape depends on values",
}


class Unfit(Exception):
    """A function cannot be replayed; the text names the operation and the reason."""


@define
class Memory:
    """A storage that the operations use. ``given``: the storage itself if it existed before the
    call; None if an operation made it. ``until``: the last operation that uses it."""

    bytes: int
    given: UntypedStorage | None
    until: int = 0
    changed: bool = False
    """Whether an operation changes it in place."""


@frozen
class Place:
    """A tensor as a view of a memory: its number, and the tensor's type and geometry."""

    memory: int
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def geometry(self) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """Offset, size and stride."""
        return self.offset, self.size, self.stride

    def of(self, storage: UntypedStorage, begin: int = 0) -> Tensor:
        """The view of that storage, in which the memory begins at a byte."""
        offset = self.offset + begin // self.dtype.itemsize
        return lying(storage, self.dtype, offset, self.size, self.stride)


@frozen
class Kernel:
    """An operation that computes. Tensors in the arguments are places. ``made``: the new tensors
    (None for results that are not new); empty for an operation that only changes its arguments."""

    operation: OpOverload
    args: Sequence[object]
    kwargs: Mapping[str, object]
    made: Sequence[Place | None]
    takes_tensors: bool


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, operations run and are recorded. Raises ``Unfit`` for one that cannot be replayed.

    Views are not recorded: a tensor is known by its storage and geometry alone.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: list[Kernel] = []
        self.memories: list[Memory] = []
        self._numbers: dict[int, int] = {}
        self.inputs = [self.place(tensor) for tensor in inputs]

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run ``func`` and record it."""
        given = dict(kwargs or {})
        if (reason := _refusal(func)) and not _harmless(func, args, given):
            raise Unfit(f"{func.overloadpacket} {reason}")
        used: set[int] = set()

        def placed(tensor: Tensor) -> Place:
            place = self.place(tensor)
            used.add(place.memory)
            return place

        own_args = mapped(Tensor, placed, args)
        own_kwargs = {name: mapped(Tensor, placed, value) for name, value in given.items()}
        changed = self._written(func, args, given) if func._schema.is_mutable else set()
        for memory in changed:
            if self.memories[memory].given is not None:
                what = f"{func.overloadpacket} changes a tensor that was made before the update"
                raise Unfit(what)
            self.memories[memory].changed = True
        found = func(*args, **given)
        if torch.Tag.inplace_view in func.tags:  # the tensor is another view now
            return found
        outputs = found if isinstance(found, tuple | list) else (found,)
        made = [self._made(x, used) if isinstance(x, Tensor) else None for x in outputs]
        if changed or any(made):
            now = len(self.kernels)
            for memory in used | {place.memory for place in made if place}:
                self.memories[memory].until = now
            made = made if any(made) else []
            self.kernels.append(Kernel(func, own_args, own_kwargs, made, bool(used)))
        return found

    def place(self, tensor: Tensor) -> Place:
        """The tensor's place. A storage that no operation made stays in use as it is."""
        if tensor.layout != torch.strided or tensor.is_conj() or tensor.is_neg():
            raise Unfit(f"a tensor of layout {tensor.layout}, type {tensor.dtype}")
        storage = tensor.untyped_storage()
        number = self._numbers.get(storage._cdata)
        if number is None:
            number = self._new(storage, storage)
        return Place(number, tensor.dtype, *geometry(tensor))

    def _made(self, tensor: Tensor, used: set[int]) -> Place | None:
        """The place of an operation's result; None for a view of an argument."""
        storage = tensor.untyped_storage()
        if self._numbers.get(storage._cdata) in used:
            return None
        self._new(storage, None)
        return self.place(tensor)

    def _new(self, storage: UntypedStorage, given: UntypedStorage | None) -> int:
        key, number = storage._cdata, len(self.memories)
        self._numbers[key] = number
        self.memories.append(Memory(storage.nbytes(), given))
        if given is None:  # once it is freed, another storage may have its address
            weakref.finalize(storage, self._forget, key, number)
        return number

    def _forget(self, key: int, number: int) -> None:
        if self._numbers.get(key) == number:
            del self._numbers[key]

    def _written(
        self, func: OpOverload, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> set[int]:
        names = [argument.name for argument in func._schema.arguments]
        values = {**dict(zip(names, args, strict=False)), **kwargs}
        info = {argument.name: argument.alias_info for argument in func._schema.arguments}
        written = [v for name, v in values.items() if (own := info[name]) and own.is_write]
        return {self.place(x).memory for x in tree_leaves(written) if isinstance(x, Tensor)}


class Recording:
    """One call of a function. ``inputs``: copies of those given, on which it ran. ``outputs``: the
    places of the results; ``result``: copies of them."""

    def __init__(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> None:
        self.function, self.inputs = function, writable(inputs)
        with _NoReading(), Recorder(self.inputs) as self.recorder:
            found = function(*self.inputs)
            self.outputs = [self.recorder.place(tensor) for tensor in found]
        self.result = copied(found)


def mapped(kind: type[T], function: Callable[[T], object], value: object) -> Any:
    """An operation's argument with the function's results for everything of a kind in it."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, list | tuple):
        return [mapped(kind, function, one) for one in value]
    return value


_READING = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__}
"""Reads that the dispatcher does not see."""
_RESIZING = ("resize_", "resize_as_", "set_")


class _NoReading(TorchFunctionMode):
    """Within it, tensors cannot become lists or arrays."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, or raise ``Unfit``."""
        if func in _READING:
            raise Unfit(f"Tensor.{func.__name__} reads a tensor's values")
        return func(*args, **(kwargs or {}))


@cache
def _refusal(func: OpOverload) -> str:
    if func.overloadpacket.__name__ in _RESIZING:
        return "changes the memory of a tensor"
    return next((reason for tag, reason in _REFUSED.items() if tag in func.tags), "")


def _harmless(func: OpOverload, args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
    """Whether an operation does not do what its tag says: an indexing without masks, whose shape
    depends on no value, or attention without dropout, which draws nothing."""
    if func is torch.ops.aten.index.Tensor:
        indices = [leaf for leaf in tree_leaves(args[1:]) if isinstance(leaf, Tensor)]
        return all(index.dtype not in (torch.bool, torch.uint8) for index in indices)
    for place, argument in enumerate(func._schema.arguments):
        if argument.name == "dropout_p":
            given = args[place] if place < len(args) else kwargs.get("dropout_p", 0.0)
            return given == 0.0
    return False
