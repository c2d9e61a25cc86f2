"""TD-MPC2's data files: a TensorDict [n, T] saved by torch; mapped, never executed.

Keys ``obs`` [n, T, O], ``action`` [n, T, A], ``reward`` [n, T] and ``task`` [n, T] (an index into
the task list). MT30's files have T = 501; those of MT80, whose first 30 tasks are MT30's, 101.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.serialization import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    get_unsafe_globals_in_checkpoint,
)

from fmbpo.data.importing.files import AGAIN, Block, check_names, reading
from fmbpo.data.importing.rows import mt30_ids
from fmbpo.data.store_format import Array
from fmbpo.errors import UserError

KEYS = {"obs": 3, "action": 3, "reward": 2, "task": 2}
"""Names and numbers of dimensions."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
_REFUSED = "give the files that TD-MPC2 published; they are read, never executed"
_TASK_ROWS = 2**23


class _TensorDict:
    """Stands in for a TensorDict while a file is read: holds its state, does nothing."""

    state: Any = None  # pickle need not call __init__

    def __init__(self, _kind: Any = None, state: Any = None) -> None:
        self.state = state

    def __setstate__(self, state: Any) -> None:
        self.state = state


# The names that tensordict's releases write: up to 0.2, since 0.3, all, since 0.13.
_KNOWN: dict[str, Callable[..., Any]] = {
    "tensordict.tensordict.TensorDict": _TensorDict,
    "tensordict._td.TensorDict": _TensorDict,
    "tensordict.utils._StringOnlyDict": dict,
    "tensordict._reductions._make_td": _TensorDict,
}


class TdmpcFile:
    """One of the files, opened: its structure is checked, its values are not read yet.

    Numbers may be float16, bfloat16, float32 or float64; task ids must be integers. Other keys
    than the four are ignored. A plain dictionary of tensors serves as well as a TensorDict.

    Raises:
        UserError: the file is missing, truncated, in torch's old format or asks for code to be
            executed, lacks a key, or has arrays of the wrong type or shape.
    """

    equal_lengths = True

    def __init__(self, path: Path) -> None:
        self.path = path
        content = _load(path)
        self.ignored = tuple(sorted(str(key) for key in content if key not in KEYS))
        arrays = _arrays(content, path)
        self.episodes, self.length = (int(n) for n in arrays["reward"].shape)
        self.row_bytes = sum(t[0, 0].numel() * t.element_size() for t in arrays.values())
        self._ids: NDArray[np.int16] | None = None

    def tasks(self, skip_others: bool) -> tuple[Array, Array]:
        """See `EpisodeFile`; UserError also if an episode has two tasks."""
        ids = np.zeros(self.episodes, np.int64)
        step = max(1, _TASK_ROWS // self.length)
        for first in range(0, self.episodes, step):
            with _mapped(self.path) as arrays:
                task = arrays["task"][first : first + step].numpy()
            mixed = np.flatnonzero((task != task[:, :1]).any(1))
            if len(mixed):
                row = int(np.flatnonzero(task[mixed[0]] != task[mixed[0], 0])[0])
                raise UserError(
                    "the task changes within the episode",
                    where=f"{self.path}, array task, episode {first + int(mixed[0])}, row {row}",
                    remedy=AGAIN,
                )
            ids[first : first + step] = task[:, 0]
        self._ids = mt30_ids(ids, skip_others, str(self.path))
        return self._ids, np.full(self.episodes, self.length)

    def blocks(self, first: int, rows: int) -> Iterator[Block]:
        """See `EpisodeFile`; call ``tasks`` first.

        Every block maps the file anew: pages that were read stay in memory as long as the
        mapping does.
        """
        assert self._ids is not None
        step = max(1, rows // self.length)
        for at in range(first, self.episodes, step):
            count = min(step, self.episodes - at)
            with _mapped(self.path) as arrays:
                obs, action, reward = (
                    _numpy(arrays[name][at : at + count].flatten(0, 1))
                    for name in ("obs", "action", "reward")
                )
                lengths = np.full(count, self.length)
                yield Block(obs, action, reward, lengths, self._ids[at : at + count], at)
                del obs, action, reward


@contextmanager
def _mapped(path: Path) -> Iterator[dict[str, Tensor]]:
    """The file's arrays, mapped until the end of the block."""
    arrays = _arrays(_load(path), path)
    try:
        yield arrays
    finally:
        arrays.clear()


def _numpy(values: Tensor) -> Array:
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _arrays(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """The four arrays, checked against each other."""
    check_names(KEYS, [str(key) for key in content], path, _REFUSED)
    arrays = {}
    for name, rank in KEYS.items():
        value, where = content[name], f"{path}, array {name}"
        if type(value) is not Tensor or value.layout != torch.strided or value.device.type != "cpu":
            raise UserError(f"a {type(value).__name__}, not a plain tensor", where=where)
        if value.ndim != rank:
            shape = "[n, T]" if rank == 2 else "[n, T, width]"
            raise UserError(f"shape {list(value.shape)}, not {shape}", where=where)
        if value.dtype not in (_INTEGERS if name == "task" else _FLOATS):
            wanted = "an integer" if name == "task" else "a float of 16, 32 or 64 bits"
            raise UserError(f"type {value.dtype}, not {wanted}", where=where)
        arrays[name] = value.detach()
    episodes, length = arrays["reward"].shape
    for name, value in arrays.items():
        if tuple(value.shape[:2]) != (episodes, length):
            raise UserError(
                f"{value.shape[0]} episodes of {value.shape[1]} rows, "
                f"but reward has {episodes} of {length}",
                where=f"{path}, array {name}",
                remedy=AGAIN,
            )
    if episodes < 1 or length < 2:
        raise UserError(
            f"{episodes} episodes of {length} rows: nothing to learn from",
            where=str(path),
            remedy="give files with at least one episode of two rows",
        )
    return arrays


def _load(path: Path) -> Mapping[Any, Any]:
    """The file's dictionary of tensors, mapped. Nothing in it is executed."""
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
        raise UserError(
            f"holds a {type(content).__name__.lstrip('_')}, not a dictionary of arrays",
            where=str(path),
            remedy=_REFUSED,
        )
    tensors = [inner[key] for key in KEYS if isinstance(inner.get(key), Tensor)]
    dense = [t for t in tensors if t.is_cpu and t.layout == torch.strided]
    if any(t.untyped_storage().nbytes() not in sizes for t in dense):
        raise UserError("an array is not as long as the file states", where=str(path), remedy=AGAIN)
    return inner


@contextmanager
def _known_alone() -> Iterator[None]:
    """Allow plain data and `_KNOWN` alone, whatever other libraries have allowed."""
    others = get_safe_globals()
    clear_safe_globals()
    add_safe_globals([(value, name) for name, value in _KNOWN.items()])
    try:
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(others)


def _check_zip(path: Path) -> set[int]:
    """UserError unless it is a zip file as torch writes them; the sizes of its members."""
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise UserError("the file is empty", where=str(path), remedy=AGAIN)
    if start != b"PK\3\4":
        raise UserError(
            "not a file of torch, or of its format before 1.6, which cannot be read in pieces",
            where=str(path),
            remedy="if you trust it, load it and torch.save it again with a newer torch",
        )
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise UserError(
                    f"{member.filename} is compressed; torch never compresses",
                    where=str(path),
                    remedy=_REFUSED,
                )
            if member.filename.endswith("/data.pkl") and member.file_size < 2**26:
                archive.read(member)  # compares the checksum
        return {member.file_size for member in archive.infolist()}


def _refusal(path: Path, error: Exception) -> UserError:
    """Why torch did not load the file; above all, which functions it wanted to call."""
    try:
        unsafe = set(get_unsafe_globals_in_checkpoint(path)) - set(_KNOWN)
    except Exception:  # a damaged file again
        unsafe = set()
    if unsafe:
        return UserError(
            f"asks for {', '.join(sorted(unsafe))}, which is not plain data: refused, not executed",
            where=str(path),
            remedy=_REFUSED,
        )
    text = (str(error).strip().splitlines() or [""])[0][:120]
    blocked = isinstance(error, pickle.UnpicklingError)
    kind = "asks for more than plain data need" if blocked else "truncated or damaged"
    return UserError(f"{kind} ({type(error).__name__}: {text})", where=str(path), remedy=AGAIN)
