"""A recorded call on a GPU: a CUDA graph, which the host launches as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fmbpo.replay.copies import copied
from fmbpo.replay.recorder import Recording, Unfit

WARM_UPS = 2
"""Calls before the capture, in which libraries allocate their memory."""


class CudaGraph:
    """As ``Kernels``, on a GPU. The graph has memory of its own, which lives as long as it does."""

    def __init__(self, recording: Recording) -> None:
        self._inputs = recording.inputs
        with torch.cuda.device(self._inputs[0].device):
            self._capture(recording.function)

    def _capture(self, function: Callable[..., Sequence[Tensor]]) -> None:
        here, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function(*self._inputs)
        here.wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as a sampler's, go on copying to the GPU.
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self._outputs = function(*self._inputs)
        except RuntimeError as error:
            torch.cuda.set_stream(here)
            raise Unfit(f"a CUDA graph cannot hold it: {str(error).splitlines()[0]}") from error

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The function's outputs for these inputs, which have the shapes of the recorded ones."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        with torch.cuda.device(self._inputs[0].device):
            self.graph.replay()
        return copied(self._outputs)

    def equal(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
        """Whether two results agree; libraries may choose other kernels in a graph."""
        return all(
            torch.allclose(x.float(), y.float(), rtol=1e-2, atol=1e-4, equal_nan=True)
            for x, y in zip(a, b, strict=True)
        )
