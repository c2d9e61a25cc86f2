"""The layout of the offline store, the id of its content, and the checks on reading."""

from __future__ import annotations

import atexit
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import zarr
from attrs import frozen
from numpy.typing import NDArray
from zarr.core import sync

from fmbpo.errors import UserError
from fmbpo.tasks.known import task_info
from fmbpo.tasks.mt30 import SUITE
from fmbpo.tasks.suite import Suite

Array: TypeAlias = NDArray[Any]
"""Numbers of any type."""
Attributes: TypeAlias = Mapping[str, Any]
"""JSON values by name."""

FORMAT = "fmbpo-offline"
FORMAT_VERSION = 2
"""Version 1 is for tasks of MT30: without terminations, and with MT30's widths."""

DATA_ARRAYS = ("data/obs", "data/action", "data/reward")
ENDS = "meta/episode_ends"
META_ARRAYS = ("meta/episode_task", "meta/episode_behaviour", ENDS)
TERMINATED = "meta/episode_terminated"
"""Whether each episode's last row is a terminal state; from version 2 on."""


@frozen
class Layout:
    """The arrays of a store: its format ``version``, and the widths of its rows."""

    version: int
    obs_width: int
    action_width: int

    @property
    def arrays(self) -> dict[str, tuple[str, int, str]]:
        """Type, number of columns (0: a flat array) and unit of the length, by name."""
        types = dict(zip(META_ARRAYS, ("int16", "int8", "int64"), strict=True))
        ends = {ENDS: types.pop(ENDS)}
        types |= ({TERMINATED: "bool"} if self.version > 1 else {}) | ends
        data = zip(DATA_ARRAYS, (self.obs_width, self.action_width, 0), strict=True)
        rows = {name: ("float32", columns, "rows") for name, columns in data}
        return rows | {name: (kind, 0, "episodes") for name, kind in types.items()}

    @property
    def meta_arrays(self) -> tuple[str, ...]:
        """Names of the arrays with an entry per episode, in the order of their writing: the ends,
        which count the others, come last."""
        return tuple(name for name, (_, _, unit) in self.arrays.items() if unit == "episodes")

    @property
    def row_width(self) -> int:
        """Columns of a packed row: observation, action and reward, concatenated."""
        return self.obs_width + self.action_width + 1

    @property
    def row_bytes(self) -> int:
        """Bytes per row of the data arrays, uncompressed."""
        return np.dtype(np.float32).itemsize * self.row_width


def layout_of(suite: Suite) -> Layout:
    """The layout in which data of this suite are written."""
    return Layout(1 if suite is SUITE else 2, suite.obs_width, suite.action_width)


LIMITS = {"data/action": 1.0}
"""The largest magnitudes: actions that the simulators take."""
_ROUNDING = 1e-6
REWARDS = "rewards"
"""The attribute with the smallest and the largest reward; stores of earlier versions lack it."""
SEAL = "seal"
"""The attribute that holds the `seal` of the metadata."""
_GIVE = "give the folder of a store that fmbpo wrote"


@atexit.register
def _stop_zarr() -> None:
    """Stop zarr's event loop. Zarr gives its thread 0.2 s, and on a busy machine closes a loop that
    still runs, which ends in a traceback."""
    loop, thread = sync.loop[0], sync.iothread[0]
    if loop is not None and thread is not None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=30)


def starts(episode_ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """[E] first row of each episode from the exclusive ends [E]."""
    return np.concatenate([np.zeros(1, np.int64), episode_ends])[: len(episode_ends)]


class ContentHash:
    """The id of a data set, from its values only: chunking and compression do not matter."""

    def __init__(self, tasks: Sequence[str], layout: Layout) -> None:
        self._tasks, self._arrays = tuple(tasks), layout.arrays
        self._hashes = {name: hashlib.sha256() for name in DATA_ARRAYS}

    def update(self, name: str, values: Array) -> None:
        """Add the next rows of a data array."""
        dtype = np.dtype(self._arrays[name][0]).newbyteorder("<")
        self._hashes[name].update(np.ascontiguousarray(values, dtype).tobytes())

    def id(self, meta: Mapping[str, Array]) -> str:
        """The id of all rows added so far, with the values [E] of `Layout.meta_arrays`."""
        for name, values in meta.items():
            self._hashes[name] = hashlib.sha256()
            self.update(name, values)
        hashes = [self._hashes[name].hexdigest() for name in self._arrays]
        return "sha256:" + digest("\n".join([*self._tasks, *hashes]))


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def seal(path: Path) -> str:
    """SHA-256 of a store's metadata: all attributes except the seal, and those of every array."""
    files = path.glob("*/*/zarr.json")
    documents = {"/".join(f.parts[-3:-1]): json.loads(f.read_bytes()) for f in files}
    group = json.loads((path / "zarr.json").read_bytes())
    group["attributes"].pop(SEAL, None)
    return "sha256:" + digest(json.dumps([group, documents], sort_keys=True))


def counts(
    tasks: Sequence[str], episode_task: NDArray[np.int16], episode_ends: NDArray[np.int64]
) -> Attributes:
    """The attributes that count rows and episodes, in total and by task."""
    lengths = episode_ends - starts(episode_ends)
    episodes = np.bincount(episode_task, minlength=len(tasks))
    rows = np.bincount(episode_task, weights=lengths, minlength=len(tasks))  # exact below 2^53
    return {
        "rows": int(lengths.sum()),
        "episodes_per_task": {name: int(episodes[i]) for i, name in enumerate(tasks)},
        "rows_per_task": {name: int(rows[i]) for i, name in enumerate(tasks)},
    }


def damaged(what: str, where: str) -> UserError:
    """The error for a store that must be made again."""
    return UserError(what, where=where, remedy="collect or import the data set again")


def open_group(path: Path) -> zarr.Group:
    """The group of a store, for reading; UserError if it does not exist."""
    if not path.exists():
        remedy = "check the path, or collect a data set"
        raise UserError("there is no data set here", where=str(path), remedy=remedy)
    try:
        return zarr.open_group(path, mode="r", zarr_format=3)
    except Exception as error:
        what = f"this is not a Zarr v3 group ({type(error).__name__})"
        raise UserError(what, where=str(path), remedy=_GIVE) from error


def open_array(group: zarr.Group, name: str, layout: Layout, path: Path) -> zarr.Array[Any]:
    """An array; UserError if it or a chunk is missing, or shape or type is wrong."""
    where = f"{path}, array {name}"
    dtype, columns, _ = layout.arrays[name]
    try:
        array = group[name]
    except KeyError as error:
        raise damaged("the array is missing", where) from error
    except Exception as error:
        raise damaged(f"unreadable: {error}", where) from error
    if not isinstance(array, zarr.Array):
        raise damaged("a group instead of an array", where)
    if array.shape[1:] != ((columns,) if columns else ()):
        shape = f"[N, {columns}]" if columns else "[N]"
        raise damaged(f"shape {array.shape}, not {shape}", where)
    if array.dtype != np.dtype(dtype):
        raise damaged(f"type {array.dtype}, not {dtype}", where)
    # Zarr reads a missing chunk as the fill value.
    missing = array.nchunks - array.nchunks_initialized
    if missing > 0:
        raise damaged(f"truncated: {missing} of {array.nchunks} chunks missing", where)
    return array


def read(array: zarr.Array[Any], name: str, path: Path, rows: slice = slice(None)) -> Array:
    """All rows of an array, or some; UserError if its chunks cannot be decoded."""
    try:
        return np.asarray(array[rows])
    except Exception as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        at = f", in rows {rows.start} to {rows.stop}" if rows.stop is not None else ""
        raise damaged(f"truncated or damaged: {first}", f"{path}, array {name}{at}") from error


def read_layout(attributes: Attributes, path: Path) -> Layout:
    """The layout of a store; UserError unless the attributes are those of a complete store of a
    known format version."""
    where = str(path)
    if attributes.get("format") != FORMAT:
        what = f"a Zarr group, but not a data set (its attribute format is not {FORMAT!r})"
        raise UserError(what, where=where, remedy=_GIVE)
    version = attributes.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        what = f"format version {version}; this fmbpo reads up to {FORMAT_VERSION}"
        raise UserError(what, where=where, remedy="update fmbpo")
    if attributes.get("complete") is not True:
        raise UserError(
            "the data set is not complete: the command that makes it was interrupted",
            where=where,
            remedy="run the same command again to continue",
        )
    needed: tuple[str, ...] = ("id", "tasks", "behaviours", "obs_dims", "action_dims")
    if version > 1:
        needed = (*needed, "obs_width", "action_width", "own_tasks")
    missing = [key for key in needed if key not in attributes]
    if missing:
        raise damaged(f"attributes missing: {', '.join(missing)}", where)
    for task in attributes["tasks"]:
        try:
            if task not in attributes.get("own_tasks", ()):
                task_info(task)
        except UserError as error:
            where = f"{path}, attribute tasks"
            raise UserError(error.what, where=where, remedy=error.remedy) from None
    if version == 1:
        return layout_of(SUITE)
    widths = attributes["obs_width"], attributes["action_width"]
    if not all(type(width) is int and width > 0 for width in widths):
        raise damaged(f"attributes obs_width, action_width: {widths}", where)
    return Layout(version, *widths)


def check_ends(ends: NDArray[np.int64], lengths: Mapping[str, int], path: Path) -> None:
    """UserError unless the ends [E] increase and reach the length of every data array."""
    where = f"{path}, array meta/episode_ends"
    falls = np.flatnonzero(np.diff(ends, prepend=np.int64(0)) <= 0)
    if len(falls):
        raise damaged(f"not increasing at episode {int(falls[0])}", where)
    last = int(ends[-1]) if len(ends) else 0
    for name, rows in lengths.items():
        if last != rows:
            raise damaged(f"the last episode ends at row {last}, but {name} has {rows} rows", where)


def check_index(index: Array, episodes: int, name: str, names: Sequence[str], path: Path) -> None:
    """UserError unless every episode has an index [E] into ``names``."""
    where = f"{path}, array {name}"
    if len(index) != episodes:
        raise damaged(f"{len(index)} entries for {episodes} episodes", where)
    bad = np.flatnonzero((index < 0) | (index >= len(names)))
    if len(bad):
        at = int(bad[0])
        what = f"episode {at} has index {int(index[at])}, but there are {len(names)} names"
        raise damaged(what, where)


def check_manifest(
    attributes: Attributes, task: NDArray[np.int16], ends: NDArray[np.int64], path: Path
) -> None:
    """UserError unless the counts in the attributes match the episodes [E].

    If there are ``sources``, every episode must come from exactly one of them.
    """
    for key, value in counts(attributes["tasks"], task, ends).items():
        if attributes.get(key, value) != value:
            what = f"{attributes[key]}, but the arrays have {value}"
            raise damaged(what, f"{path}, attribute {key}")
    at, where = 0, f"{path}, attribute sources"
    for source in attributes.get("sources", ()):
        begin, end = source["first_episode"], source["end_episode"]
        if begin != at or end - begin != source["episodes"] - source["left_out"]:
            raise damaged(f"{source['file']} does not have the episodes {begin} to {end}", where)
        at = end
    if attributes.get("sources") and at != len(ends):
        raise damaged(f"{at} episodes, but there are {len(ends)}", where)


def worst(name: str, values: Array) -> tuple[int, str] | None:
    """The row of the worst value among rows of a data array, and its fault.

    None if all are finite and, for actions, within ``LIMITS``.
    """
    finite = np.isfinite(values)
    if not finite.all():
        what = "a value that is not finite (NaN, infinite, or too large for float32)"
        return int(np.argmin(finite.reshape(len(values), -1).all(1))), what
    limit = LIMITS.get(name, math.inf)
    size = max(values.max(initial=0.0), -values.min(initial=0.0))
    if size <= limit * (1 + _ROUNDING):
        return None
    row = np.unravel_index(np.abs(values).argmax(), values.shape)[0]
    return int(row), f"a magnitude of {size:g}, the largest, where at most {limit:g} is allowed"


def check_values(
    values: Array, first_row: int, name: str, ends: NDArray[np.int64], path: Path
) -> None:
    """UserError naming episode and row if a value of the rows from ``first_row`` is unfit."""
    if found := worst(name, values):
        row = found[0] + first_row
        episode = int(np.searchsorted(ends, row, side="right"))
        raise damaged(f"{found[1]} in episode {episode}, row {row}", f"{path}, array {name}")
