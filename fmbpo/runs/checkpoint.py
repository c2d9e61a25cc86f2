"""Checkpoints: folders of plain files that are complete at every instant.

========================= =========================================================================
``manifest.json``         format, kind, step, versions, resolved configuration, data-set id,
                          protocol; size and SHA-256 of the other files
``weights.safetensors``   the networks' parameters and buffers
``state.safetensors``     the tensors of the training state (optimisers, normalisers, generators)
``state.json``            the rest of the training state; both are absent where there is none
========================= =========================================================================

Saving writes ``.NAME.partial`` beside the folder and fsyncs it; then ``NAME`` becomes
``.NAME.previous``, the partial one becomes ``NAME``, and the previous one is removed. A kill leaves
an intact checkpoint under ``NAME`` or, between the two renames, under ``.NAME.previous``; loading
looks at both, the next save tidies up. One process at a time may write a checkpoint (a run's lock
sees to that); any number may read.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from fmbpo.base.files import disk_errors, fsync_path, remove_tree
from fmbpo.errors import UserError
from fmbpo.runs.checkpoint_files import FORMAT as FORMAT
from fmbpo.runs.checkpoint_files import Reader, Vanished, write_files

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")


@attrs.frozen
class Checkpoint:
    """A loaded checkpoint: weights on the device asked for, the state's tensors on the CPU.

    Optimisers move their state to their parameters themselves, and generator states must be on the
    CPU. ``state`` is None where none was saved or asked for.
    """

    manifest: dict[str, Any]
    weights: dict[str, Tensor]
    state: Any


def save_checkpoint(
    folder: Path,
    *,
    manifest: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    state: object | None,
) -> None:
    """Write a checkpoint, replacing an older one of the same name in one step.

    ``manifest`` holds at least ``kind`` and ``step`` and is JSON; ``format``, ``files`` and
    ``sha256`` are added. ``state`` is what ``fmbpo.runs.tree.flatten`` knows.

    Raises ``UserError`` when the disk is full or the folder may not be written; the checkpoint
    that was there is then untouched. Raises ``TypeError`` for a state that cannot be saved.
    """
    missing = {"kind", "step"} - set(manifest)
    if missing:
        raise ValueError(f"the manifest of a checkpoint lacks {sorted(missing)}")
    partial, previous = _aside(folder)
    with disk_errors(folder, intact="the last checkpoint is intact"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        recover_checkpoint(folder)
        try:
            partial.mkdir()
            write_files(partial, manifest, weights, state)
            fsync_path(partial)
        except BaseException:
            remove_tree(partial)
            raise
        if folder.exists():
            os.rename(folder, previous)
        os.rename(partial, folder)
        fsync_path(folder.parent)
    remove_tree(previous)


def load_checkpoint(
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    with_state: bool = True,
    expect_kind: str | None = None,
) -> Checkpoint:
    """Read a checkpoint and check every byte of it against the manifest.

    Raises ``UserError`` when it is missing, incomplete, corrupt, of a newer format, or of another
    kind than ``expect_kind``.
    """

    def read(reader: Reader) -> Checkpoint:
        manifest = reader.manifest(expect_kind)
        weights = reader.weights(manifest)
        state = reader.state(manifest) if with_state else None
        return Checkpoint(manifest, {k: weights[k].to(device) for k in sorted(weights)}, state)

    return _retried(folder, read)


def weights_sha256(folder: Path) -> str:
    """The SHA-256 of a checkpoint's weights, from its manifest."""
    digest: str = read_manifest(folder)["files"]["weights.safetensors"]["sha256"]
    return digest


def read_manifest(folder: Path) -> dict[str, Any]:
    """A checkpoint's manifest alone, checked; the other files are not opened.

    Raises ``UserError`` as ``load_checkpoint`` does.
    """
    return _retried(folder, Reader.manifest)


def checkpoint_exists(folder: Path) -> bool:
    """Whether there is something to load under this name, the backup name included."""
    return folder.exists() or _aside(folder)[1].exists()


def list_checkpoints(parent: Path) -> list[Path]:
    """The checkpoints in a folder by name, those included that a killed save left as backups."""
    if not parent.is_dir():
        return []
    names = set()
    for entry in parent.iterdir():
        backup = re.fullmatch(r"\.(.+)\.previous", entry.name)
        if backup:
            names.add(backup[1])
        elif entry.is_dir() and not entry.name.startswith("."):
            names.add(entry.name)
    return [parent / name for name in sorted(names)]


def leftovers(parent: Path) -> list[Path]:
    """What killed saves left in a folder of checkpoints, and no reader needs."""
    found = []
    for entry in sorted(parent.glob(".*")):
        partial, previous = (
            re.fullmatch(rf"\.(.+)\.{kind}", entry.name) for kind in ("partial", "previous")
        )
        if partial or (previous and (parent / previous[1]).exists()):
            found.append(entry)
    return found


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint; killed in between, it is there whole or not at all."""
    recover_checkpoint(folder)
    partial, _ = _aside(folder)
    if folder.exists():
        os.rename(folder, partial)
    remove_tree(partial)


def recover_checkpoint(folder: Path) -> None:
    """Finish what a killed save began. For the one process that writes this checkpoint."""
    partial, previous = _aside(folder)
    remove_tree(partial)
    if previous.exists():
        if folder.exists():
            remove_tree(previous)
        else:
            os.rename(previous, folder)


def _aside(folder: Path) -> tuple[Path, Path]:
    return (
        folder.with_name(f".{folder.name}.partial"),
        folder.with_name(f".{folder.name}.previous"),
    )


def _retried(folder: Path, read: Callable[[Reader], T]) -> T:
    """Read under the folder's name or its backup's, again if a save swaps them meanwhile."""
    for attempt in range(6):
        previous = _aside(folder)[1]
        place = folder if folder.exists() or not previous.exists() else previous
        try:
            with Reader(place) as reader:
                return read(reader)
        except Vanished as error:
            failure = error
        time.sleep(0.02 * attempt)
    raise UserError(failure.what, where=str(folder), remedy=failure.remedy)
