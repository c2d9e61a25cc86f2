"""A recorded call on the CPU: its kernels in order, in memory that is laid out once.

A replay calls kernels and does nothing else: no autograd, no ``vmap``, no views, and
hardly an allocation but for the outputs. The results are those of the function itself, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, UntypedStorage

from fmbpo.replay.arena import ALIGNED
from fmbpo.replay.copies import geometry
from fmbpo.replay.layout import Layout, storage
from fmbpo.replay.recorder import Place, Recording


class Kernels:
    """The operations of a recorded call, for tensors of the same shapes.

    Neither inputs nor outputs are copied: each call points the kernels to the memory of the inputs,
    if it is laid out as in the recorded call, and to new memory for the outputs.
    """

    def __init__(self, recording: Recording) -> None:
        recorder, self._outputs = recording.recorder, recording.outputs
        self._inputs: dict[int, list[tuple[int, Place]]] = {}
        """By memory: the numbers of the inputs in it, and their places."""
        for number, place in enumerate(recorder.inputs):
            self._inputs.setdefault(place.memory, []).append((number, place))
        ends = dict.fromkeys(place.memory for place in self._outputs)
        with torch.inference_mode():
            layout = Layout(recorder, ends)
        self.calls, self._tensors = layout.calls, layout.tensors
        made = [n for n in ends if recorder.memories[n].given is None]
        self._fresh = [n for n in made if n not in layout.constant]
        self._bytes = {n: recorder.memories[n].bytes for n in (*self._inputs, *self._fresh)}
        self._kept = {n: layout.storages[n] for n in ends if n not in self._bytes}
        """Outputs that no replay writes."""

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The function's outputs for these inputs, which have the shapes of the recorded ones."""
        storages = dict(self._kept)
        with torch.inference_mode():
            for memory, members in self._inputs.items():
                found = _laid_out_alike(inputs, members, self._bytes[memory])
                storages[memory] = found or storage(self._bytes[memory])
                if not found:
                    for number, place in members:
                        place.of(storages[memory]).copy_(inputs[number])
                self._point(memory, storages[memory])
            for memory in self._fresh:
                storages[memory] = storage(self._bytes[memory])
                self._point(memory, storages[memory])
            for call in self.calls:
                call()
        return self._results(storages)

    def equal(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
        """Whether two results are equal to the bit."""
        return all(torch.equal(_bits(x), _bits(y)) for x, y in zip(a, b, strict=True))

    def _point(self, memory: int, to: UntypedStorage) -> None:
        """Let the kernels use ``to`` for a memory."""
        for place, tensor in self._tensors[memory].items():
            tensor.set_(to, *place.geometry)

    def _results(self, storages: dict[int, UntypedStorage]) -> list[Tensor]:
        """The outputs; those in memory that no kernel writes, such as an input's, are copied."""
        for memory in {place.memory for place in self._outputs} - set(self._fresh):
            storages[memory] = storages[memory].clone()  # type: ignore[no-untyped-call]
        return [place.of(storages[place.memory]) for place in self._outputs]


def _laid_out_alike(
    inputs: Sequence[Tensor], members: Sequence[tuple[int, Place]], size: int
) -> UntypedStorage | None:
    """The storage that some inputs share, if they lie in it as they did in the recorded call."""
    shared = inputs[members[0][0]].untyped_storage()
    if shared.nbytes() != size or shared.data_ptr() % ALIGNED:
        return None
    for number, place in members:
        tensor = inputs[number]
        elsewhere = tensor.untyped_storage()._cdata != shared._cdata
        if elsewhere or geometry(tensor) != place.geometry:
            return None
    return shared


def _bits(tensor: Tensor) -> Tensor:
    """In bits, NaN is equal to itself."""
    return tensor.detach().contiguous().flatten().view(torch.uint8)
