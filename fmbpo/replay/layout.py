"""The kernels of a recorded call on the CPU, with the memory in which they work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial

import attrs
import torch
from torch import Tensor, UntypedStorage
from torch._ops import OpOverload

from fmbpo.replay.arena import Arena
from fmbpo.replay.recorder import Kernel, Place, Recorder, mapped

_SHAPE_ALONE = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
"""Operations that use the shapes of tensors, but no values."""
CONSTANT = 16_384
"""Bytes of the largest constant that is kept; larger ones are written again in every replay."""


class Layout:
    """The kernels, ready to be called in turn, on tensors that are laid out once.

    After its last use, a memory makes room for others. Operations that use no values run here,
    once. A copy of a tensor that is not used again is the tensor itself.
    """

    def __init__(self, recorder: Recorder, outputs: Iterable[int]) -> None:
        self.memories, self.outputs = recorder.memories, set(outputs)
        given = {n: memory.given for n, memory in enumerate(self.memories)}
        self.storages = {n: storage for n, storage in given.items() if storage is not None}
        """Those of memories outside the arena."""
        self.constant: set[int] = set()
        """Memories that no replay writes."""
        self.arena, self.begin = Arena(), dict[int, int]()
        """The arena, and where memories begin in it."""
        kept = self._plan(recorder.kernels)
        whole = storage(self.arena.size)
        self.storages |= dict.fromkeys(self.begin, whole)
        self.tensors: dict[int, dict[Place, Tensor]] = defaultdict(dict)
        """The tensors in each memory, by their places."""
        self.calls: list[Callable[[], object]] = []
        for kernel in kept:
            call = self._call(kernel)
            if self.constant.isdisjoint(place.memory for place in kernel.made if place):
                self.calls.append(call)
            else:
                call()

    def _plan(self, kernels: Sequence[Kernel]) -> list[Kernel]:
        """Give every memory its place; returns the kernels but those that are no longer needed."""
        ends: dict[int, list[int]] = defaultdict(list)
        for number, memory in enumerate(self.memories):
            ends[memory.until].append(number)
        kept = []
        for now, kernel in enumerate(kernels):
            made = {place.memory for place in kernel.made if place}
            if (source := self._moved(kernel, now)) is not None:
                (number,) = made
                self.begin[number] = self.begin[source]
                ends[now].remove(source)
                ends[now] += [number] if self.memories[number].until == now else []
            else:
                kept.append(kernel)
                if _needs_no_value(kernel) and all(self._is_constant(n) for n in made):
                    self.constant |= made
                for number in made:
                    size = self.memories[number].bytes
                    if number in self.outputs or number in self.constant:
                        self.storages[number] = storage(size)
                    else:
                        self.begin[number] = self.arena.take(size)
            for number in set(ends[now]):
                if number in self.begin:
                    self.arena.give(self.begin[number], self.memories[number].bytes)
        return kept

    def _is_constant(self, number: int) -> bool:
        """Whether a memory may keep what one call wrote."""
        memory = self.memories[number]
        return not memory.changed and memory.bytes <= CONSTANT

    def _moved(self, kernel: Kernel, now: int) -> int | None:
        """The memory that a copy takes over, since nothing else uses it any more."""
        if kernel.operation is not torch.ops.aten.clone.default:
            return None
        source, made = kernel.args[0], kernel.made[0]
        assert isinstance(source, Place)
        assert made is not None
        old, new = self.memories[source.memory], self.memories[made.memory]
        ends = old.until == now and source.memory in self.begin
        same = old.bytes == new.bytes and source == attrs.evolve(made, memory=source.memory)
        return source.memory if ends and same and made.memory not in self.outputs else None

    def _call(self, kernel: Kernel) -> Callable[[], object]:
        """The kernel with its tensors; results go to their places."""
        operation = kernel.operation
        args = mapped(Place, self.tensor, kernel.args)
        kwargs = {name: mapped(Place, self.tensor, x) for name, x in kernel.kwargs.items()}
        if not kernel.made:
            return partial(operation, *args, **kwargs)
        made = [self.tensor(place) if place else None for place in kernel.made]
        into = _with_out(operation)
        if into is None or None in kernel.made:
            return partial(_computed, operation, args, kwargs, made)
        operation, names = into
        return partial(operation, *args, **kwargs, **dict(zip(names, made, strict=True)))

    def tensor(self, place: Place) -> Tensor:
        """The tensor at a place: one for all kernels."""
        of_memory = self.tensors[place.memory]
        if place not in of_memory:
            begin = self.begin.get(place.memory, 0)
            of_memory[place] = place.of(self.storages[place.memory], begin)
        return of_memory[place]


def storage(count: int) -> UntypedStorage:
    """New memory on the CPU, as torch aligns it."""
    return torch.empty(count, dtype=torch.uint8).untyped_storage()


def _needs_no_value(kernel: Kernel) -> bool:
    """Whether an operation computes the same in every replay."""
    name = kernel.operation.overloadpacket.__name__
    return bool(kernel.made) and (not kernel.takes_tensors or name in _SHAPE_ALONE)


@cache
def _with_out(operation: OpOverload) -> tuple[OpOverload, list[str]] | None:
    """The variant of an operation that writes its results to given tensors, and their names."""
    wanted = [(a.name, str(a.type)) for a in operation._schema.arguments]
    packet = operation.overloadpacket
    for overload in (getattr(packet, name) for name in packet.overloads()):
        arguments = overload._schema.arguments
        outs = [a.name for a in arguments if a.is_out]
        taken = [(a.name, str(a.type)) for a in arguments if not a.is_out]
        if taken == wanted and len(outs) == len(operation._schema.returns):
            return overload, outs
    return None


def _computed(
    operation: OpOverload,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    made: Sequence[Tensor | None],
) -> None:
    """Call an operation that has no such variant, and copy its results."""
    found = operation(*args, **kwargs)
    results = found if isinstance(found, tuple | list) else [found]
    for own, result in zip(made, results, strict=True):
        if own is not None:
            own.copy_(result)
