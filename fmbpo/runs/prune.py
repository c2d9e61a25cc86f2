"""What complete runs keep and nobody needs: found, told, removed.

The rule. Of a complete run, and of no other, these go:

* of pretraining, every checkpoint but ``best``: policies begin with ``best``, and nothing continues
  a complete pretraining;
* what a killed process left: asides of files, and half-written or replaced checkpoints.

These stay: ``best``; the checkpoints of policies, training state included, since ``fmbpo run``
loads them to add an evaluation with the planner; records, summaries and pictures. A run counts as
complete when its summary can be read, nobody works on it, and, of pretraining, every byte of
``best`` is what its manifest says. Its lock is held while something is removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from fmbpo.base.files import asides, disk_errors, remove_tree
from fmbpo.base.lock import RunLock
from fmbpo.errors import UserError
from fmbpo.runs.checkpoint import (
    leftovers,
    list_checkpoints,
    load_checkpoint,
    remove_checkpoint,
)
from fmbpo.runs.folder import BEST, RunFolder
from fmbpo.runs.status import is_run, state_of
from fmbpo.runs.summary import Summary


@attrs.frozen
class Waste:
    """Something that can go: a checkpoint, a leftover folder or file; ``size`` in bytes."""

    path: Path
    why: str
    size: int


def find_waste(root: Path) -> Iterator[tuple[Path, list[Waste]]]:
    """Every complete run under ``root`` that has something to remove.

    Raises ``UserError`` where ``root`` cannot be listed.
    """
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and is_run(path))
    except OSError as error:
        raise UserError(
            f"cannot be listed ({error.strerror})", where=str(root), remedy="name it with --runs"
        ) from error
    for run in folders:
        found = waste_of(run)
        if found:
            yield run, found


def waste_of(run: Path) -> list[Waste]:
    """What can go of one run; nothing where it is not complete, or cannot be read."""
    try:
        return _found(run) if state_of(run)[0] == "completed" else []
    except (UserError, OSError):  # gone or damaged: not ours to touch
        return []


def remove(run: Path, wanted: Sequence[Waste]) -> list[Waste]:
    """Remove what was found, under the run's lock, and return it; what has changed stays.

    Raises ``UserError`` where someone works on the run by now, and where the folder may not be
    written.
    """
    with disk_errors(run):
        lock = RunLock(run / "run.lock")
    try:
        removed = []
        with disk_errors(run):
            for one in _found(run):
                if one not in wanted:
                    continue
                if one.path.name.startswith(".") and one.path.is_dir():
                    remove_tree(one.path)
                elif one.path.name.startswith("."):
                    one.path.unlink(missing_ok=True)
                else:
                    remove_checkpoint(one.path)
                removed.append(one)
        return removed
    finally:
        lock.release()


def _found(run: Path) -> list[Waste]:
    """The rule, but for the run's state."""
    summary = Summary.from_json(RunFolder.open(run).summary(), where=str(run))
    found = [_waste(path, "left by a killed process") for path in _left(run)]
    if summary.policy is None:
        load_checkpoint(run / "checkpoints" / BEST, with_state=False)
        found += [
            _waste(path, f"pretraining is complete: policies begin with {BEST!r}")
            for path in list_checkpoints(run / "checkpoints")
            if path.name != BEST
        ]
    return found


def _left(run: Path) -> Iterator[Path]:
    yield from asides(run)
    if (run / "checkpoints").is_dir():
        yield from leftovers(run / "checkpoints")


def _waste(path: Path, why: str) -> Waste:
    files = path.rglob("*") if path.is_dir() else [path]
    return Waste(path, why, sum(file.stat().st_size for file in files if file.is_file()))
