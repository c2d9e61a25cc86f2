"""Your own data as ``.npz`` files: five arrays, as `numpy.savez` writes them.

| array | shape | |
| --- | --- | --- |
| ``obs`` | [N, O] float | rows of all episodes in order; padded or not |
| ``action`` | [N, A] float | the action that led to each row; an episode's first is ignored |
| ``reward`` | [N] float | likewise, summed over the action repeat |
| ``episode_ends`` | [E] integers | the row after each episode's last |
| ``task`` | one text, or [E] | names of MT30 tasks |
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fmbpo.data.importing.files import AGAIN, Block, check_names, reading
from fmbpo.data.store_format import Array, starts
from fmbpo.errors import UserError
from fmbpo.tasks.mt30 import task_info

ROWS = {"obs": 2, "action": 2, "reward": 1}
"""Names and numbers of dimensions of the arrays with one row per step."""
_SMALL = 2**30
"""Most bytes of an array that is read at once."""


class NpzFile:
    """One such file, opened: headers, ``episode_ends`` and ``task`` are checked.

    Numbers may be float16, float32 or float64. Pickled objects are never read. The large arrays
    are read in pieces, also from compressed files (`numpy.savez_compressed`).

    Raises:
        UserError: the file is missing, not an ``.npz`` or damaged; an array is missing or has the
            wrong type or shape; ends do not increase or do not reach the last row; or a task is
            unknown.
    """

    equal_lengths = False

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path), zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            wanted = (*ROWS, "episode_ends", "task")
            check_names(wanted, names, path, 'see "Your own data" in docs/data.md')
            self.ignored = tuple(sorted(names - set(wanted)))
            arrays = {}
            for name, rank in ROWS.items():
                with _Array(archive, name, path) as array:
                    if len(array.shape) != rank:
                        raise _unfit(array, "[N]" if rank == 1 else f"[N, width of {name}]")
                    if array.dtype not in (np.float16, np.float32, np.float64):
                        what = f"type {array.dtype}, not float32 (or float16, float64)"
                        raise UserError(what, where=array.where)
                    arrays[name] = array
            ends, task = (_whole(archive, name, path) for name in ("episode_ends", "task"))
        rows = arrays["reward"].shape[0]
        for name, array in arrays.items():
            if array.shape[0] != rows:
                raise UserError(
                    f"{array.shape[0]} rows, but reward has {rows}", where=f"{path}, array {name}"
                )
        self.row_bytes = sum(array.row_bytes for array in arrays.values())
        self._ends = _ends(ends, rows, f"{path}, array episode_ends")
        self._lengths = self._ends - starts(self._ends)
        self._ids = _ids(task, len(self._ends), f"{path}, array task")

    def tasks(self, skip_others: bool) -> tuple[Array, Array]:
        """See `EpisodeFile`; unknown names are never skipped."""
        return self._ids, self._lengths

    def blocks(self, first: int, rows: int) -> Iterator[Block]:
        """See `EpisodeFile`."""
        begin = starts(self._ends)
        with reading(self.path), ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(self.path))
            arrays = {n: stack.enter_context(_Array(archive, n, self.path)) for n in ROWS}
            at = 0
            while at < len(self._ends):
                # Episodes before `first` are read too: compressed data can only be read in order.
                beyond = int(np.searchsorted(self._ends, begin[at] + rows, side="right"))
                stop = max(at + 1, beyond)
                stop = min(stop, first) if at < first else stop
                count = int(self._ends[stop - 1] - begin[at])
                part = {name: array.rows(count) for name, array in arrays.items()}
                if at >= first:
                    yield Block(
                        **part, lengths=self._lengths[at:stop], task=self._ids[at:stop], first=at
                    )
                at = stop


class _Array:
    """One array of the file, read from its beginning in pieces of rows."""

    def __init__(self, archive: zipfile.ZipFile, name: str, path: Path) -> None:
        self.where = f"{path}, array {name}"
        self._file: IO[bytes] = archive.open(f"{name}.npy")
        try:
            version = npy.read_magic(self._file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            self.shape, fortran, self.dtype = read(self._file)
        except (ValueError, SyntaxError, TypeError, KeyError) as error:
            text = (str(error).splitlines() or [""])[0][:120]
            raise UserError(
                f"truncated or damaged ({text})", where=self.where, remedy=AGAIN
            ) from error
        if fortran and len(self.shape) > 1:
            raise UserError(
                "stored column by column (Fortran order)",
                where=self.where,
                remedy="save numpy.ascontiguousarray(array)",
            )
        if self.dtype.hasobject:
            raise UserError(
                "holds pickled objects: refused, not executed",
                where=self.where,
                remedy="save plain numbers and texts: numpy.array(names), not dtype=object",
            )
        self.row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=int))
        size = self._file.tell() + self.row_bytes * int(np.prod(self.shape[:1], dtype=int))
        there = archive.getinfo(f"{name}.npy").file_size
        if there != size:
            raise UserError(
                f"truncated or damaged: {there} bytes where shape {list(self.shape)} needs {size}",
                where=self.where,
                remedy=AGAIN,
            )

    def __enter__(self) -> _Array:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def rows(self, count: int) -> Array:
        """The next rows."""
        data = self._file.read(count * self.row_bytes)
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])


def _whole(archive: zipfile.ZipFile, name: str, path: Path) -> Array:
    with _Array(archive, name, path) as array:
        count = int(np.prod(array.shape[:1], dtype=int))
        if count * array.row_bytes > _SMALL:
            raise _unfit(array, "one entry per episode")
        values = array.rows(count).reshape(array.shape)
    return values


def _ends(ends: Array, rows: int, where: str) -> NDArray[np.int64]:
    if ends.ndim != 1 or ends.dtype.kind not in "iu":
        raise UserError(f"{ends.dtype} {list(ends.shape)}, not integers [E]", where=where)
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
        raise UserError(
            f"the last episode ends at row {int(ends[-1])}, but there are {rows} rows", where=where
        )
    return ends


def _ids(task: Array, episodes: int, where: str) -> NDArray[np.int16]:
    if task.dtype.kind != "U" or task.shape not in ((), (episodes,)):
        raise UserError(
            f"{task.dtype} {list(task.shape)}, not one name or [{episodes}] names",
            where=where,
            remedy='save numpy.array("walker-run"), or one name per episode',
        )
    names = np.broadcast_to(task, (episodes,))
    found = {}
    for name in np.unique(names):
        try:
            found[str(name)] = task_info(str(name)).index
        except UserError as error:
            e = int(np.flatnonzero(names == name)[0])
            raise UserError(
                error.what, where=f"{where}, episode {e}", remedy=error.remedy
            ) from None
    return np.array([found[str(name)] for name in names], np.int16)


def _unfit(array: _Array, wanted: str) -> UserError:
    return UserError(f"shape {list(array.shape)}, not {wanted}", where=array.where)
