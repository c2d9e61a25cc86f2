"""The import: checks needs and existing files, then writes every episode once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import zarr
from attrs import frozen

import fmbpo
from fmbpo.base.files import check_disk, disk_errors, remove_tree
from fmbpo.base.lock import RunLock
from fmbpo.base.text import bytes_text
from fmbpo.data.importing.files import EpisodeFile, find_files
from fmbpo.data.importing.npz import NpzFile
from fmbpo.data.importing.rows import TASKS, prepared
from fmbpo.data.importing.tdmpc2 import TdmpcFile
from fmbpo.data.store import check_request, open_store
from fmbpo.data.store_format import ROW_BYTES
from fmbpo.data.store_writer import CHUNK_ROWS, StoreWriter, codec
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
    say(_disk(out, rows, len(ids), files[0] if asked.compress else None))
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


def _opened(asked: Import, progress: Progress) -> list[EpisodeFile]:
    """All files, each read once from end to end."""
    opener, ending = _KINDS[asked.kind]
    files = [opener(path) for path in find_files(asked.sources, ending)]
    total, done = sum(file.path.stat().st_size for file in files), 0

    def step(size: int) -> None:
        nonlocal done
        done += size
        progress(CHECKING, done, total)

    by_content: dict[str, Path] = {}
    for file in files:
        file.scan(asked.skip_other_tasks, step)
        same = by_content.setdefault(file.sha256, file.path)
        if same != file.path:
            what, remedy = f"has the same content as {same}", "give every file once"
            raise UserError(what, where=str(file.path), remedy=remedy)
    return files


def _check_lengths(files: Sequence[EpisodeFile]) -> None:
    """UserError for files with episodes of another length, if a kind's must all be equal."""
    first = files[0]
    for file in files:
        if file.equal_lengths and file.lengths[0] != first.lengths[0]:
            raise UserError(
                f"episodes of {int(file.lengths[0])} rows, but those of {first.path.name} have "
                f"{int(first.lengths[0])}",
                where=str(file.path),
                remedy="they belong to different data sets: import each into its own store",
            )


def _check_memory(files: Sequence[EpisodeFile], block_rows: int, free: int | None) -> None:
    longest = max(int(file.lengths.max()) for file in files)
    row = max(file.row_bytes for file in files)
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
    arrays = (block.obs, block.action, block.reward)
    packed = (zarr.create_array({}, data=a, compressors=codec(a.dtype)) for a in arrays)
    return min(1.0, sum(a.nbytes_stored() for a in packed) / sum(a.nbytes for a in arrays))


def _write(
    writer: StoreWriter,
    files: Sequence[EpisodeFile],
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
        for block in file.blocks(first, block_rows):
            file.check_unchanged()
            try:
                block = prepared(block, str(file.path))
            except UserError:
                # A file with a bad value is never imported: the partial store is of no use.
                remove_tree(writer.partial)
                raise
            writer.extend(
                block.obs,
                block.action,
                block.reward,
                lengths=block.lengths,
                task=index[block.task],
                behaviour=np.zeros(len(block.task)),
            )
            progress(WRITING, writer.episodes, total)
    if writer.episodes != total:
        raise AssertionError(f"{writer.episodes} of {total} episodes written")


def _manifest(files: Sequence[EpisodeFile]) -> list[dict[str, Any]]:
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
                "arrays_ignored": list(file.ignored),
            }
        )
        first += taken
    return found


def _summary(files: Sequence[EpisodeFile], tasks: Sequence[str]) -> str:
    taken = sum(len(file.taken) for file in files)
    left_out = sum(len(file.ids) for file in files) - taken
    absent = [task.name for task in TASKS if task.name not in tasks]
    parts = [f"{taken:,} episodes of {len(tasks)} tasks from {len(files)} files"]
    parts += [f"{left_out:,} of other tasks left out"] if left_out else []
    parts += [f"none of {', '.join(absent)}"] if 0 < len(absent) <= 10 else []
    ignored = sorted({name for file in files for name in file.ignored})
    parts += [f"arrays not used: {', '.join(ignored)}"] if ignored else []
    return "; ".join(parts)
