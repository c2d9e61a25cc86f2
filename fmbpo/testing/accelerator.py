"""A device without hardware: the tensors on ``DEVICE`` have shapes alone.

``Accelerator`` raises the errors of a GPU, such as that for an operand in the host's memory, and
counts the traffic between host and device. So the rules of a GPU can be tested on any machine, for
whole updates and for plugins. Unlike torch's ``meta`` device, it sees operands on the CPU in every
operation, and it counts copies and values that are read back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("lazy:0")
"""A device type that torch knows in every build, but that nothing else uses."""

aten = torch.ops.aten


class Accelerator(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, tensors and modules can move to ``DEVICE``. Tensors on the CPU compute as ever.

    Attributes:
        copies_in, copies_out: tensors copied to the device and back.
        waits: those of these copies for which the host waits (not ``non_blocking``).
        reads: values of the device's tensors that were read into Python. The host waits for each;
            the value is 0.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.clear()

    def clear(self) -> None:
        """Start the counts again."""
        self.copies_in = self.copies_out = self.waits = self.reads = 0

    @property
    def traffic(self) -> dict[str, int]:
        """Copies and reads by name."""
        names = "copies_in", "copies_out", "waits", "reads"
        return {name: getattr(self, name) for name in names}

    def __enter__(self) -> Accelerator:
        # torch.tensor(x, device=...) is made on the CPU first, so that its copy is seen.
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run ``func`` on shapes if anything in it is on the device."""
        given = dict(kwargs or {})
        leaves = [x for x in tree_leaves((args, given)) if isinstance(x, Tensor | torch.Generator)]
        there = any(isinstance(leaf, FakeTensor) for leaf in leaves)
        place = torch.device(str(given.get("device") or "cpu"))
        if not there and place.type != DEVICE.type:
            return func(*args, **given)
        packet, first = func.overloadpacket, args[0] if args else None
        if packet is aten._local_scalar_dense:
            assert isinstance(first, Tensor)
            self.reads += 1
            return 0.0 if first.is_floating_point() else 0
        if packet in (aten._to_copy, aten.copy_):
            return self._copy(func, args, given)
        for leaf in leaves:
            if isinstance(leaf, torch.Generator):
                raise RuntimeError(f"{packet}: a generator of the CPU for a tensor on the device")
            if leaf.ndim and not isinstance(leaf, FakeTensor):
                raise RuntimeError(f"{packet}: one operand is on the device, another on the CPU")
        with self._fake:
            return func(*args, **given)

    def _copy(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """A copy, within the device or between it and the host."""
        in_place = func.overloadpacket is aten.copy_
        source = args[1] if in_place else args[0]
        to = args[0].device if in_place else torch.device(kwargs.get("device") or source.device)
        if source.device.type == to.type:
            with self._fake:
                return func(*args, **kwargs)
        self.waits += not (kwargs.get("non_blocking") or (in_place and True in args[2:]))
        if to.type == "cpu":
            self.copies_out += 1
            values = torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
            return args[0].copy_(values) if in_place else values
        self.copies_in += 1
        with self._fake:
            if in_place:
                args = (args[0], torch.empty_like(source, device=DEVICE), *args[2:])
            return func(*args, **kwargs)
