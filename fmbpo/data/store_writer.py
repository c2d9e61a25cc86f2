"""Writes the offline store: whole chunks at a time, and never half an episode."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.codecs import BloscCodec

import fmbpo
from fmbpo.base.files import disk_errors, fsync_path
from fmbpo.base.structure import plain
from fmbpo.data.store_format import (
    DATA_ARRAYS,
    ENDS,
    FORMAT,
    META_ARRAYS,
    REWARDS,
    SEAL,
    TERMINATED,
    Array,
    Attributes,
    ContentHash,
    counts,
    layout_of,
    seal,
    worst,
)
from fmbpo.errors import UserError
from fmbpo.tasks.known import NO_OWN, Own, suite_of, task_name

CHUNK_ROWS = 262_144
_CHUNK_EPISODES = 65_536
_SPLIT_RULE = (
    "per task the max(4, floor(2 %)) episodes with the smallest sha256('<id>/<episode>'), "
    "at most half"
)
"""The rule of ``fmbpo.data.store.held_out`` in words, for readers of the store."""


class StoreWriter:
    """Appends episodes to ``<out>.partial`` and renames it to ``out`` when finished.

    Rows are written in whole chunks, then the complete episodes within them, their ends last.
    With ``resume``, a partial store continues after its last complete episode (`episodes` is their
    number); the result does not depend on interruptions. Existing rows are read again once, to
    compute the id.

    Args:
        out: folder of the finished store; must not exist.
        tasks: task names.
        own: the definitions of tasks that belong to no installed suite.
        behaviours: names of behaviours (at most 127).
        compress: use Blosc (zstd, byte shuffle); for small stores that are loaded as a whole.
            Uncompressed chunks can be memory-mapped.
        chunk_rows: rows per chunk.
        resume: continue a partial store of the same kind if there is one.
        provenance: an attribute of the store from the start. A partial store is continued only
            if its ``"request"`` is the same.
        reread: called with (rows read again, rows to read again) while a partial store is opened.

    Raises:
        UserError: ``out`` exists, a task is unknown, the partial store belongs to another request
            or is damaged, or the disk is full or cannot be written. Every method can raise the
            last; the rows on the disk stay valid and can be continued.
    """

    def __init__(
        self,
        out: Path | str,
        tasks: Sequence[str],
        behaviours: Sequence[str],
        *,
        own: Own = NO_OWN,
        compress: bool = False,
        chunk_rows: int = CHUNK_ROWS,
        resume: bool = False,
        provenance: Attributes | None = None,
        reread: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.out, self.partial = Path(out), Path(f"{out}.partial")
        if self.out.exists():
            raise UserError("already exists", where=str(out), remedy="remove it, or choose another")
        self._tasks = tuple(name if name in own else task_name(name) for name in tasks)
        self._own = {name: own[name] for name in self._tasks if name in own}
        self._suite = suite_of(self._tasks, own)
        self.layout = layout_of(self._suite)
        self._behaviours = tuple(behaviours)
        self._chunk, self._hash = chunk_rows, ContentHash(self._tasks, self.layout)
        self._pending: dict[str, list[Array]] = {name: [] for name in self.layout.arrays}
        self._disk = partial(disk_errors, self.partial, intact="everything written before is kept")
        self._rewards = [0.0, 0.0]  # every episode's first reward is 0
        self._rows = self._written = self.episodes = self._episodes_written = 0
        # A kill can leave a store without its last arrays; then it has no rows either.
        files = (self.partial / name / "zarr.json" for name in self.layout.arrays)
        begun = all(file.exists() for file in files)
        with self._disk():
            if resume and begun:
                self._reopen(provenance or {}, reread)
            else:
                self._create(compress, provenance)

    def append(
        self,
        *,
        obs: NDArray[np.float32],
        action: NDArray[np.float32],
        reward: NDArray[np.float32],
        task: str,
        behaviour: str,
        terminated: bool = False,
    ) -> None:
        """Add an episode of T rows: obs [T, O or less], action [T, A or less], reward [T].

        Row 0's action and reward are filler and are written as 0. ``terminated``: whether the last
        row is a terminal state.

        Raises:
            UserError: widths, lengths or names that do not fit, or unfit values (`worst`).
        """
        where = f"{self.out}, episode {self.episodes}"
        rows = {"data/obs": _pad(obs, self.layout.obs_width, f"{where}, obs")}
        rows["data/action"] = _pad(action, self.layout.action_width, f"{where}, action")
        rows["data/reward"] = np.array(reward, np.float32)
        rows["data/action"][:1], rows["data/reward"][:1] = 0.0, 0.0
        length = len(rows["data/obs"])
        for name, values in rows.items():
            if len(values) != length or length < 2 or rows["data/reward"].ndim != 1:
                raise UserError(
                    f"{name} has shape {values.shape} for {length} observations (at least 2)",
                    where=where,
                )
            if found := worst(name, values):
                raise UserError(f"{name} has {found[1]} in row {found[0]}", where=where)
        for word, known in ((task, self._tasks), (behaviour, self._behaviours)):
            if word not in known:
                raise UserError(f"{word!r} is not one of {', '.join(known)}", where=where)
        self.extend(
            *rows.values(),
            lengths=np.array([length]),
            task=np.array([self._tasks.index(task)]),
            behaviour=np.array([self._behaviours.index(behaviour)]),
            terminated=np.array([terminated]),
        )

    def extend(
        self,
        obs: NDArray[np.float32],
        action: NDArray[np.float32],
        reward: NDArray[np.float32],
        *,
        lengths: Array,
        task: Array,
        behaviour: Array,
        terminated: Array,
    ) -> None:
        """Add K episodes with R rows in total, already in the store's form and not checked again.

        obs [R, O], action [R, A], reward [R]; lengths [K] with sum R; task [K] and behaviour [K],
        indices into the writer's names; terminated [K], whether the last row is a terminal state.

        Raises:
            UserError: an episode of MT30 terminated.
        """
        if np.any(terminated) and TERMINATED not in self._pending:
            what, remedy = "an episode terminated, but those of MT30 never do", "correct the data"
            raise UserError(what, where=str(self.out), remedy=remedy)
        for name, values in zip(DATA_ARRAYS, (obs, action, reward), strict=True):
            self._hash.update(name, values)
            self._pending[name].append(values)
        self._saw(reward)
        ends = self._rows + np.cumsum(lengths)
        meta = dict(zip(META_ARRAYS, (task, behaviour, ends), strict=True)) | {
            TERMINATED: terminated
        }
        for name in self.layout.meta_arrays:
            self._pending[name].append(np.asarray(meta[name], self.layout.arrays[name][0]))
        self._rows += len(reward)
        self.episodes += len(lengths)
        if self._rows - self._written >= self._chunk:
            with self._disk():
                self._flush(self._rows // self._chunk * self._chunk)

    def finish(self, attributes: Attributes | None = None) -> Path:
        """Write the pending rows and the attributes, then rename; return the store's folder."""
        with self._disk():
            self._flush(self._rows)
            meta = {name: self._values(name) for name in self.layout.meta_arrays}
            task, _, ends = (meta[name] for name in META_ARRAYS)
            self._group.attrs.update(
                {
                    **(attributes or {}),
                    "id": self._hash.id(meta),
                    REWARDS: self._rewards,
                    **counts(self._tasks, task, ends),
                    "complete": True,
                }
            )
            self._group.attrs[SEAL] = seal(self.partial)
            fsync_path(self.partial / "zarr.json")
            os.replace(self.partial, self.out)
            fsync_path(self.out.parent)
        return self.out

    def _create(self, compress: bool, provenance: Attributes | None) -> None:
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        self._group = zarr.open_group(self.partial, mode="w", zarr_format=3)
        infos = [self._suite[name] for name in self._tasks]
        repeats = {info.action_repeat for info in infos}
        tables = {name: plain(definition) for name, definition in self._own.items()}
        self._group.attrs.update(
            {
                "format": FORMAT,
                "format_version": self.layout.version,
                "complete": False,
                "tasks": list(self._tasks),
                "behaviours": list(self._behaviours),
                "obs_width": self.layout.obs_width,
                "action_width": self.layout.action_width,
                "obs_dims": [i.obs_dim for i in infos],
                "action_dims": [i.action_dim for i in infos],
                "action_repeat": repeats.pop() if len(repeats) == 1 else None,
                "split": _SPLIT_RULE,
                "fmbpo": fmbpo.__version__,
                **({"own_tasks": tables} if self.layout.version > 1 else {}),
                **({} if provenance is None else {"provenance": dict(provenance)}),
            }
        )
        for name, (dtype, columns, unit) in self.layout.arrays.items():
            length = self._chunk if unit == "rows" else _CHUNK_EPISODES
            self._group.create_array(
                name,
                shape=(0, columns) if columns else (0,),
                chunks=(length, columns) if columns else (length,),
                dtype=dtype,
                # Fill values, so that reading recognises values that were never written.
                fill_value={"float32": float("nan"), "bool": False}.get(dtype, -1),
                # Memory-mapped readers need every chunk to exist; episode numbers compress well.
                compressors=codec(dtype) if compress or unit == "episodes" else None,
                config={"write_empty_chunks": True},
            )

    def _reopen(self, provenance: Attributes, reread: Callable[[int, int], None]) -> None:
        self._group = zarr.open_group(self.partial, mode="r+", zarr_format=3)
        attributes: dict[str, Any] = dict(self._group.attrs)
        names = (attributes.get("tasks"), attributes.get("behaviours"))
        if names != (list(self._tasks), list(self._behaviours)):
            raise self._foreign("other tasks or behaviours")
        if attributes.get("provenance", {}).get("request") != provenance.get("request"):
            raise self._foreign("another request (other files, or other options)")
        for left in self.partial.rglob("*.partial"):  # files that a killed write left
            left.unlink()
        # The ends first: they are written last.
        meta = {name: self._values(name) for name in reversed(self.layout.meta_arrays)}
        ends = meta[ENDS]
        # A kill can leave rows and episodes without their ends, or ends with the fill value.
        whole = np.minimum.accumulate(np.diff(ends, prepend=np.int64(0)) > 0)
        count = min(int(whole.sum()), *map(len, meta.values()))
        self._chunk = self._array("data/obs").chunks[0]
        self.episodes = self._episodes_written = count
        self._rows = int(ends[count - 1]) if count else 0
        self._written = self._rows // self._chunk * self._chunk
        for start in range(0, self._rows, self._chunk):
            for name in DATA_ARRAYS:
                stop = min(start + self._chunk, self._rows)
                values = self._values(name, slice(start, stop))
                if len(values) < stop - start or not np.isfinite(values).all():
                    raise self._foreign(f"damaged rows (array {name}, from row {start})")
                self._hash.update(name, values)
                if name == "data/reward":
                    self._saw(values)
                if start >= self._written:
                    self._pending[name].append(values)
            reread(stop, self._rows)
        for name in self.layout.arrays:
            array = self._array(name)
            # Keep all rows until they are written again, since another kill may come first.
            array.resize((self._rows if name in DATA_ARRAYS else count, *array.shape[1:]))

    def _saw(self, reward: NDArray[np.float32]) -> None:
        """Widen the recorded range of rewards."""
        low, high = self._rewards
        self._rewards = [
            min(low, float(reward.min(initial=0.0))),
            max(high, float(reward.max(initial=0.0))),
        ]

    def _foreign(self, what: str) -> UserError:
        return UserError(
            f"there is already a partial store with {what} here",
            where=str(self.partial),
            remedy="finish it with the command that began it, or remove the folder",
        )

    def _flush(self, until: int) -> None:
        """Write the rows before ``until``, then the episodes that end by then."""
        for name in DATA_ARRAYS:
            rows = self._joined(name)
            self._extend(name, self._written, rows[: until - self._written])
            self._pending[name] = [rows[until - self._written :].copy()]  # frees the written rows
        self._written = until
        ends = self._joined(ENDS)
        count = int((ends <= until).sum())
        for name in self.layout.meta_arrays:  # the ends come last
            values = self._joined(name)
            self._extend(name, self._episodes_written, values[:count])
            self._pending[name] = [values[count:]]
        self._episodes_written += count

    def _extend(self, name: str, start: int, values: Array) -> None:
        if not len(values):
            return
        array, stop = self._array(name), start + len(values)
        array.resize((stop, *array.shape[1:]))
        array[start:] = values
        # Rows must be on the disk before the ends that count them.
        length = array.chunks[0]
        for number in range(start // length, -(-stop // length)):
            at = (str(number), *("0" for _ in array.shape[1:]))
            fsync_path(self.partial.joinpath(name, "c", *at))

    def _values(self, name: str, rows: slice = slice(None)) -> Array:
        try:
            return np.asarray(self._array(name)[rows])
        except OSError:
            raise
        except Exception as error:  # the codecs raise many kinds
            raise self._foreign(f"damaged rows (array {name}: {type(error).__name__})") from error

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self._group[name]
        assert isinstance(array, zarr.Array)
        return array.with_config({"write_empty_chunks": True})

    def _joined(self, name: str) -> Array:
        """All pending values of an array."""
        dtype, columns, _ = self.layout.arrays[name]
        empty = np.zeros((0, columns) if columns else (0,), dtype)
        return np.concatenate([empty, *self._pending[name]])


def codec(dtype: DTypeLike) -> BloscCodec:
    """The compression of arrays with this type."""
    size = np.dtype(dtype).itemsize
    return BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=size)


def _pad(values: Array, width: int, where: str) -> NDArray[np.float32]:
    values = np.asarray(values, np.float32)
    if values.ndim != 2 or values.shape[1] > width:
        raise UserError(f"shape {values.shape}, not [T, {width}] or narrower", where=where)
    return np.pad(values, ((0, 0), (0, width - values.shape[1])))
