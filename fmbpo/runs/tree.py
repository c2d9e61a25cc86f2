"""Nested training state as JSON plus a flat table of tensors, exactly and without pickle.

A leaf that JSON holds exactly (None, bool, str, a small int, a finite float) stands for itself and
a list is a list; everything else is an object with one key that says what it is::

    {"dict": [[key, value], ...]}     {"tuple": [...]}        {"tensor": NAME}
    {"int": "0x..."}                  {"float": "7ff8..."}    {"array": NAME, "dtype", "shape"}
    {"scalar": "0000...", "dtype"}    (a numpy scalar's bytes)

Dictionaries are lists of pairs because optimisers key theirs by integers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# Beyond this, JSON readers of other languages lose digits, and Python refuses the longest ones.
_PLAIN_INT = 2**53


def flatten(state: object) -> tuple[Any, dict[str, Tensor]]:
    """``state`` as (JSON content, tensors by name); tensors are detached, not copied.

    Known: None, bool, int, float, str, dict, list, tuple, torch tensors, numpy arrays and scalars.
    Subclasses of dict become dict. Raises ``TypeError`` that names the place of anything else.
    """
    tensors: dict[str, Tensor] = {}
    return _encode(state, "state", tensors), tensors


def unflatten(content: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that ``flatten`` took apart.

    Raises ``ValueError`` or ``KeyError`` when the content is not of its making.
    """
    if content is None or isinstance(content, bool | int | float | str):
        return content
    if isinstance(content, list):
        return [unflatten(item, tensors) for item in content]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"not a flattened state: {content!r}")
    kind, value = next(iter(content.items()))
    match kind:
        case "dict":
            return {unflatten(k, tensors): unflatten(v, tensors) for k, v in value}
        case "tuple":
            return tuple(unflatten(item, tensors) for item in value)
        case "tensor":
            return tensors[value]
        case "int":
            return int(value, 16)
        case "float":
            return struct.unpack(">d", bytes.fromhex(value))[0]
        case "array" | "scalar":
            return _decode_numpy(kind, content, tensors)
        case _:
            raise ValueError(f"unknown kind of value {kind!r}")


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int:
        return value if abs(value) <= _PLAIN_INT else {"int": hex(value)}
    if type(value) is float:
        # repr, which JSON uses, gives back every finite float; NaNs have payloads and JSON none.
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if type(value) is list:
        return [_encode(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
    if type(value) is tuple:
        return {"tuple": [_encode(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    if isinstance(value, dict):
        pairs = value.items()
        return {
            "dict": [[_encode_key(k, path), _encode(v, f"{path}/{k}", tensors)] for k, v in pairs]
        }
    return _encode_tensor(value, path, tensors)


def _encode_key(key: Any, path: str) -> Any:
    held: dict[str, Tensor] = {}
    encoded = _encode(key, path, held)
    if held:
        raise TypeError(f"{path}: a tensor as a dictionary's key cannot be saved")
    return encoded


def _encode_tensor(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return {"tensor": _place(value.detach(), path, tensors)}
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "biufcSU":
        raise TypeError(f"{path}: a {type(value).__name__} cannot be saved in a checkpoint")
    flat = np.frombuffer(bytearray(value.tobytes()), dtype=np.uint8)
    if isinstance(value, np.generic):
        return {"scalar": flat.tobytes().hex(), "dtype": value.dtype.str}
    name = _place(torch.from_numpy(flat), path, tensors)
    return {"array": name, "dtype": value.dtype.str, "shape": list(value.shape)}


def _place(tensor: Tensor, path: str, tensors: dict[str, Tensor]) -> str:
    """Enter a tensor under a readable name; keys with slashes can make two paths equal."""
    stem = name = path.encode("ascii", "backslashreplace").decode()
    count = 1
    while name in tensors:
        count += 1
        name = f"{stem}#{count}"
    tensors[name] = tensor
    return name


def _decode_numpy(kind: str, content: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    import numpy as np

    dtype = np.dtype(content["dtype"])
    if kind == "scalar":
        return np.frombuffer(bytes.fromhex(content["scalar"]), dtype=dtype)[0]
    raw = tensors[content["array"]].numpy().tobytes()
    return np.frombuffer(bytearray(raw), dtype=dtype).reshape(content["shape"])
