"""Reads files that torch saved as plain data: mapped, never executed."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    get_unsafe_globals_in_checkpoint,
)
from torch.utils._pytree import tree_leaves

from fmbpo.data.importing.files import AGAIN, reading
from fmbpo.errors import UserError

REFUSED = "give the file that TD-MPC2 saved; it is only read, never executed"


class _TensorDict:
    """Replaces a TensorDict while a file is read: holds its state, does nothing."""

    state: Any = None  # pickle need not call __init__

    def __init__(self, _kind: Any = None, state: Any = None) -> None:
        self.state = state

    def __setstate__(self, state: Any) -> None:
        self.state = state


# The names that tensordict's releases write, in order: up to 0.2, since 0.3, all, since 0.13.
_KNOWN: dict[str, Callable[..., Any]] = {
    "tensordict.tensordict.TensorDict": _TensorDict,
    "tensordict._td.TensorDict": _TensorDict,
    "tensordict.utils._StringOnlyDict": dict,
    "tensordict._reductions._make_td": _TensorDict,
}


def load_mapped(path: Path) -> Mapping[Any, Any]:
    """The dictionary or TensorDict of a file, its tensors mapped, not read.

    Raises:
        UserError: the file is missing, truncated, in torch's old format, has other content, or
            requests that code be executed.
    """
    with reading(path):
        sizes = _check_zip(path)
        try:
            with warnings.catch_warnings(), _known_alone():
                warnings.simplefilter("ignore")
                content = torch.load(path, mmap=True, weights_only=True, map_location="cpu")
        except (OSError, MemoryError):
            raise
        except Exception as error:  # torch raises many kinds for damaged files
            raise _refusal(path, error) from error
    inner = content
    if isinstance(content, _TensorDict):
        inner = content.state.get("_tensordict") if isinstance(content.state, dict) else None
    if not isinstance(inner, Mapping):
        what = f"holds a {type(content).__name__.lstrip('_')}, not a dictionary of arrays"
        raise UserError(what, where=str(path), remedy=REFUSED)
    tensors = [leaf for leaf in tree_leaves(dict(inner)) if isinstance(leaf, Tensor)]
    dense = [t for t in tensors if t.is_cpu and t.layout == torch.strided]
    if any(t.untyped_storage().nbytes() not in sizes for t in dense):
        raise UserError("an array has the wrong length", where=str(path), remedy=AGAIN)
    return inner


@contextmanager
def _known_alone() -> Iterator[None]:
    """Allow only plain data and `_KNOWN`, whatever other libraries have allowed."""
    others = get_safe_globals()
    clear_safe_globals()
    add_safe_globals([(value, name) for name, value in _KNOWN.items()])
    try:
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(others)


def _check_zip(path: Path) -> set[int]:
    """The sizes of the members of a zip file; UserError unless it is as torch writes them."""
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise UserError("the file is empty", where=str(path), remedy=AGAIN)
    if start != b"PK\3\4":
        raise UserError(
            "not a torch file, or in the format before torch 1.6, which cannot be read in pieces",
            where=str(path),
            remedy="if you trust it, load it and torch.save it again with a newer torch",
        )
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise UserError(
                    f"{member.filename} is compressed; torch never compresses",
                    where=str(path),
                    remedy=REFUSED,
                )
            if member.filename.endswith("/data.pkl") and member.file_size < 2**26:
                archive.read(member)  # checks the checksum
        return {member.file_size for member in archive.infolist()}


def _refusal(path: Path, error: Exception) -> UserError:
    """The reason that torch did not load the file, with the functions that it wanted to call."""
    try:
        unsafe = set(get_unsafe_globals_in_checkpoint(path)) - set(_KNOWN)
    except Exception:  # the file is damaged
        unsafe = set()
    if unsafe:
        return UserError(
            f"asks for {', '.join(sorted(unsafe))}, which is not plain data; it was not executed",
            where=str(path),
            remedy=REFUSED,
        )
    text = (str(error).strip().splitlines() or [""])[0][:120]
    blocked = isinstance(error, pickle.UnpicklingError)
    kind = "holds more than plain data" if blocked else "truncated or damaged"
    return UserError(f"{kind} ({type(error).__name__}: {text})", where=str(path), remedy=AGAIN)
