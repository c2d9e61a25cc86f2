"""The import itself: what is needed, what is there already, and every episode once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

import fmbpo
from fmbpo.base.disk import check_disk
from fmbpo.base.files import disk_errors, remove_tree
from fmbpo.base.lock import RunLock
from fmbpo.base.text import bytes_text
from fmbpo.data.importing.files import (
    Block,
    Fingerprint,
    Source,
    find_files,
    fingerprint,
    unchanged,
)
from fmbpo.data.importing.npz import NpzFile
from fmbpo.data.importing.rows import TASKS, prepared
from fmbpo.data.importing.tdmpc2 import TdmpcFile
from fmbpo.data.store import open_store
from fmbpo.data.store_format import ROW_BYTES
from fmbpo.data.store_writer import CHUNK_ROWS, StoreWriter
from fmbpo.errors import UserError

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage, how much of it is done, and how much there is."""
CHECKING, REREADING, WRITING = "checking the files", "rows read again", "episodes"
"""The stages: of bytes, of rows and of episodes."""
BLOCK_ROWS = 2**20
"""Rows that are in memory at a time: 130 MB as the store holds them."""
_EPISODE = 11
_FIXED = 2**20
_OVERHEAD = 600_000_000  # torch, zarr, and the pieces that are being hashed and written
_COPIES = 5  # of a block: as in the file, prepared, pending, joined, on its way to the disk
_SAMPLE_ROWS = 2**16
BEHAVIOUR = "replay"
"""The name that imported episodes' behaviour gets: nothing is known of it."""
_KINDS: dict[str, tuple[Callable[[Path], Source], str]] = {
    "tdmpc2": (TdmpcFile, ".pt"),
    "npz": (NpzFile, ".npz"),
}


def import_files(
    kind: str,
    sources: Sequence[Path],
    out: Path,
    *,
    compress: bool = False,
    skip_other_tasks: bool = False,
    memory: int | None = None,
    progress: Progress = lambda stage, done, total: None,
    say: Callable[[str], None] = lambda line: None,
    block_rows: int = BLOCK_ROWS,
    chunk_rows: int = CHUNK_ROWS,
) -> Path:
    """Write the episodes of files, each once and in the files' order, into the store ``out``.

    Given again after an interruption, it continues and ends with the same bytes; a finished store
    of the same files is returned as it is. The store holds the tasks that occur, in MT30's order.

    Args:
        kind: ``"tdmpc2"`` or ``"npz"``, see the modules of that name.
        sources: files, or folders with such files.
        out: the store's folder.
        compress: see `StoreWriter`.
        skip_other_tasks: leave episodes of task ids out that MT30 has not, and count them.
        memory: free bytes, where that is known.
        progress: told how far each stage is.
        say: told what a person should know.
        block_rows: rows in memory at a time.
        chunk_rows: rows a chunk of the store.

    Raises:
        UserError: a file that is not what it should be, naming file, array, episode and row; too
            little memory or disk; a store or a partial store of something else at ``out``.
    """
    files = _opened(kind, sources, skip_other_tasks, progress)
    _check_lengths(files)
    request = {
        "kind": kind,
        "skip_other_tasks": skip_other_tasks,
        "compress": compress,
        "sources": [
            {"file": f.path.name, "bytes": f.print.size, "sha256": f.print.sha256} for f in files
        ],
    }
    if out.exists():
        found = open_store(out).attributes.get("provenance", {}).get("request")
        if found != request:
            raise UserError(
                "another data set is here already",
                where=str(out),
                remedy="choose another name, or remove the folder",
            )
        say(f"{out} has been made of these files already; nothing to do")
        return out
    ids = np.concatenate([f.ids for f in files])
    if not (ids >= 0).any():
        raise UserError("no episode of a task of MT30", where=str(files[0].path))
    tasks = [TASKS[i].name for i in np.unique(ids[ids >= 0])]
    rows = int(sum(f.lengths[f.ids >= 0].sum() for f in files))
    _check_memory(files, block_rows, memory)
    say(_disk(out, rows, int((ids >= 0).sum()), files[0].source if compress else None))
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = out.with_name(f".{out.name}.lock")
        held = RunLock(lock)
    try:
        with StoreWriter(
            out,
            tasks,
            [BEHAVIOUR],
            compress=compress,
            chunk_rows=chunk_rows,
            resume=True,
            provenance={
                "command": f"fmbpo data import-{kind}",
                "request": request,
                "fmbpo": fmbpo.__version__,
            },
            reread=lambda done, total: progress(REREADING, done, total),
        ) as writer:
            _write(writer, files, tasks, block_rows, progress)
            writer.finish({"source": kind, "sources": _manifest(files)})
    finally:
        lock.unlink(missing_ok=True)
        held.release()
    say(_summary(files, tasks))
    return out


@frozen(eq=False)
class _File:
    """A source with what the first pass found: ``ids`` [E] below 0 are left out."""

    source: Source
    print: Fingerprint
    ids: NDArray[Any]
    lengths: NDArray[Any]

    @property
    def path(self) -> Path:
        return self.source.path


def _opened(
    kind: str, sources: Sequence[Path], skip_other_tasks: bool, progress: Progress
) -> list[_File]:
    """All files, every one read once from end to end."""
    opener, ending = _KINDS[kind]
    opened = [opener(path) for path in find_files(sources, ending)]
    total, done, files = sum(s.path.stat().st_size for s in opened), 0, list[_File]()

    def step(size: int) -> None:
        nonlocal done
        done += size
        progress(CHECKING, done, total)

    by_content: dict[str, Path] = {}
    for source in opened:
        found = fingerprint(source.path, step)
        same = by_content.setdefault(found.sha256, source.path)
        if same != source.path:
            raise UserError(
                f"has the same content as {same}",
                where=str(source.path),
                remedy="give every file once",
            )
        ids, lengths = source.tasks(skip_other_tasks)
        files.append(_File(source, found, ids, lengths))
    return files


def _check_lengths(files: Sequence[_File]) -> None:
    """Where a data set's episodes are equally long, files of others do not belong to it."""
    first = files[0]
    for file in files:
        if file.source.equal_lengths and file.lengths[0] != first.lengths[0]:
            raise UserError(
                f"episodes of {int(file.lengths[0])} rows, but those of {first.path.name} have "
                f"{int(first.lengths[0])}",
                where=str(file.path),
                remedy="they are of different data sets: import each into a store of its own",
            )


def _check_memory(files: Sequence[_File], block_rows: int, free: int | None) -> None:
    longest = max(int(file.lengths.max()) for file in files)
    row = max(file.source.row_bytes for file in files)
    needed = (
        _OVERHEAD
        + max(block_rows, longest) * (row + _COPIES * ROW_BYTES)
        + 2 * CHUNK_ROWS * ROW_BYTES
    )
    if free is not None and needed > free:
        raise UserError(
            f"{bytes_text(needed)} of memory are needed, {bytes_text(free)} are free",
            where=str(files[0].path),
            remedy="end other programs, or use a machine with more memory",
        )


def _disk(out: Path, rows: int, episodes: int, sample: Source | None) -> str:
    """What the store needs and what is free, for people; UserError where it is too little.

    ``sample``: a file whose first rows are compressed to estimate how small the others become.
    """
    size, words = rows * ROW_BYTES + episodes * _EPISODE + _FIXED, ""
    if sample is not None:
        share = _compressed_share(sample)
        size, words = int(size * share), f" (estimated: its first rows pack to {share:.0%})"
    partial = Path(f"{out}.partial")
    there = sum(p.stat().st_size for p in partial.rglob("*") if p.is_file())
    return check_disk(max(size - there, 0), out, "--out", f" on the disk{words}")


def _compressed_share(source: Source) -> float:
    """Size of a compressed store of the first rows, over that of an uncompressed one."""
    block = prepared(next(source.blocks(0, _SAMPLE_ROWS)), str(source.path))
    if not len(block.reward):
        return 1.0
    with tempfile.TemporaryDirectory() as folder:
        writer = StoreWriter(Path(folder, "sample"), [t.name for t in TASKS], [BEHAVIOUR],
                             compress=True)  # fmt: skip
        _add(writer, block, np.arange(len(TASKS)))
        data = writer.finish() / "data"
        size = sum(p.stat().st_size for p in data.rglob("*") if p.is_file())
    return min(1.0, size / (len(block.reward) * ROW_BYTES))


def _add(writer: StoreWriter, block: Block, index: NDArray[Any]) -> None:
    """A prepared block; ``index`` [tasks of MT30]: each one's number in the store."""
    if len(block.lengths):
        writer.extend(
            block.obs,
            block.action,
            block.reward,
            lengths=block.lengths,
            task=index[block.task],
            behaviour=np.zeros(len(block.task)),
        )


def _write(
    writer: StoreWriter,
    files: Sequence[_File],
    tasks: Sequence[str],
    block_rows: int,
    progress: Progress,
) -> None:
    total = sum(int((file.ids >= 0).sum()) for file in files)
    index = np.array([tasks.index(t.name) if t.name in tasks else -1 for t in TASKS])
    before = writer.episodes  # of all files, in their order, those that are in the store
    progress(WRITING, before, total)
    for file in files:
        taken = np.flatnonzero(file.ids >= 0)
        if before >= len(taken):
            before -= len(taken)
            continue
        first, before = int(taken[before]), 0
        for block in file.source.blocks(first, block_rows):
            unchanged(file.path, file.print)
            try:
                block = prepared(block, str(file.path))
            except UserError:
                # A file with this in it is never imported: what was begun is of no use.
                remove_tree(writer.partial)
                raise
            _add(writer, block, index)
            progress(WRITING, writer.episodes, total)
    if writer.episodes != total:
        raise AssertionError(f"{writer.episodes} of {total} episodes written")


def _manifest(files: Sequence[_File]) -> list[dict[str, Any]]:
    """By file what it is, what was taken, and which episodes of the store that became."""
    found, first = [], 0
    for file in files:
        taken = int((file.ids >= 0).sum())
        found.append(
            {
                "file": file.path.name,
                "bytes": file.print.size,
                "sha256": file.print.sha256,
                "episodes": len(file.ids),
                "left_out": len(file.ids) - taken,
                "first_episode": first,
                "end_episode": first + taken,
                "arrays_ignored": list(file.source.ignored),
            }
        )
        first += taken
    return found


def _summary(files: Sequence[_File], tasks: Sequence[str]) -> str:
    left_out = sum(int((file.ids < 0).sum()) for file in files)
    taken = sum(len(file.ids) for file in files) - left_out
    absent = [task.name for task in TASKS if task.name not in tasks]
    parts = [f"{taken:,} episodes of {len(tasks)} tasks from {len(files)} files"]
    parts += [f"{left_out:,} of other tasks left out"] if left_out else []
    parts += [f"none of {', '.join(absent)}"] if 0 < len(absent) <= 10 else []
    ignored = sorted({name for file in files for name in file.source.ignored})
    parts += [f"arrays not used: {', '.join(ignored)}"] if ignored else []
    return "; ".join(parts)
