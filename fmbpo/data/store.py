"""The offline store: one Zarr v3 group per data set, with flat rows and separate episode ends.

`open_store` checks the structure and leaves the rows on disk; `verify` reads and checks them all.
`fmbpo.data.store_writer` writes stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from attrs import frozen
from numpy.typing import NDArray

from fmbpo.data.store_format import (
    DATA_ARRAYS,
    META_ARRAYS,
    SEAL,
    TERMINATED,
    Attributes,
    ContentHash,
    Layout,
    check_ends,
    check_index,
    check_manifest,
    check_values,
    damaged,
    digest,
    open_array,
    open_group,
    read,
    read_layout,
    seal,
    starts,
)
from fmbpo.errors import UserError

HELD_OUT_SHARE = 0.02
HELD_OUT_MIN = 4
_PIECE_ROWS = 2**24


@frozen(eq=False)
class Store:
    """An open store: structure checked, rows still on disk.

    Row t holds an observation and the action and reward that led to it; row 0 of an episode
    has action and reward 0. A slice must not cross episodes.

    Attributes:
        path: the store's folder.
        layout: its arrays.
        attributes: all attributes of the group.
        arrays: the Zarr arrays by name (``data/obs``, ...).
        episode_ends: [E] int64, exclusive end row of each episode.
        episode_task: [E] int16, index into ``tasks``.
        episode_behaviour: [E] int8, index into ``behaviours``.
        episode_terminated: [E] bool, whether the last row is a terminal state.
    """

    path: Path
    layout: Layout
    attributes: Attributes
    arrays: Mapping[str, zarr.Array[Any]]
    episode_ends: NDArray[np.int64]
    episode_task: NDArray[np.int16]
    episode_behaviour: NDArray[np.int8]
    episode_terminated: NDArray[np.bool_]

    @property
    def id(self) -> str:
        """The data set's id, a hash of its content (see `verify`)."""
        return str(self.attributes["id"])

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, indexed by ``episode_task``."""
        return tuple(self.attributes["tasks"])

    @property
    def behaviours(self) -> tuple[str, ...]:
        """Names of the behaviours, indexed by ``episode_behaviour``."""
        return tuple(self.attributes["behaviours"])

    @property
    def own_tasks(self) -> Mapping[str, Any]:
        """The tables ``[tasks.NAME]`` of the tasks that belong to no installed suite."""
        return dict(self.attributes.get("own_tasks", {}))

    @property
    def rows(self) -> int:
        """Number of rows N."""
        return int(self.arrays["data/reward"].shape[0])


def open_store(path: Path | str) -> Store:
    """Open a store and check its structure, but not the values of its rows.

    Raises:
        UserError: the store does not exist, has another or a newer format, or is incomplete; or
            an array is missing, of the wrong shape or type, truncated, or inconsistent.
    """
    path = Path(path)
    group = open_group(path)
    attributes: dict[str, Any] = dict(group.attrs)
    layout = read_layout(attributes, path)
    arrays = {name: open_array(group, name, layout, path) for name in layout.arrays}
    tasks, behaviours, ends = (read(arrays[name], name, path) for name in META_ARRAYS)
    terminated = np.zeros(len(ends), bool)
    if TERMINATED in arrays:
        terminated = read(arrays[TERMINATED], TERMINATED, path)
        if len(terminated) != len(ends):
            what = f"{len(terminated)} entries for {len(ends)} episodes"
            raise damaged(what, f"{path}, array {TERMINATED}")
    check_ends(ends, {name: arrays[name].shape[0] for name in DATA_ARRAYS}, path)
    check_index(tasks, len(ends), "meta/episode_task", attributes["tasks"], path)
    check_index(behaviours, len(ends), "meta/episode_behaviour", attributes["behaviours"], path)
    return Store(path, layout, attributes, arrays, ends, tasks, behaviours, terminated)


def check_request(store: Store, request: Attributes) -> None:
    """UserError unless the store was made for this request (see its provenance)."""
    if store.attributes.get("provenance", {}).get("request") != request:
        raise UserError(
            "there is already another data set here",
            where=str(store.path),
            remedy="choose another name, or remove the folder",
        )


def held_out(store: Store) -> NDArray[np.bool_]:
    """[E] whether an episode is held out from training; fixed by the data set's id.

    Of each task's E_t episodes, the ``max(4, floor(E_t / 50))`` with the smallest SHA-256 of
    ``"<data-set id>/<episode index>"``, but never more than half: ``floor(E_t / 2)``. A task's only
    episode is trained on.
    """
    chosen = np.zeros(len(store.episode_ends), bool)
    for task in np.unique(store.episode_task):
        episodes = np.flatnonzero(store.episode_task == task)
        count = max(HELD_OUT_MIN, int(len(episodes) * HELD_OUT_SHARE))
        ranked = sorted(episodes, key=lambda e: digest(f"{store.id}/{int(e)}"))
        chosen[ranked[: min(count, len(episodes) // 2)]] = True
    return chosen


def verify(
    path: Path | str, progress: Callable[[int, int], None] = lambda done, total: None
) -> str:
    """Read every row, one chunk at a time, compare the content with the id, and return the id.

    All values must be fit (`worst`). The metadata must match their seal (old stores have none), and
    their counts of rows and episodes, by task and by source file, must match the arrays.
    ``progress`` is called with (bytes read, all bytes).

    Raises:
        UserError: as `open_store`, for unfit values, and if the content has changed
            since the store was written.
    """
    store = open_store(path)
    if SEAL in store.attributes and seal(store.path) != store.attributes[SEAL]:
        what = "the metadata (a zarr.json) have changed since the store was written"
        raise damaged(what, str(store.path))
    check_manifest(store.attributes, store.episode_task, store.episode_ends, store.path)
    hasher = ContentHash(store.tasks, store.layout)
    done, total = 0, sum(store.arrays[name].nbytes for name in DATA_ARRAYS)
    for name in DATA_ARRAYS:
        array = store.arrays[name]
        for start in range(0, store.rows, array.chunks[0]):
            values = read(array, name, store.path, slice(start, start + array.chunks[0]))
            check_values(values, start, name, store.episode_ends, store.path)
            hasher.update(name, values)
            done += values.nbytes
            progress(done, total)
    found = hasher.id({n: read(store.arrays[n], n, store.path) for n in store.layout.meta_arrays})
    if found != store.id:
        what = f"the content has changed since the store was written (id {store.id}, found {found})"
        raise damaged(what, str(store.path))
    return found


def info(path: Path | str) -> dict[str, Any]:
    """Rows, episodes and mean returns by task and behaviour, rewards' range, provenance of a store.

    Raises `UserError` as `open_store` does.
    """
    store = open_store(path)
    returns, low, high = _returns(store)
    episodes: dict[str, dict[str, int]] = {}
    means: dict[str, dict[str, float]] = {}
    terminated: dict[str, int] = {}
    for t, task in enumerate(store.tasks):
        of_task = store.episode_task == t
        episodes[task] = {"all": int(of_task.sum())}
        terminated[task] = int((of_task & store.episode_terminated).sum())
        means[task] = {}
        for b, behaviour in enumerate(store.behaviours):
            which = of_task & (store.episode_behaviour == b)
            if which.any():
                episodes[task][behaviour] = int(which.sum())
                means[task][behaviour] = float(returns[which].mean())
    return {
        "path": str(store.path),
        "id": store.id,
        "rows": store.rows,
        "episodes": episodes,
        "mean_return": means,
        **({"terminated": terminated} if TERMINATED in store.arrays else {}),
        "rewards": [low, high],
        "held_out": int(held_out(store).sum()),
        "sources": store.attributes.get("sources", []),
        "bytes": sum(p.stat().st_size for p in store.path.rglob("*") if p.is_file()),
        "provenance": store.attributes.get("provenance", {}),
    }


def _returns(store: Store) -> tuple[NDArray[np.float64], float, float]:
    """[E] sum of each episode's rewards; the smallest and the largest reward.

    One piece of the rewards is in memory at a time.
    """
    ends = store.episode_ends
    first, returns = starts(ends), np.zeros(len(ends))
    at, low, high = 0, 0.0, 0.0  # every episode's first reward is 0
    while at < len(ends):
        stop = max(at + 1, int(np.searchsorted(ends, first[at] + _PIECE_ROWS, side="right")))
        rows = slice(int(first[at]), int(ends[stop - 1]))
        reward = read(store.arrays["data/reward"], "data/reward", store.path, rows)
        returns[at:stop] = np.add.reduceat(reward.astype(np.float64), first[at:stop] - rows.start)
        low, high = min(low, float(reward.min())), max(high, float(reward.max()))
        at = stop
    return returns, low, high
