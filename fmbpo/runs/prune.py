"""Finds and removes the files that complete runs no longer need.

Of complete runs only, it removes:

* of pretraining, every checkpoint except ``best``, with which policies begin;
* files that killed processes had begun to write (``fmbpo.base.files.asides``).

It keeps all other files: ``fmbpo run`` loads the checkpoints of policies, training state included,
to add an evaluation with the planner. A run counts as complete if its summary can be read, no
process works on it, and, of pretraining, ``best`` is intact. Its lock is held during the removal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from fmbpo.base.files import asides, disk_errors
from fmbpo.base.lock import RunLock
from fmbpo.errors import UserError
from fmbpo.runs.checkpoint import list_checkpoints, load_checkpoint
from fmbpo.runs.folder import BEST, RunFolder
from fmbpo.runs.status import folders_in, is_run, state_of
from fmbpo.runs.summary import Summary


@attrs.frozen
class Waste:
    """A file to remove, and the reason; ``size`` in bytes."""

    path: Path
    why: str
    size: int


def find_waste(root: Path) -> Iterator[tuple[Path, list[Waste]]]:
    """Every complete run under ``root`` with files to remove. Raises ``UserError`` if ``root``
    cannot be listed."""
    for run in filter(is_run, folders_in(root)):
        if found := waste_of(run):
            yield run, found


def waste_of(run: Path) -> list[Waste]:
    """The files of one run to remove; none if it is not complete or cannot be read."""
    try:
        return _found(run) if state_of(run) == "completed" else []
    except (UserError, OSError):  # gone or damaged: keep it
        return []


def remove(run: Path, wanted: Sequence[Waste]) -> list[Waste]:
    """Remove those of the wanted files that may still go, under the run's lock; returns them.

    Raises ``Taken`` if another process works on the run, ``UserError`` if the folder is not
    writable.
    """
    with disk_errors(run):
        lock = RunLock(run / "run.lock", run)
    try:
        found = [one for one in _found(run) if one in wanted]
        with disk_errors(run):
            for one in found:
                one.path.unlink(missing_ok=True)
        return found
    finally:
        lock.release()


def _found(run: Path) -> list[Waste]:
    """The files to remove if the run is complete."""
    folder = RunFolder.open(run)
    summary = Summary.of_run(folder)
    left = [*asides(run), *asides(folder.checkpoints)]
    found = [Waste(path, "left by a killed process", path.stat().st_size) for path in left]
    if summary.policy is None:
        why = f"pretraining is complete: policies begin with {BEST!r}"
        others = [file for file in list_checkpoints(folder.checkpoints) if file.stem != BEST]
        found += [Waste(file, why, file.stat().st_size) for file in others]
        if found:  # raises if the best is not intact
            load_checkpoint(folder.checkpoints / BEST, with_state=False)
    return found
