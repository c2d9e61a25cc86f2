"""Your own data in ``.npz`` files: these arrays, as `numpy.savez` writes them.

| array | shape | |
| --- | --- | --- |
| ``obs`` | [N, O] float | rows of all episodes in order; padded or not |
| ``action`` | [N, A] float | the action that led to each row; an episode's first is ignored |
| ``reward`` | [N] float | likewise, summed over the action repeat |
| ``episode_ends`` | [E] integers | the row after each episode's last |
| ``task`` | one text, or [E] | names of tasks |
| ``terminated`` | [E] bool, optional | whether an episode's last row is a terminal state |
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fmbpo.data.importing.files import AGAIN, Block, EpisodeFile, check_names, reading
from fmbpo.data.store_format import Array, starts
from fmbpo.errors import UserError
from fmbpo.tasks.suite import Suite

ROWS = {"reward": 1, "obs": 2, "action": 2}
"""Numbers of dimensions of the arrays with one row per step."""
TERMINATED = "terminated"
_SMALL = 2**30
"""Largest array that is read at once, in bytes."""


class NpzFile(EpisodeFile):
    """An opened file; headers, ``episode_ends`` and ``task`` are checked.

    Numbers may be float16, float32 or float64. Pickled objects are never read. The large arrays
    are read in pieces, also from compressed files (`numpy.savez_compressed`). Unknown tasks are an
    error, never left out.

    Raises:
        UserError: the file is missing, not an ``.npz`` or damaged; an array is missing or has the
            wrong type or shape; ends do not increase or do not reach the last row; or a task is
            unknown.
    """

    equal_lengths = False

    def __init__(self, path: Path, suite: Suite) -> None:
        self.path, self.suite = path, suite
        with reading(path), zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            wanted = (*ROWS, "episode_ends", "task")
            check_names(wanted, names, path, 'see "Your own data" in docs/data.md')
            self.ignored = tuple(sorted(names - {*wanted, TERMINATED}))
            arrays = {name: _Array(archive, name, path) for name in wanted}
            ends, task = (arrays.pop(name).whole() for name in ("episode_ends", "task"))
            terminated = np.zeros(len(ends), bool)
            if TERMINATED in names:
                terminated = _Array(archive, TERMINATED, path).whole()
        for name, rank in ROWS.items():
            array, rows = arrays[name], arrays["reward"].shape[0]
            if len(array.shape) != rank:
                raise array.unfit("[N]" if rank == 1 else f"[N, width of {name}]")
            if array.dtype not in (np.float16, np.float32, np.float64):
                what = f"type {array.dtype}, not float32 (or float16, float64)"
                raise array.error(what, "save array.astype(numpy.float32)")
            if array.shape[0] != rows:
                raise array.error(f"{array.shape[0]} rows, but reward has {rows}")
        self.row_bytes = sum(array.row_bytes for array in arrays.values())
        self._ends = _ends(ends, rows, f"{path}, array episode_ends")
        self.lengths = self._ends - starts(self._ends)
        self.ids = _ids(task, len(self._ends), suite, f"{path}, array task")
        if terminated.shape != self._ends.shape or terminated.dtype != np.bool_:
            raise UserError(
                f"{terminated.dtype} {list(terminated.shape)}, not bool [{len(self._ends)}]",
                where=f"{path}, array {TERMINATED}",
                remedy="save numpy.array([...], bool), an entry per episode",
            )
        self._terminated = terminated

    def blocks(self, first: int, rows: int) -> Iterator[Block]:
        """See `EpisodeFile`."""
        begin = starts(self._ends)
        with reading(self.path), zipfile.ZipFile(self.path) as archive:
            arrays = {name: _Array(archive, name, self.path) for name in ROWS}
            at = 0
            while at < len(self._ends):
                # Read the episodes before `first` too: compressed data can only be read in order.
                beyond = int(np.searchsorted(self._ends, begin[at] + rows, side="right"))
                stop = min(max(at + 1, beyond), first if at < first else len(self._ends))
                count = int(self._ends[stop - 1] - begin[at])
                part = {name: array.rows(count) for name, array in arrays.items()}
                if at >= first:
                    some = slice(at, stop)
                    yield Block(
                        **part,
                        lengths=self.lengths[some],
                        task=self.ids[some],
                        terminated=self._terminated[some],
                        first=at,
                    )
                at = stop


class _Array:
    """One array of the file, read from its beginning in pieces of rows."""

    def __init__(self, archive: zipfile.ZipFile, name: str, path: Path) -> None:
        self.where = f"{path}, array {name}"
        self._file = archive.open(f"{name}.npy")
        with reading(self.where):
            version = npy.read_magic(self._file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            self.shape, fortran, self.dtype = read(self._file)
        if fortran and len(self.shape) > 1:
            what = "stored column by column (Fortran order)"
            raise self.error(what, "save numpy.ascontiguousarray(array)")
        if self.dtype.hasobject:
            remedy = "save plain numbers and texts: numpy.array(names), not dtype=object"
            raise self.error("holds pickled objects, which are never executed", remedy)
        self.row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=int))
        self.bytes = self.row_bytes * int(np.prod(self.shape[:1], dtype=int))
        size, there = self._file.tell() + self.bytes, archive.getinfo(f"{name}.npy").file_size
        if there != size:
            what = f"{there} bytes, but shape {list(self.shape)} needs {size}"
            raise self.error(f"truncated or damaged: {what}", AGAIN)

    def rows(self, count: int) -> Array:
        """The next rows."""
        data = self._file.read(count * self.row_bytes)
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def whole(self) -> Array:
        """The whole array."""
        if self.bytes > _SMALL:
            raise self.unfit("one entry per episode")
        return np.frombuffer(self._file.read(self.bytes), self.dtype).reshape(self.shape)

    def unfit(self, wanted: str) -> UserError:
        """The error for a wrong shape."""
        return self.error(f"shape {list(self.shape)}, not {wanted}")

    def error(self, what: str, remedy: str = "") -> UserError:
        """An error that names the array."""
        return UserError(what, where=self.where, remedy=remedy)


def _ends(ends: Array, rows: int, where: str) -> NDArray[np.int64]:
    if ends.ndim != 1 or ends.dtype.kind not in "iu":
        what = f"{ends.dtype} {list(ends.shape)}, not integers [E]"
        raise UserError(what, where=where, remedy="give the row after each episode's last")
    if not len(ends):
        raise UserError("no episode", where=where, remedy="give at least one")
    ends = ends.astype(np.int64)
    short = np.flatnonzero(np.diff(ends, prepend=np.int64(0)) < 2)
    if len(short):
        raise UserError(
            f"episode {int(short[0])} has fewer than two rows (or the ends do not increase)",
            where=where,
            remedy="give the row after each episode's last, in order",
        )
    if int(ends[-1]) != rows:
        what = f"the last episode ends at row {int(ends[-1])}, but there are {rows} rows"
        raise UserError(what, where=where, remedy="let the last end be the number of rows")
    return ends


def _ids(task: Array, episodes: int, suite: Suite, where: str) -> NDArray[np.int16]:
    if task.dtype.kind != "U" or task.shape not in ((), (episodes,)):
        raise UserError(
            f"{task.dtype} {list(task.shape)}, not one name or [{episodes}] names",
            where=where,
            remedy='save numpy.array("walker-run"), or one name per episode',
        )
    each = np.broadcast_to(task, (episodes,))
    names, first, which = np.unique(each, return_index=True, return_inverse=True)
    ids = []
    for name, episode in zip(names, first, strict=True):
        try:
            ids.append(suite.index(str(name)))
        except UserError as error:
            place = f"{where}, episode {episode}"
            raise UserError(error.what, where=place, remedy=error.remedy) from None
    return np.array(ids, np.int16)[which]
