"""Writing the offline store: whole chunks at a time, and never half an episode."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

import fmbpo
from fmbpo.data.store_format import DATA_ARRAYS, FORMAT, FORMAT_VERSION, LAYOUT, ContentHash
from fmbpo.errors import UserError
from fmbpo.tasks.mt30 import ACTION_WIDTH, OBS_WIDTH, task_info

CHUNK_ROWS = 262_144
_CHUNK_EPISODES = 65_536
_SPLIT_RULE = "per task max(2, floor(2 %)) episodes with the smallest sha256('<id>/<episode>')"


class StoreWriter:
    """Appends episodes to ``<out>.partial`` and renames it to ``out`` when finished.

    Rows go to disk in whole chunks, then the episodes that lie wholly within them, their ends
    last. With ``resume``, a partial store continues after its last whole episode, which
    `episodes` counts; the result is the same as without an interruption.

    Args:
        out: folder of the finished store; must not exist.
        tasks: task names.
        behaviours: names of behaviours (at most 127).
        compress: Blosc (zstd, byte shuffle); good for small stores that are loaded whole. Without
            it, chunks can be memory-mapped.
        chunk_rows: rows a chunk.
        resume: continue a partial store of the same kind where there is one.

    Raises:
        UserError: ``out`` exists, or a task is unknown.
    """

    def __init__(
        self,
        out: Path | str,
        tasks: Sequence[str],
        behaviours: Sequence[str],
        *,
        compress: bool = False,
        chunk_rows: int = CHUNK_ROWS,
        resume: bool = False,
    ) -> None:
        self.out, self.partial = Path(out), Path(f"{out}.partial")
        if self.out.exists():
            raise UserError("exists already", where=str(out), remedy="remove it, or choose another")
        self._tasks = tuple(task_info(name).name for name in tasks)
        self._behaviours = tuple(behaviours)
        self._chunk, self._hash = chunk_rows, ContentHash(self._tasks)
        self._pending: dict[str, list[NDArray[Any]]] = {name: [] for name in LAYOUT}
        self._rows = self._written = self.episodes = self._episodes_written = 0
        if resume and (self.partial / "zarr.json").exists():
            self._reopen()
        else:
            self._create(compress)

    def append(
        self,
        *,
        obs: NDArray[np.float32],
        action: NDArray[np.float32],
        reward: NDArray[np.float32],
        task: str,
        behaviour: str,
    ) -> None:
        """Add an episode of T rows: obs [T, <=24], action [T, <=6], reward [T].

        Row 0's action and reward are filler and are written as 0.

        Raises:
            UserError: widths, lengths or names that do not fit, or values not finite.
        """
        where = f"{self.out}, episode {self.episodes}"
        rows = {"data/obs": _pad(obs, OBS_WIDTH, f"{where}, obs")}
        rows["data/action"] = _pad(action, ACTION_WIDTH, f"{where}, action")
        rows["data/reward"] = np.array(reward, np.float32)
        rows["data/action"][:1], rows["data/reward"][:1] = 0.0, 0.0
        length = len(rows["data/obs"])
        for name, values in rows.items():
            if len(values) != length or length < 2 or rows["data/reward"].ndim != 1:
                raise UserError(
                    f"{name} has shape {values.shape} beside {length} observations (at least 2)",
                    where=where,
                )
            if not np.isfinite(values).all():
                raise UserError(f"{name} has a value that is not finite", where=where)
        for word, known in ((task, self._tasks), (behaviour, self._behaviours)):
            if word not in known:
                raise UserError(f"{word!r} is not one of {', '.join(known)}", where=where)
        for name, values in rows.items():
            self._hash.update(name, values)
            self._pending[name].append(values)
        self._rows += length
        self.episodes += 1
        self._note(self._tasks.index(task), self._behaviours.index(behaviour), self._rows)
        if self._rows - self._written >= self._chunk:
            self._flush(self._rows // self._chunk * self._chunk)

    def finish(self, attributes: Mapping[str, Any] | None = None) -> Path:
        """Write what is pending and the attributes, then rename; returns the store's folder."""
        self._flush(self._rows)
        meta = {name: self._values(name) for name in LAYOUT if name.startswith("meta/")}
        task, behaviour = meta["meta/episode_task"], meta["meta/episode_behaviour"]
        content = self._hash.id(task, behaviour, meta["meta/episode_ends"])
        self._group.attrs.update(
            {
                **(attributes or {}),
                "id": content,
                "rows": self._rows,
                "episodes_per_task": {
                    name: int((task == i).sum()) for i, name in enumerate(self._tasks)
                },
                "complete": True,
            }
        )
        os.replace(self.partial, self.out)
        return self.out

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to release: an unfinished store stays partial."""

    def _create(self, compress: bool) -> None:
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        self._group = zarr.open_group(self.partial, mode="w", zarr_format=3)
        infos = [task_info(name) for name in self._tasks]
        self._group.attrs.update(
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "complete": False,
                "tasks": list(self._tasks),
                "behaviours": list(self._behaviours),
                "obs_width": OBS_WIDTH,
                "action_width": ACTION_WIDTH,
                "obs_dims": [i.obs_dim for i in infos],
                "action_dims": [i.action_dim for i in infos],
                "action_repeat": 2,
                "split": _SPLIT_RULE,
                "fmbpo": fmbpo.__version__,
            }
        )
        for name, (dtype, columns, unit) in LAYOUT.items():
            length = self._chunk if unit == "rows" else _CHUNK_EPISODES
            size = np.dtype(dtype).itemsize
            codec = BloscCodec(cname="zstd", clevel=9, shuffle="shuffle", typesize=size)
            self._group.create_array(
                name,
                shape=(0, columns) if columns else (0,),
                chunks=(length, columns) if columns else (length,),
                dtype=dtype,
                # What was never written is recognised when it is read.
                fill_value=float("nan") if dtype == "float32" else -1,
                # Memory-mapped readers want every chunk there; episode numbers pack well.
                compressors=codec if compress or unit == "episodes" else None,
                config={"write_empty_chunks": True},
            )

    def _reopen(self) -> None:
        self._group = zarr.open_group(self.partial, mode="r+", zarr_format=3)
        names = (self._group.attrs.get("tasks"), self._group.attrs.get("behaviours"))
        if names != (list(self._tasks), list(self._behaviours)):
            raise UserError(
                "a partial store of other tasks or behaviours is here",
                where=str(self.partial),
                remedy="finish that one, or remove the folder",
            )
        meta = {n: self._values(n) for n in reversed(LAYOUT) if n.startswith("meta/")}
        ends = meta["meta/episode_ends"]
        # A kill can leave rows and episodes without their ends, or ends still of the fill value.
        whole = np.minimum.accumulate(np.diff(ends, prepend=np.int64(0)) > 0)
        count = min(int(whole.sum()), *(len(values) for values in meta.values()))
        self._chunk = self._array("data/obs").chunks[0]
        self.episodes = self._episodes_written = count
        self._rows = int(ends[count - 1]) if count else 0
        self._written = self._rows // self._chunk * self._chunk
        for name in LAYOUT:
            array = self._array(name)
            if name in DATA_ARRAYS:
                for start in range(0, self._rows, self._chunk):
                    values = np.asarray(array[start : min(start + self._chunk, self._rows)])
                    self._hash.update(name, values)
                    if start >= self._written:
                        self._pending[name].append(values)
                array.resize((self._written, *array.shape[1:]))
            else:
                array.resize((count,))

    def _note(self, task: int, behaviour: int, end: int) -> None:
        for name, value in (
            ("meta/episode_task", task),
            ("meta/episode_behaviour", behaviour),
            ("meta/episode_ends", end),
        ):
            self._pending[name].append(np.array([value], LAYOUT[name][0]))

    def _flush(self, until: int) -> None:
        """Write the rows before ``until``, then the episodes that end by then."""
        for name in DATA_ARRAYS:
            rows = _joined(self._pending[name], LAYOUT[name])
            self._extend(name, self._written, rows[: until - self._written])
            self._pending[name] = [rows[until - self._written :]]
        self._written = until
        ends = _joined(self._pending["meta/episode_ends"], LAYOUT["meta/episode_ends"])
        count = int((ends <= until).sum())
        for name in (n for n in LAYOUT if n.startswith("meta/")):  # the ends come last
            values = _joined(self._pending[name], LAYOUT[name])
            self._extend(name, self._episodes_written, values[:count])
            self._pending[name] = [values[count:]]
        self._episodes_written += count

    def _extend(self, name: str, start: int, values: NDArray[Any]) -> None:
        if len(values):
            array = self._array(name)
            array.resize((start + len(values), *array.shape[1:]))
            array[start:] = values

    def _values(self, name: str) -> NDArray[Any]:
        return np.asarray(self._array(name)[:])

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self._group[name]
        assert isinstance(array, zarr.Array)
        return array.with_config({"write_empty_chunks": True})


def _joined(pieces: Sequence[NDArray[Any]], layout: tuple[str, int, str]) -> NDArray[Any]:
    dtype, columns, _ = layout
    empty = np.zeros((0, columns) if columns else (0,), dtype)
    return np.concatenate([empty, *pieces])


def _pad(values: NDArray[Any], width: int, where: str) -> NDArray[np.float32]:
    values = np.asarray(values, np.float32)
    if values.ndim != 2 or values.shape[1] > width:
        raise UserError(f"shape {values.shape}, not [T, {width}] or narrower", where=where)
    return np.pad(values, ((0, 0), (0, width - values.shape[1])))
