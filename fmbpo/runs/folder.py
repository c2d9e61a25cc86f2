"""A run's folder: its name identifies the computation, and one process at a time holds it.

================== ================================================================================
``config.json``    the resolved configuration; a resumed run must have the same
``origins.json``   which file or override each setting came from
``metrics.jsonl``  the metrics, byte-equal however often the run was interrupted
``checkpoints/``   see ``fmbpo.runs.checkpoint``
``summary.json``   the results; it exists if and only if the run is complete
``curves.png``     learning curves
``heartbeat.json`` the work of the run a moment ago; not part of the record
``failed.json``    why the run failed, or ``stopped.json``: who stopped it; see
                   ``fmbpo.runs.outcome``
``run.lock``       locked while a process works here
================== ================================================================================
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fmbpo.base.files import disk_errors, fsync_path, read_object, write_json
from fmbpo.base.lock import RunLock, holder_of, taken
from fmbpo.errors import UserError
from fmbpo.runs.heartbeat import Heartbeat, Pulse, beats_elsewhere, read_heartbeat
from fmbpo.runs.outcome import clear_outcome, write_outcome

_ABSENT = object()
BEST = "best"
"""Name of the checkpoint of a world model that scored best on held-out episodes."""


def run_name(experiment: str, cell: str, seeds: Sequence[int], config_hash: str) -> str:
    """``EXPERIMENT__CELL__SEEDS__HASH``, the name of a run's folder and of its W&B run.

    ``-`` joins ``seeds``; ``config_hash`` is cut to 10 characters. Raises ``ValueError`` for a part
    that a file name should not hold.
    """
    parts = [experiment, cell, "-".join(map(str, seeds)), config_hash[:10]]
    for part in parts:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*(_[A-Za-z0-9.+-]+)*", part):
            raise ValueError(f"{part!r} cannot be part of a run's name")
    return "__".join(parts)


def checkpoint_of(run: Path, stage: str) -> Path:
    """The checkpoint of a stage (``policies/0``) of the run in a folder, or its ``BEST``."""
    return run / "checkpoints" / stage.replace("/", "-")


class RunFolder:
    """One run's folder. ``create_or_resume`` locks it for this process, ``open`` only reads."""

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
        """Create ``root/name`` and lock it, or lock the one that an interrupted run left there.

        ``identifying`` picks the part of a configuration that must not change when a run
        continues.

        Raises ``UserError`` if another process works on the run, if the folder holds another
        configuration (naming the keys that differ) or anything but a run, and if it cannot be
        written.
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
            lock = RunLock(path / "run.lock")
        try:
            other = beats_elsewhere(path / "heartbeat.json")
            if other is not None:
                raise taken(path, other.writer)
            with disk_errors(path):
                _check_or_write_config(path, resolved_config, origins, identifying)
                (path / "checkpoints").mkdir(exist_ok=True)
        except BaseException:
            lock.release()
            raise
        return cls(path, lock)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run's folder for reading, whoever works on it.

        Raises ``UserError`` if there is no run in ``path``.
        """
        if not (path / "config.json").is_file():
            raise UserError("there is no run here", where=str(path))
        return cls(path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock; the end of the process does so too, however it ends."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def name(self) -> str:
        """The run's name (see ``run_name``)."""
        return self.path.name

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
        """The settings, and which file each came from."""
        return [self.path / name for name in ("config.json", "origins.json")]

    @property
    def is_complete(self) -> bool:
        """Whether ``summary.json`` has the run's results."""
        return (self.path / "summary.json").is_file()

    def config(self) -> dict[str, Any]:
        """The resolved configuration. Raises ``UserError`` if it cannot be read."""
        return read_object(self.path / "config.json")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the results in one step, which makes the run complete."""
        write_json(self.path / "summary.json", dict(summary))

    @contextmanager
    def at_work(self, hardware: str, stages: Mapping[str, Sequence[str]]) -> Iterator[None]:
        """Writes heartbeats inside the block, and after it a note of how the run ended.

        ``stages``: the cells (``task/seed``) that each stage trains. For the lock's holder.
        """
        with disk_errors(self.path):
            clear_outcome(self.path)
        try:
            with Pulse(self.path / "heartbeat.json", hardware, stages) as self._pulse:
                yield
        except BaseException as error:
            # A complete run cannot be stopped; it may fail, if something cannot be added to it.
            if isinstance(error, Exception) or not self.is_complete:
                write_outcome(self.path, error)
            raise
        finally:
            self._pulse = None

    def beat(self, stage: str, iteration: int, total: int, seconds: float) -> None:
        """Record how far the work has come (see ``Heartbeat``); nothing outside ``at_work``."""
        if self._pulse is not None:
            self._pulse.at(stage, iteration, total, seconds)

    def moved(self) -> None:
        """Record that the work goes on within an iteration."""
        if self._pulse is not None:
            self._pulse.moved()

    def heartbeat(self) -> Heartbeat | None:
        """The last heartbeat; None if there is none."""
        return read_heartbeat(self.path / "heartbeat.json")


def worker(path: Path, now: float | None = None) -> str:
    """The process that works on the run in a folder, ``process N on HOST``; empty if none does.

    Waits for nothing: the writer of a recent heartbeat on another host, which locks may not reach,
    counts as at work, though that process may be dead. ``now``: seconds since 1970.
    """
    if holder := holder_of(path / "run.lock"):
        return holder
    beat = read_heartbeat(path / "heartbeat.json")
    alive = beat is not None and beat.lives_elsewhere(time.time() if now is None else now)
    return beat.writer if beat is not None and alive else ""


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
                remedy="choose another output folder, or set these keys back",
            )
        return
    # Killed between making the folder and writing the configuration, or no run's folder at all.
    strange = [p.name for p in path.iterdir() if p.suffix != ".lock" and ".aside" not in p.name]
    if strange and strange != ["origins.json"]:
        raise UserError(
            f"the folder is not a run; it holds {', '.join(sorted(strange)[:5])}",
            where=str(path),
            remedy="move it away or choose another output folder",
        )
    write_json(path / "origins.json", dict(origins))
    write_json(file, config)


def differing_keys(old: Any, new: Any, path: str = "") -> list[str]:
    """Every key at which two JSON contents differ, as ``key.path: old -> new``."""
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
