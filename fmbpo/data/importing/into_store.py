"""The import: checks memory, disk and existing stores, then writes each episode once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import zarr
from attrs import frozen

import fmbpo
from fmbpo.base.files import check_disk, remove_tree
from fmbpo.base.lock import only_writer
from fmbpo.base.text import bytes_text
from fmbpo.data.importing.files import EpisodeFile, find_files
from fmbpo.data.importing.npz import NpzFile
from fmbpo.data.importing.rows import prepared
from fmbpo.data.importing.tdmpc2 import TdmpcFile
from fmbpo.data.store import check_request, open_store
from fmbpo.data.store_format import REWARDS, Layout, layout_of
from fmbpo.data.store_writer import CHUNK_ROWS, StoreWriter, codec
from fmbpo.errors import UserError
from fmbpo.tasks.known import NO_OWN, Own, everything, suite_of
from fmbpo.tasks.mt30 import SUITE
from fmbpo.tasks.suite import Suite

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage, the amount done, and the total amount."""
CHECKING, REREADING, WRITING = "checking the files", "rows read again", "episodes"
"""The stages, counted in bytes, rows and episodes."""
BLOCK_ROWS = 2**20
"""Rows in memory at a time: 130 MB of MT30's in the store's form."""
_EPISODE = 11
_FIXED = 2**20
_OVERHEAD = 600_000_000  # torch, zarr, and the pieces that are being hashed and written
_COPIES = 5  # of a block: as in the file, prepared, pending, joined, being written
_SAMPLE_ROWS = 2**16
_KINDS: dict[str, tuple[Callable[[Path, Suite], EpisodeFile], str]] = {
    "tdmpc2": (TdmpcFile, ".pt"),
    "npz": (NpzFile, ".npz"),
}


@frozen
class Import:
    """The files to import, and the options.

    Attributes:
        kind: ``"tdmpc2"`` or ``"npz"``, see the modules of that name.
        sources: files, or folders with such files.
        compress: see `StoreWriter`.
        skip_other_tasks: leave out, and count, the episodes of tasks outside the suite.
        action_scale: divides all actions.
        block_rows: rows in memory at a time.
        chunk_rows: rows per chunk of the store.
        suite: the tasks that the ids in TD-MPC2's files count.
        own: the definitions of tasks that belong to no installed suite.
    """

    kind: str
    sources: Sequence[Path]
    compress: bool = False
    skip_other_tasks: bool = False
    action_scale: float = 1.0
    block_rows: int = BLOCK_ROWS
    chunk_rows: int = CHUNK_ROWS
    suite: Suite = SUITE
    own: Own = NO_OWN


def import_files(
    asked: Import,
    out: Path,
    *,
    memory: int | None = None,
    progress: Progress = lambda stage, done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the episodes of files, each once and in the files' order, into the store ``out``.

    After an interruption, the same call continues and produces the same bytes; a finished store of
    the same files is left unchanged. The store has the tasks that occur, in the suite's order.

    Args:
        asked: the files and the options.
        out: the store's folder.
        memory: free memory in bytes, if known.
        progress: called with the progress of each stage.
        say: called with messages for the user.

    Raises:
        UserError: a file is bad (naming file, array, episode and row), memory or disk is too small,
            or ``out`` or its partial store has other content.
    """
    files = _opened(asked, progress)
    request = {
        "kind": asked.kind,
        "skip_other_tasks": asked.skip_other_tasks,
        "compress": asked.compress,
        "sources": [file.record for file in files],
        **({"action_scale": asked.action_scale} if asked.action_scale != 1 else {}),
        **({"suite": asked.suite.name} if asked.suite is not SUITE else {}),
    }
    if out.exists():
        check_request(open_store(out), request)
        say(f"{out} already holds exactly these files; nothing to do")
        return out
    ids = np.concatenate([file.ids[file.taken] for file in files])
    if not len(ids):
        what = f"no episode belongs to a task of {files[0].suite.name}"
        raise UserError(what, where=str(files[0].path))
    tasks = [files[0].suite.names[i] for i in np.unique(ids)]
    own = {name: asked.own[name] for name in tasks if name in asked.own}
    layout = layout_of(suite_of(tasks, own))
    rows = int(sum(file.lengths[file.taken].sum() for file in files))
    _check_memory(files, asked.block_rows, layout, memory)
    sample = files[0] if asked.compress else None
    say(_disk(out, rows, len(ids), layout, sample, asked.action_scale))
    with only_writer(out):
        writer = StoreWriter(
            out,
            tasks,
            ["replay"],  # the behaviour of imported episodes is unknown
            own=own,
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
        _write(writer, files, tasks, asked, progress)
        writer.finish({"source": asked.kind, "sources": _manifest(files)})
    say(_summary(files, tasks))
    low, high = open_store(out).attributes[REWARDS]
    if layout.version == 1 and max(-low, high - 2) > 1e-5:
        say(f"WARNING: rewards from {low:g} to {high:g}; the simulators' own lie in [0, 2]")
    return out


def _opened(asked: Import, progress: Progress) -> list[EpisodeFile]:
    """All files, each read once from end to end; UserError if they do not belong together."""
    opener, ending = _KINDS[asked.kind]
    suite = everything(asked.own) if asked.kind == "npz" else asked.suite
    files = [opener(path, suite) for path in find_files(asked.sources, ending)]
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
            what, remedy = f"has the same content as {same}", "give each file only once"
            raise UserError(what, where=str(file.path), remedy=remedy)
    first = files[0]
    for file in files:
        if file.equal_lengths and file.lengths[0] != first.lengths[0]:
            raise UserError(
                f"episodes of {int(file.lengths[0])} rows, but those of {first.path.name} have "
                f"{int(first.lengths[0])}, so they belong to different data sets",
                where=str(file.path),
                remedy="import each data set into its own store",
            )
    return files


def _check_memory(
    files: Sequence[EpisodeFile], block_rows: int, layout: Layout, free: int | None
) -> None:
    longest = max(int(file.lengths.max()) for file in files)
    row = max(file.row_bytes for file in files)
    blocks = max(block_rows, longest) * (row + _COPIES * layout.row_bytes)
    needed = _OVERHEAD + blocks + 2 * CHUNK_ROWS * layout.row_bytes
    if free is not None and needed > free:
        raise UserError(
            f"{bytes_text(needed)} of memory are needed, {bytes_text(free)} are free",
            where=str(files[0].path),
            remedy="end other programs, or use a machine with more memory",
        )


def _disk(
    out: Path,
    rows: int,
    episodes: int,
    layout: Layout,
    sample: EpisodeFile | None,
    action_scale: float,
) -> str:
    """A message about the needed and free disk space; UserError if it is too little.

    ``sample``: a file whose first rows are compressed to estimate the size of a compressed store.
    """
    size, words = rows * layout.row_bytes + episodes * _EPISODE + _FIXED, ""
    if sample is not None:
        share = _compressed_share(sample, layout, action_scale)
        size, words = int(size * share), f" (estimate: its first rows compress to {share:.0%})"
    partial = Path(f"{out}.partial")
    there = sum(p.stat().st_size for p in partial.rglob("*") if p.is_file())
    return check_disk(max(size - there, 0), out, "--out", f" on the disk{words}")


def _compressed_share(source: EpisodeFile, layout: Layout, action_scale: float) -> float:
    """Size of a compressed store of the first rows, relative to an uncompressed one."""
    block, where = next(source.blocks(0, _SAMPLE_ROWS)), str(source.path)
    block = prepared(block, where, source.suite, layout, action_scale)
    if not len(block.reward):
        return 1.0
    arrays = (block.obs, block.action, block.reward)
    packed = (zarr.create_array({}, data=a, compressors=codec(a.dtype)) for a in arrays)
    return min(1.0, sum(a.nbytes_stored() for a in packed) / sum(a.nbytes for a in arrays))


def _write(
    writer: StoreWriter,
    files: Sequence[EpisodeFile],
    tasks: Sequence[str],
    asked: Import,
    progress: Progress,
) -> None:
    total = sum(len(file.taken) for file in files)
    names = files[0].suite.names
    index = np.array([tasks.index(name) if name in tasks else -1 for name in names])
    before = writer.episodes  # the episodes that are already in the store
    progress(WRITING, before, total)
    for file in files:
        if before >= len(file.taken):
            before -= len(file.taken)
            continue
        first, before = int(file.taken[before]), 0
        for block in file.blocks(first, asked.block_rows):
            file.check_unchanged()
            try:
                block = prepared(
                    block, str(file.path), file.suite, writer.layout, asked.action_scale
                )
            except UserError:
                # A file with a bad value is never imported, so the partial store is useless.
                remove_tree(writer.partial)
                raise
            writer.extend(
                block.obs,
                block.action,
                block.reward,
                lengths=block.lengths,
                task=index[block.task],
                behaviour=np.zeros(len(block.task)),
                terminated=block.terminated,
            )
            progress(WRITING, writer.episodes, total)
    assert writer.episodes == total, f"{writer.episodes} of {total} episodes written"


def _manifest(files: Sequence[EpisodeFile]) -> list[dict[str, Any]]:
    """For each file: its record, the episodes imported, and their numbers in the store."""
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
    absent = [name for name in files[0].suite.names if name not in tasks]
    parts = [f"{taken:,} episodes of {len(tasks)} tasks from {len(files)} files"]
    parts += [f"{left_out:,} episodes of other tasks left out"] if left_out else []
    parts += [f"no episodes of {', '.join(absent)}"] if 0 < len(absent) <= 10 else []
    ignored = sorted({name for file in files for name in file.ignored})
    parts += [f"arrays not used: {', '.join(ignored)}"] if ignored else []
    return "; ".join(parts)
