"""A run's folder: its name identifies the computation, and one process at a time works in it.

================== ================================================================================
``config.json``    the resolved configuration; a resumed run must agree in the ``identifying`` keys
``origins.json``   the file or override of each setting
``metrics.jsonl``  the metrics, byte-identical however often the run was interrupted
``checkpoints/``   see ``fmbpo.runs.checkpoint``
``summary.json``   the results; it exists if and only if the run is complete
``curves.png``     learning curves
``heartbeat.json`` recent progress; not part of the record
``failed.json``    why the run failed, or ``stopped.json``: who stopped it; ``fmbpo.runs.outcome``
``run.lock``       locked while a process works here
================== ================================================================================
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fmbpo.base.files import disk_errors, fsync_path, read_object, write_json
from fmbpo.base.lock import RunLock, Taken, holder_of
from fmbpo.errors import UserError
from fmbpo.runs.heartbeat import Heartbeat, Pulse, beats_elsewhere, read_heartbeat
from fmbpo.runs.outcome import clear_outcome, write_outcome

_ABSENT = object()
_DEEPEST = ["x" * 100] * 5
"""At least as long as every path in a run's folder; W&B's are the longest."""
LONGEST = 128
"""Characters of a run's name: W&B takes no longer one, and file systems take 255."""
PART = r"[A-Za-z0-9][A-Za-z0-9.+-]*(_[A-Za-z0-9.+-]+)*"
"""A part of a run's name, which is part of file names."""
BEST = "best"
"""Name of the checkpoint of the world model with the best score on held-out episodes."""


def run_name(experiment: str, cell: str, seeds: Sequence[int], config_hash: str) -> str:
    """``EXPERIMENT__CELL__SEEDS__HASH``, the name of a run's folder and of its W&B run.

    ``-`` joins ``seeds``; if the name would be too long, their number replaces them (``60seeds``).
    ``config_hash`` is cut to 10 characters. Raises ``ValueError`` for a part that does not suit a
    file name, and for a name of more than ``LONGEST`` characters.
    """
    for seen in ("-".join(map(str, seeds)), f"{len(seeds)}seeds"):
        parts = [experiment, cell, seen, config_hash[:10]]
        for part in parts:
            if not re.fullmatch(PART, part):
                raise ValueError(f"{part!r} cannot be part of a run's name")
        name = "__".join(parts)
        if len(name) <= LONGEST:
            return name
    raise ValueError(f"{name!r} has more than {LONGEST} characters")


def check_place(path: Path) -> None:
    """Raise ``UserError`` if ``path`` cannot become, or continue as, the folder of a run.

    Nothing is written.
    """
    with disk_errors(path):
        with suppress(FileNotFoundError, NotADirectoryError):
            os.stat(path.joinpath(*_DEEPEST))
        for folder in (path, path / "checkpoints"):
            if folder.exists() and not folder.is_dir():
                raise FileExistsError(errno.EEXIST, "", str(folder))
            if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if path.exists():
            _check_is_run(path)


def checkpoint_of(run: Path, stage: str) -> Path:
    """The checkpoint of a stage (``policies/0``) of the run in a folder, or of ``BEST``."""
    return run / "checkpoints" / stage.replace("/", "-")


class RunFolder:
    """One run's folder. ``create_or_resume`` locks it for this process; ``open`` only reads."""

    def __init__(self, path: Path, lock: RunLock | None = None) -> None:
        self.path = path
        self._lock = lock
        self._pulse: Pulse | None = None

    @classmethod
    def create_or_resume(
        cls,
        root: Path,
        name: str,
        resolved_config: Mapping[str, Any],
        origins: Mapping[str, Any],
        identifying: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> RunFolder:
        """Create and lock ``root/name``, or lock the folder of an interrupted run.

        ``identifying`` picks the part of a configuration that a continued run must share. Raises
        ``Taken`` if another process works on the run, ``UserError`` if the folder holds another
        configuration (the message names the keys) or is not a run's, and if it is not writable.
        """
        path = root / name
        with disk_errors(path):
            root.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir()
                fsync_path(root)
            except FileExistsError:
                if not path.is_dir():
                    raise
            lock = RunLock(path / "run.lock", path)
        try:
            other = beats_elsewhere(path / "heartbeat.json")
            if other is not None:
                raise Taken(path, other.writer)
            with disk_errors(path):
                _check_or_write_config(path, resolved_config, origins, identifying)
                (path / "checkpoints").mkdir(exist_ok=True)
        except BaseException:
            lock.release()
            raise
        return cls(path, lock)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run's folder, for reading. ``UserError`` if there is no run in ``path``."""
        if not (path / "config.json").is_file():
            remedy = "name the folder of a run; `fmbpo status` lists them"
            raise UserError("there is no run here", where=str(path), remedy=remedy)
        return cls(path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock; so does the end of the process, however it ends."""
        if self._lock is not None:
            self._lock.release()

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The file of the ``JsonLines`` sink."""
        return self.path / "metrics.jsonl"

    @property
    def records(self) -> list[Path]:
        """The files of the settings and of their origins."""
        return [self.path / name for name in ("config.json", "origins.json")]

    @property
    def is_complete(self) -> bool:
        """Whether ``summary.json`` has the run's results."""
        return (self.path / "summary.json").is_file()

    def config(self) -> dict[str, Any]:
        """The resolved configuration. Raises ``UserError`` if it cannot be read."""
        return read_object(self.path / "config.json")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the results in one step; they complete the run."""
        write_json(self.path / "summary.json", dict(summary))

    @contextmanager
    def at_work(self, hardware: str, stages: Mapping[str, Sequence[str]]) -> Iterator[None]:
        """Write heartbeats inside the block and, if it raises, a note of the reason after it.

        ``stages``: the cells (``task/seed``) that each stage trains. Only for the lock's holder.
        """
        with disk_errors(self.path):
            clear_outcome(self.path)
        try:
            with Pulse(self.path / "heartbeat.json", hardware, stages) as self._pulse:
                yield
        except BaseException as error:
            # A complete run cannot be stopped, but adding something to it may fail.
            if isinstance(error, Exception) or not self.is_complete:
                write_outcome(self.path, error)
            raise
        finally:
            self._pulse = None

    def beat(self, stage: str, iteration: int, total: int, seconds: float) -> None:
        """Record progress (see ``Heartbeat``); does nothing outside ``at_work``."""
        if self._pulse is not None:
            self._pulse.at(stage, iteration, total, seconds)

    def moved(self) -> None:
        """Record progress within an iteration."""
        if self._pulse is not None:
            self._pulse.moved()

    def heartbeat(self) -> Heartbeat | None:
        """The last heartbeat; None if there is none."""
        return read_heartbeat(self.path / "heartbeat.json")


def worker(path: Path, now: float | None = None) -> str:
    """The process that works on the run in a folder, ``process N on HOST``; empty if there is none.

    Does not wait: the writer of a recent heartbeat on another host, which locks may not reach,
    counts even if it may be dead. ``now``: seconds since 1970.
    """
    if holder := holder_of(path / "run.lock"):
        return holder
    beat, now = read_heartbeat(path / "heartbeat.json"), time.time() if now is None else now
    return beat.writer if beat is not None and beat.lives_elsewhere(now) else ""


def _check_or_write_config(
    path: Path,
    resolved_config: Mapping[str, Any],
    origins: Mapping[str, Any],
    identifying: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    file = path / "config.json"
    config = json.loads(json.dumps(resolved_config))
    if file.exists():
        differing = differing_keys(identifying(read_object(file)), identifying(config))
        if differing:
            raise UserError(
                f"the run there has another configuration: {'; '.join(differing)}",
                where=str(file),
                remedy="choose another output folder, or restore these keys",
            )
        return
    _check_is_run(path)
    write_json(path / "origins.json", dict(origins))
    write_json(file, config)


def _check_is_run(path: Path) -> None:
    """Raise ``UserError`` for a folder with anything but a run, begun or about to begin."""
    if (path / "config.json").exists():
        read_object(path / "config.json")
        return
    # Killed between making the folder and writing the configuration, or not a run's folder.
    strange = [p.name for p in path.iterdir() if p.suffix != ".lock" and ".aside" not in p.name]
    if strange and strange != ["origins.json"]:
        raise UserError(
            f"the folder is not a run; it holds {', '.join(sorted(strange)[:5])}",
            where=str(path),
            remedy="move it away or choose another output folder",
        )


def differing_keys(old: Any, new: Any, path: str = "") -> list[str]:
    """The keys at which two JSON contents differ, as ``key.path: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            inner = f"{path}.{key}" if path else key
            found += differing_keys(old.get(key, _ABSENT), new.get(key, _ABSENT), inner)
        return found
    # As JSON text, since 1 == 1.0 == True and nan != nan in Python.
    before, now = ("absent" if x is _ABSENT else json.dumps(x) for x in (old, new))
    return [] if before == now else [f"{path}: {_short(before)} -> {_short(now)}"]


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
