"""A function over tensors that is recorded in its first call and replayed from then on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from attrs import frozen
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from fmbpo.errors import UserError
from fmbpo.replay.cuda import CudaGraph
from fmbpo.replay.kernels import Kernels
from fmbpo.replay.recorder import Recording, Unfit

P = ParamSpec("P")
R = TypeVar("R")

GRAPHS: dict[str, type[Kernels] | type[CudaGraph]] = {"cpu": Kernels, "cuda": CudaGraph}
"""By the type of a device; on others, functions run as they are."""


@frozen
class _Program:
    """A recorded call. ``spec``: the structure of its result. ``kernels``: their number."""

    replay: Kernels | CudaGraph
    spec: TreeSpec
    kernels: int


class Replayed(Generic[P, R]):
    """A pure function of trees of tensors, replayed.

    The first call with tensors of certain shapes records the function's operations. It also calls
    the function with somewhat larger numbers, for which the replay must compute the same, to the
    bit. A function that does not fit runs as it is; ``say`` gets one line with its name and the
    reason. If ``required``, that is a ``UserError``.
    """

    def __init__(
        self, function: Callable[P, R], name: str, *, required: bool, say: Callable[[str], None]
    ) -> None:
        self.function, self.name, self.required, self.say = function, name, required, say
        self.programs: dict[Hashable, _Program] = {}
        self._unfit = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result."""
        if self._unfit:
            return self.function(*args, **kwargs)
        leaves, spec = tree_flatten((args, kwargs))
        key = (spec, *(_geometry(leaf) for leaf in leaves))
        try:
            program = self.programs.get(key)
            if program is None:
                program, found = self._recorded(leaves, spec)
                self.programs[key] = program
            else:
                found = program.replay(leaves)
        except Unfit as reason:
            self._give_up(str(reason))
            return self.function(*args, **kwargs)
        result: R = tree_unflatten(found, program.spec)
        return result

    def _recorded(self, leaves: Sequence[Any], spec: TreeSpec) -> tuple[_Program, list[Tensor]]:
        """The program, and the first call's result."""
        made: list[TreeSpec] = []

        def flat(*inputs: Tensor) -> list[Tensor]:
            args, kwargs = tree_unflatten(list(inputs), spec)
            outputs, structure = tree_flatten(self.function(*args, **kwargs))
            _check_tensors(outputs)
            made[:] = [structure]
            return outputs

        _check_tensors(leaves)
        with torch.no_grad():
            try:
                recording = Recording(flat, leaves)
            except NotImplementedError as error:  # an operator that takes functions
                raise Unfit(str(error).splitlines()[0]) from error
            others = recording.inputs  # laid out alike, and no longer needed as they are
            for tensor in others:
                if tensor.is_floating_point():
                    tensor.mul_(1.01)
            wanted = flat(*others)
            replay = GRAPHS[leaves[0].device.type](recording)
            for _ in range(2):
                if not replay.equal(replay(others), wanted):
                    raise Unfit("its replay computes other numbers than a second call")
        count = len(recording.recorder.kernels)
        return _Program(replay, made[0], count), recording.result

    def _give_up(self, reason: str) -> None:
        if self.required:
            raise UserError(
                f"{self.name} cannot run as a graph: {reason}",
                where="system.graph",
                remedy='use "auto", with which it runs step by step, or mend the plugin',
            )
        self._unfit = True
        self.programs.clear()
        self.say(f"{self.name} runs step by step, not as a graph: {reason}")


def _geometry(leaf: object) -> Hashable:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.dtype, leaf.device
    return leaf


def _check_tensors(leaves: Sequence[object]) -> None:
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise Unfit(f"{leaf!r} among its arguments or results is not a tensor")
