"""Nested training state as JSON and a flat table of tensors, exact and without pickle.

None, bool, str, int, finite floats and lists remain themselves. Anything else is an object with one
key, its kind::

    {"dict": [[key, value], ...]}    {"tuple": [...]}    {"tensor": NAME}    {"float": "7ff8..."}

Dictionaries are lists of pairs because JSON has no integer keys; non-finite floats are hexadecimal
because JSON has none.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def flatten(state: object) -> tuple[Any, dict[str, Tensor]]:
    """``state`` as (JSON content, tensors by name); tensors are detached, not copied.

    Raises ``TypeError`` that names the place of anything except None, bool, int, float, str,
    tensors, and lists, tuples and dictionaries of these, with str or int keys.
    """
    tensors: dict[str, Tensor] = {}
    return _encode(state, "state", tensors), tensors


def unflatten(content: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that ``flatten`` took apart.

    Raises ``ValueError``, ``TypeError`` or ``KeyError`` if ``flatten`` did not make the content.
    """
    if isinstance(content, list):
        return [unflatten(item, tensors) for item in content]
    if not isinstance(content, dict):
        return content
    ((kind, value),) = content.items()
    match kind:
        case "dict":
            return {key: unflatten(item, tensors) for key, item in value}
        case "tuple":
            return tuple(unflatten(item, tensors) for item in value)
        case "tensor":
            return tensors[value]
        case "float":
            return struct.unpack(">d", bytes.fromhex(value))[0]
        case _:
            raise ValueError(f"unknown kind of value {kind!r}")


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if type(value) in (list, tuple):
        items = [_encode(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    if type(value) is dict and all(type(key) in (int, str) for key in value):
        return {"dict": [[k, _encode(v, f"{path}/{k}", tensors)] for k, v in value.items()]}

    import torch

    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{path}: a {type(value).__name__} cannot be saved in a checkpoint")
    name = path.removeprefix("state/")
    while name in tensors:  # keys with slashes can make two paths equal
        name += "'"
    tensors[name] = value.detach()
    return {"tensor": name}
