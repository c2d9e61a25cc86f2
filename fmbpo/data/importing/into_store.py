"""The import: checks needs and existing files, then writes every episode once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from attrs import frozen

import fmbpo
from fmbpo.base.files import check_disk, disk_errors, remove_tree
from fmbpo.base.lock import RunLock
from fmbpo.base.text import bytes_text
from fmbpo.data.importing.files import (
    Block,
    EpisodeFile,
    Fingerprint,
    find_files,
    fingerprint,
    unchanged,
)
from fmbpo.data.importing.npz import NpzFile
from fmbpo.data.importing.rows import TASKS, prepared
from fmbpo.data.importing.tdmpc2 import TdmpcFile
from fmbpo.data.store import check_request, open_store
from fmbpo.data.store_format import ROW_BYTES, Array
from fmbpo.data.store_writer import CHUNK_ROWS, StoreWriter
from fmbpo.errors import UserError

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage, the amount that is done, and the whole amount."""
CHECKING, REREADING, WRITING = "checking the files", "rows read again", "episodes"
"""The stages, counted in bytes, in rows and in episodes."""
BLOCK_ROWS = 2**20
"""Rows in memory at a time: 130 MB in the store's form."""
_EPISODE = 11
_FIXED = 2**20
_OVERHEAD = 600_000_000  # torch, zarr, and the pieces that are being hashed and written
_COPIES = 5  # of a block: as in the file, prepared, pending, joined, on its way to the disk
_SAMPLE_ROWS = 2**16
BEHAVIOUR = "replay"
"""The behaviour of imported episodes, whose behaviour is unknown."""
_KINDS: dict[str, tuple[Callable[[Path], EpisodeFile], str]] = {
    "tdmpc2": (TdmpcFile, ".pt"),
    "npz": (NpzFile, ".npz"),
}


@frozen
class Import:
    """What to import, and how to store it.

    Attributes:
        kind: ``"tdmpc2"`` or ``"npz"``, see the modules of that name.
        sources: files, or folders with such files.
        compress: see `StoreWriter`.
        skip_other_tasks: leave out, and count, the episodes of tasks that MT30 does not have.
        block_rows: rows in memory at a time.
        chunk_rows: rows per chunk of the store.
    """

    kind: str
    sources: Sequence[Path]
    compress: bool = False
    skip_other_tasks: bool = False
    block_rows: int = BLOCK_ROWS
    chunk_rows: int = CHUNK_ROWS


def import_files(
    asked: Import,
    out: Path,
    *,
    memory: int | None = None,
    progress: Progress = lambda stage, done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the episodes of files, each once and in the files' order, into the store ``out``.

    The same call after an interruption continues and ends with the same bytes; a finished store
    of the same files is left as it is. The store holds the tasks that occur, in MT30's order.

    Args:
        asked: the files and the options.
        out: the store's folder.
        memory: free bytes, if known.
        progress: called with the progress of each stage.
        say: called with lines for people.

    Raises:
        UserError: a bad file (naming file, array, episode and row), too little memory or disk,
            or a store or partial store of something else at ``out``.
    """
    files = _opened(asked, progress)
    _check_lengths(files)
    request = {
        "kind": asked.kind,
        "skip_other_tasks": asked.skip_other_tasks,
        "compress": asked.compress,
        "sources": [file.record for file in files],
    }
    if out.exists():
        check_request(open_store(out), request)
        say(f"{out} already holds exactly these files; nothing to do")
        return out
    ids = np.concatenate([file.ids[file.taken] for file in files])
    if not len(ids):
        raise UserError("no episode of a task of MT30", where=str(files[0].path))
    tasks = [TASKS[i].name for i in np.unique(ids)]
    rows = int(sum(file.lengths[file.taken].sum() for file in files))
    _check_memory(files, asked.block_rows, memory)
    say(_disk(out, rows, len(ids), files[0].source if asked.compress else None))
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = out.with_name(f".{out.name}.lock")
        held = RunLock(lock)
    try:
        writer = StoreWriter(
            out,
            tasks,
            [BEHAVIOUR],
            compress=asked.compress,
            chunk_rows=asked.chunk_rows,
            resume=True,
            provenance={
                "command": f"fmbpo data import-{asked.kind}",
                "request": request,
                "fmbpo": fmbpo.__version__,
            },
            reread=lambda done, total: progress(REREADING, done, total),
        )
        _write(writer, files, tasks, asked.block_rows, progress)
        writer.finish({"source": asked.kind, "sources": _manifest(files)})
    finally:
        lock.unlink(missing_ok=True)
        held.release()
    say(_summary(files, tasks))
    return out


@frozen(eq=False)
class _Scanned:
    """A source after the first pass; episodes with ``ids`` [E] below 0 are left out."""

    source: EpisodeFile
    fingerprint: Fingerprint
    ids: Array
    lengths: Array

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def taken(self) -> Array:
        """Numbers of the episodes that are imported."""
        return np.flatnonzero(self.ids >= 0)

    @property
    def record(self) -> dict[str, Any]:
        """The file's content, for the store's attributes."""
        content = self.fingerprint
        return {"file": self.path.name, "bytes": content.size, "sha256": content.sha256}


def _opened(asked: Import, progress: Progress) -> list[_Scanned]:
    """All files, each read once from end to end."""
    opener, ending = _KINDS[asked.kind]
    opened = [opener(path) for path in find_files(asked.sources, ending)]
    total, done, files = sum(s.path.stat().st_size for s in opened), 0, list[_Scanned]()

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
        ids, lengths = source.tasks(asked.skip_other_tasks)
        files.append(_Scanned(source, found, ids, lengths))
    return files


def _check_lengths(files: Sequence[_Scanned]) -> None:
    """UserError for files with episodes of another length, if a kind's must all be equal."""
    first = files[0]
    for file in files:
        if file.source.equal_lengths and file.lengths[0] != first.lengths[0]:
            raise UserError(
                f"episodes of {int(file.lengths[0])} rows, but those of {first.path.name} have "
                f"{int(first.lengths[0])}",
                where=str(file.path),
                remedy="they belong to different data sets: import each into its own store",
            )


def _check_memory(files: Sequence[_Scanned], block_rows: int, free: int | None) -> None:
    longest = max(int(file.lengths.max()) for file in files)
    row = max(file.source.row_bytes for file in files)
    blocks = max(block_rows, longest) * (row + _COPIES * ROW_BYTES)
    needed = _OVERHEAD + blocks + 2 * CHUNK_ROWS * ROW_BYTES
    if free is not None and needed > free:
        raise UserError(
            f"{bytes_text(needed)} of memory are needed, {bytes_text(free)} are free",
            where=str(files[0].path),
            remedy="end other programs, or use a machine with more memory",
        )


def _disk(out: Path, rows: int, episodes: int, sample: EpisodeFile | None) -> str:
    """The disk space needed and free, for people; UserError if it is too little.

    ``sample``: a file whose first rows are compressed to estimate the size of a compressed store.
    """
    size, words = rows * ROW_BYTES + episodes * _EPISODE + _FIXED, ""
    if sample is not None:
        share = _compressed_share(sample)
        size, words = int(size * share), f" (estimated: its first rows pack to {share:.0%})"
    partial = Path(f"{out}.partial")
    there = sum(p.stat().st_size for p in partial.rglob("*") if p.is_file())
    return check_disk(max(size - there, 0), out, "--out", f" on the disk{words}")


def _compressed_share(source: EpisodeFile) -> float:
    """Size of a compressed store of the first rows, relative to an uncompressed one."""
    block = prepared(next(source.blocks(0, _SAMPLE_ROWS)), str(source.path))
    if not len(block.reward):
        return 1.0
    with tempfile.TemporaryDirectory() as folder:
        names, sample = [task.name for task in TASKS], Path(folder, "sample")
        writer = StoreWriter(sample, names, [BEHAVIOUR], compress=True)
        _add(writer, block, np.arange(len(TASKS)))
        data = writer.finish() / "data"
        size = sum(p.stat().st_size for p in data.rglob("*") if p.is_file())
    return min(1.0, size / (len(block.reward) * ROW_BYTES))


def _add(writer: StoreWriter, block: Block, index: Array) -> None:
    """Add a prepared block; ``index`` [tasks of MT30] is each task's number in the store."""
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
    files: Sequence[_Scanned],
    tasks: Sequence[str],
    block_rows: int,
    progress: Progress,
) -> None:
    total = sum(len(file.taken) for file in files)
    index = np.array([tasks.index(t.name) if t.name in tasks else -1 for t in TASKS])
    before = writer.episodes  # the first of all files' episodes are in the store already
    progress(WRITING, before, total)
    for file in files:
        if before >= len(file.taken):
            before -= len(file.taken)
            continue
        first, before = int(file.taken[before]), 0
        for block in file.source.blocks(first, block_rows):
            unchanged(file.path, file.fingerprint)
            try:
                block = prepared(block, str(file.path))
            except UserError:
                # A file with a bad value is never imported: the partial store is of no use.
                remove_tree(writer.partial)
                raise
            _add(writer, block, index)
            progress(WRITING, writer.episodes, total)
    if writer.episodes != total:
        raise AssertionError(f"{writer.episodes} of {total} episodes written")


def _manifest(files: Sequence[_Scanned]) -> list[dict[str, Any]]:
    """For each file its content, the episodes taken, and their numbers in the store."""
    found: list[dict[str, Any]] = []
    first = 0
    for file in files:
        taken = len(file.taken)
        found.append(
            {
                **file.record,
                "episodes": len(file.ids),
                "left_out": len(file.ids) - taken,
                "first_episode": first,
                "end_episode": first + taken,
                "arrays_ignored": list(file.source.ignored),
            }
        )
        first += taken
    return found


def _summary(files: Sequence[_Scanned], tasks: Sequence[str]) -> str:
    taken = sum(len(file.taken) for file in files)
    left_out = sum(len(file.ids) for file in files) - taken
    absent = [task.name for task in TASKS if task.name not in tasks]
    parts = [f"{taken:,} episodes of {len(tasks)} tasks from {len(files)} files"]
    parts += [f"{left_out:,} of other tasks left out"] if left_out else []
    parts += [f"none of {', '.join(absent)}"] if 0 < len(absent) <= 10 else []
    ignored = sorted({name for file in files for name in file.source.ignored})
    parts += [f"arrays not used: {', '.join(ignored)}"] if ignored else []
    return "; ".join(parts)
