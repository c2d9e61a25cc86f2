"""The layout of the offline store, the id of its content, and the checks that reading makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from fmbpo.errors import UserError
from fmbpo.tasks.mt30 import ACTION_WIDTH, OBS_WIDTH, task_info

FORMAT = "fmbpo-offline"
FORMAT_VERSION = 1

# name -> (dtype, columns; 0 for a flat array, what its length counts)
LAYOUT: dict[str, tuple[str, int, str]] = {
    "data/obs": ("float32", OBS_WIDTH, "rows"),
    "data/action": ("float32", ACTION_WIDTH, "rows"),
    "data/reward": ("float32", 0, "rows"),
    "meta/episode_task": ("int16", 0, "episodes"),
    "meta/episode_behaviour": ("int8", 0, "episodes"),
    "meta/episode_ends": ("int64", 0, "episodes"),
}
DATA_ARRAYS = tuple(name for name in LAYOUT if name.startswith("data/"))
ROW_BYTES = sum(np.dtype(LAYOUT[name][0]).itemsize * (LAYOUT[name][1] or 1) for name in DATA_ARRAYS)
"""Of a row of all of them, uncompressed."""
SEAL = "seal"
"""The attribute that holds `seal` of the rest."""
REMAKE = "collect or import the data set again"


def starts(episode_ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """[E] first row of each episode from the exclusive ends [E]."""
    return np.concatenate([np.zeros(1, np.int64), episode_ends])[: len(episode_ends)]


class ContentHash:
    """The id of a data set, from its values alone: chunking and compression do not matter."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks = tuple(tasks)
        self._hashes = {name: hashlib.sha256() for name in DATA_ARRAYS}

    def update(self, name: str, values: NDArray[Any]) -> None:
        """Add the next rows of a data array."""
        dtype = np.dtype(LAYOUT[name][0]).newbyteorder("<")
        self._hashes[name].update(np.ascontiguousarray(values, dtype).tobytes())

    def id(
        self,
        episode_task: NDArray[np.int16],
        episode_behaviour: NDArray[np.int8],
        episode_ends: NDArray[np.int64],
    ) -> str:
        """The id of all rows added so far with these episodes."""
        parts = [*self._tasks, *(h.hexdigest() for h in self._hashes.values())]
        for values, name in (
            (episode_task, "meta/episode_task"),
            (episode_behaviour, "meta/episode_behaviour"),
            (episode_ends, "meta/episode_ends"),
        ):
            dtype = np.dtype(LAYOUT[name][0]).newbyteorder("<")
            parts.append(hashlib.sha256(np.asarray(values, dtype).tobytes()).hexdigest())
        return "sha256:" + digest("\n".join(parts))


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def seal(path: Path) -> str:
    """SHA-256 of a store's metadata: all attributes but the seal itself, and of every array."""
    documents = {name: json.loads((path / name / "zarr.json").read_bytes()) for name in LAYOUT}
    group = json.loads((path / "zarr.json").read_bytes())
    group["attributes"].pop(SEAL, None)
    return "sha256:" + digest(json.dumps([group, documents], sort_keys=True))


def open_group(path: Path) -> zarr.Group:
    """The group of a store, for reading; UserError where there is none."""
    if not path.exists():
        raise UserError(
            "there is no data set here", where=str(path), remedy="check the path, or collect one"
        )
    try:
        return zarr.open_group(path, mode="r", zarr_format=3)
    except Exception as error:
        raise UserError(
            f"this is not a Zarr v3 group ({type(error).__name__})",
            where=str(path),
            remedy="give the folder of a store that fmbpo wrote",
        ) from error


def open_array(group: zarr.Group, name: str, path: Path) -> zarr.Array[Any]:
    """An array of `LAYOUT`; UserError if missing, of wrong shape or type, or chunks are missing."""
    where = f"{path}, array {name}"
    dtype, columns, _ = LAYOUT[name]
    try:
        array = group[name]
    except KeyError as error:
        raise UserError("the array is missing", where=where, remedy=REMAKE) from error
    except Exception as error:
        raise UserError(f"unreadable: {error}", where=where, remedy=REMAKE) from error
    if not isinstance(array, zarr.Array):
        raise UserError("a group where an array should be", where=where, remedy=REMAKE)
    rank = 2 if columns else 1
    if array.ndim != rank or (columns and array.shape[1] != columns):
        shape = f"[N, {columns}]" if columns else "[N]"
        raise UserError(f"shape {array.shape}, not {shape}", where=where, remedy=REMAKE)
    if array.dtype != np.dtype(dtype):
        raise UserError(f"type {array.dtype}, not {dtype}", where=where, remedy=REMAKE)
    # Zarr reads a chunk that is not there as the fill value.
    if array.nchunks_initialized < array.nchunks:
        missing = array.nchunks - array.nchunks_initialized
        raise UserError(
            f"truncated: {missing} of {array.nchunks} chunks missing", where=where, remedy=REMAKE
        )
    return array


def read(array: zarr.Array[Any], name: str, path: Path, rows: slice | None = None) -> NDArray[Any]:
    """All rows of an array, or some; UserError where its chunks cannot be decoded."""
    try:
        return np.asarray(array[rows if rows is not None else slice(None)])
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        at = f", in rows {rows.start} to {rows.stop}" if rows is not None else ""
        raise UserError(
            f"truncated or damaged: {first}", where=f"{path}, array {name}{at}", remedy=REMAKE
        ) from error


def check_attributes(attributes: Mapping[str, Any], path: Path) -> None:
    """UserError unless these are attributes of a complete store that this version can read."""
    where = str(path)
    if attributes.get("format") != FORMAT:
        raise UserError(
            f"a Zarr group, but not a data set (attribute format is not {FORMAT!r})",
            where=where,
            remedy="give the folder of a store that fmbpo wrote",
        )
    version = attributes.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(
            f"format version {version}; this fmbpo reads up to {FORMAT_VERSION}",
            where=where,
            remedy="update fmbpo",
        )
    if attributes.get("complete") is not True:
        raise UserError(
            "the data set is not complete: its making was interrupted",
            where=where,
            remedy="give the same command again; it continues where it stopped",
        )
    needed = ("id", "tasks", "behaviours", "obs_dims", "action_dims")
    missing = [key for key in needed if key not in attributes]
    if missing:
        raise UserError(f"attributes missing: {', '.join(missing)}", where=where, remedy=REMAKE)
    for task in attributes["tasks"]:
        try:
            task_info(task)
        except UserError as error:
            raise UserError(
                error.what, where=f"{path}, attribute tasks", remedy=error.remedy
            ) from None


def check_ends(ends: NDArray[np.int64], lengths: Mapping[str, int], path: Path) -> None:
    """UserError unless the ends [E] increase and reach the length of every data array."""
    where = f"{path}, array meta/episode_ends"
    steps = np.diff(ends, prepend=np.int64(0))
    if (steps <= 0).any():
        at = int(np.flatnonzero(steps <= 0)[0])
        raise UserError(f"not increasing at episode {at}", where=where, remedy=REMAKE)
    last = int(ends[-1]) if len(ends) else 0
    for name, rows in lengths.items():
        if last != rows:
            raise UserError(
                f"the last episode ends at row {last}, but {name} has {rows} rows",
                where=where,
                remedy=REMAKE,
            )


def check_index(
    index: NDArray[Any], episodes: int, name: str, names: Sequence[str], path: Path
) -> None:
    """UserError unless every episode has an index [E] into ``names``."""
    where = f"{path}, array {name}"
    if len(index) != episodes:
        raise UserError(f"{len(index)} entries for {episodes} episodes", where=where, remedy=REMAKE)
    bad = np.flatnonzero((index < 0) | (index >= len(names)))
    if len(bad):
        at = int(bad[0])
        raise UserError(
            f"episode {at} has index {int(index[at])}, but there are {len(names)} names",
            where=where,
            remedy=REMAKE,
        )


def check_manifest(
    attributes: Mapping[str, Any],
    task: NDArray[np.int16],
    ends: NDArray[np.int64],
    path: Path,
) -> None:
    """UserError unless the numbers in the attributes are those of the episodes [E].

    Of all rows and of rows and episodes by task; and every episode comes from exactly one of the
    ``sources``, where there are such.
    """
    names, lengths = attributes["tasks"], ends - starts(ends)
    episodes = np.bincount(task, minlength=len(names))
    rows = np.bincount(task, weights=lengths, minlength=len(names))
    found: dict[str, Any] = {
        "rows": int(lengths.sum()),
        "episodes_per_task": {name: int(episodes[i]) for i, name in enumerate(names)},
        "rows_per_task": {name: int(rows[i]) for i, name in enumerate(names)},
    }
    for key, value in found.items():
        if attributes.get(key, value) != value:
            raise UserError(
                f"{attributes[key]}, but the arrays have {value}",
                where=f"{path}, attribute {key}",
                remedy=REMAKE,
            )
    at = 0
    for source in attributes.get("sources", ()):
        begin, end = source["first_episode"], source["end_episode"]
        if begin != at or end - begin != source["episodes"] - source["left_out"]:
            raise UserError(
                f"{source['file']} does not have the episodes {begin} to {end}",
                where=f"{path}, attribute sources",
                remedy=REMAKE,
            )
        at = end
    if attributes.get("sources") and at != len(ends):
        raise UserError(
            f"{at} episodes, but there are {len(ends)}",
            where=f"{path}, attribute sources",
            remedy=REMAKE,
        )


def check_finite(
    values: NDArray[Any], first_row: int, name: str, ends: NDArray[np.int64], path: Path
) -> None:
    """UserError naming episode and row if a value of the rows from ``first_row`` is not finite."""
    if np.isfinite(values).all():
        return
    rows = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))
    row = int(rows[0]) + first_row
    episode = int(np.searchsorted(ends, row, side="right"))
    raise UserError(
        f"a value that is not finite (NaN or infinite) in episode {episode}, row {row}",
        where=f"{path}, array {name}",
        remedy=REMAKE,
    )
