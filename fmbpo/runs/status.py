"""The registry: what the run folders under a root say, a row for each run, task and seed.

There is no other record. The process that works on a run writes its folder, each file in one step;
readers take no part, wait for nothing and take a folder as they find it, half-made, damaged or gone
the next moment.

The state of a run, from the first line that holds:

============= =====================================================================================
``stale``     its lock is held, but its work has not moved for ``heartbeat.STALLED`` seconds
``running``   its lock is held; or another host's heartbeat is within ``heartbeat.MISSED`` seconds
              of this host's clock, where locks may not reach across the shared disk
``completed`` ``summary.json`` is there
``failed``    ``failed.json`` is there, or the summary cannot be read
``stopped``   ``stopped.json`` is there
``stale``     none of these: it was killed, or its machine crashed
============= =====================================================================================

``queued`` are runs without a folder that the plan of a study names. On the host that wrote the
heartbeat the lock alone decides: it lives exactly as long as the process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs

from fmbpo.base.files import read_json
from fmbpo.base.lock import is_locked, this_process
from fmbpo.base.text import clock, one_line
from fmbpo.errors import UserError
from fmbpo.runs.heartbeat import Heartbeat, read_heartbeat
from fmbpo.runs.outcome import FAILED, STOPPED
from fmbpo.runs.plan import PLAN, PlannedRun, read_plan
from fmbpo.runs.summary import Summary

IMPORTED = "imported.json"
"""What marks a folder of results that no run made."""
State: TypeAlias = Literal["queued", "running", "stale", "failed", "stopped", "completed"]


@attrs.frozen(kw_only=True)
class Entry:
    """One run, task and seed; a pretraining run has one entry without a task.

    ``iteration`` of ``total`` of the stage that trains this cell; ``runtime``: seconds that the
    run has trained, all of its cells together; ``beat`` and ``progress``: seconds since the last
    heartbeat and since the work last moved. None, or empty, where it is not known.
    """

    phase: str
    experiment: str
    cell: str
    task: str
    seed: int | None
    state: State
    reason: str = ""
    iteration: int | None = None
    total: int | None = None
    runtime: float | None = None
    final_return: float | None = None
    beat: float | None = None
    progress: float | None = None
    job: str = ""
    hardware: str = ""
    folder: str


def scan(root: Path, now: float | None = None) -> list[Entry]:
    """Every run under ``root``, sorted by phase, experiment, cell, run, task and seed.

    ``now``: seconds since 1970. Raises ``UserError`` where ``root`` cannot be listed.
    """
    now = time.time() if now is None else now
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir())
    except OSError as error:
        raise UserError(
            f"cannot be listed ({error.strerror})", where=str(root), remedy="name it with --runs"
        ) from error
    planned = {run.run: run for path in folders for run in read_plan(path)}
    entries: list[Entry] = []
    for path in folders:
        if is_run(path):
            entries += _Run(path, now, planned.get(path.name)).entries()
    there = {path.name for path in folders}
    for name, run in planned.items():
        if name not in there:
            entries += _queued(root / name, run)
    return sorted(entries, key=_order)


def is_run(path: Path) -> bool:
    """Whether a folder is a run's, or is about to become one; imported results are none."""
    if (path / IMPORTED).exists():
        return False
    if (path / "config.json").exists():
        return True
    named = len(path.name.split("__")) == 4
    return named and not any((path / name).exists() for name in (PLAN, "study.json"))


def state_of(path: Path, now: float | None = None) -> tuple[State, str]:
    """A run's state, and the reason where there is one to give."""
    run = _Run(path, time.time() if now is None else now, None)
    return run.state, run.reason


class _Run:
    """What one folder says. Reads each file once; ``summary`` last, since it comes last."""

    def __init__(self, path: Path, now: float, planned: PlannedRun | None) -> None:
        self.path, self.now, self.planned = path, now, planned
        self.locked = is_locked(path / "run.lock")
        self.beat = read_heartbeat(path / "heartbeat.json")
        self.config = _read(path / "config.json") or {}
        self.summary, self.unreadable = _summary(path)
        self.state, self.reason = self._state()

    def _state(self) -> tuple[State, str]:
        beat, now = self.beat, self.now
        elsewhere = beat is not None and beat.host != this_process()["host"]
        if self.locked or (elsewhere and beat is not None and beat.is_recent(now)):
            if beat is not None and not beat.ended and beat.is_stalled(now):
                return "stale", f"no progress for {clock(now - beat.progress)}: {_holder(beat)}"
            return "running", ""
        if self.unreadable:
            return "failed", self.unreadable
        failed, stopped = _read(self.path / FAILED), _read(self.path / STOPPED)
        if self.summary is not None:
            # Failed after that: what was to be added to a complete run.
            return "completed", _told(failed) if failed is not None else ""
        if failed is not None:
            return "failed", _told(failed)
        if stopped is not None:
            return "stopped", _told(stopped)
        if beat is None:
            return "stale", "ended before its first heartbeat"
        return "stale", f"no heartbeat for {clock(max(now - beat.time, 0))}: {_holder(beat)}"

    def entries(self) -> list[Entry]:
        """A row for each task and seed; none for a folder that is gone by now."""
        if not self.path.is_dir():
            return []
        experiment, cell, named_seeds = _name(self.path.name)
        alive = self.state in ("running", "stale") and self.beat is not None
        whole = {
            "phase": _text(self.config, "phase") or (self.planned.phase if self.planned else ""),
            "experiment": _text(self.config, "name") or experiment,
            "cell": cell,
            "state": self.state,
            "reason": self.reason,
            "runtime": self._runtime(),
            "beat": self.now - self.beat.time if alive and self.beat else None,
            "progress": self.now - self.beat.progress if alive and self.beat else None,
            "job": self.beat.job if self.beat else "",
            "hardware": self.beat.hardware if self.beat else "",
            "folder": str(self.path),
        }
        rows = []
        for task, seed in self._cells(named_seeds):
            iteration, total = self._progress(task, seed)
            final = self._return(task, seed)
            row: dict[str, Any] = {**whole, "task": task, "seed": seed, "final_return": final}
            rows.append(Entry(**row, iteration=iteration, total=total))
        return rows

    def _cells(self, named: Sequence[int]) -> Iterator[tuple[str, int | None]]:
        seeds: Sequence[int | None] = _integers(_table(self.config, "grid").get("seeds")) or named
        found = [c.rpartition("/") for cells in self._stages().values() for c in cells]
        tasks: Sequence[str] = _texts(_table(self.config, "grid").get("tasks"))
        if self.summary is not None and self.summary.tasks:
            tasks = list(self.summary.tasks)
        elif found:
            tasks = list(dict.fromkeys(task for task, _, _ in found))
        elif self.planned is not None:
            tasks = tasks or self.planned.tasks
        for task in tasks or [""]:
            for seed in seeds or [None]:
                yield task, seed

    def _stages(self) -> Mapping[str, Sequence[str]]:
        return self.beat.stages if self.beat is not None else {}

    def _progress(self, task: str, seed: int | None) -> tuple[int | None, int | None]:
        pretraining = "policy_learning" not in self.config
        table = _table(self.config, "pretrain" if pretraining else "policy_learning")
        total = next(iter(_integers([table.get("iterations")])), None)
        if self.state == "completed":
            return total, total
        if self.beat is None or total is None:
            return None, total
        of = [i for i, c in enumerate(self._stages().values(), 1) if f"{task}/{seed}" in c]
        own = of[0] if of else self.beat.number
        done = total if own < self.beat.number else 0
        return self.beat.iteration if own == self.beat.number else done, total

    def _runtime(self) -> float | None:
        if self.summary is None:
            return self.beat.seconds if self.beat is not None else None
        seconds = self.summary.seconds
        return seconds.get("policy_learning") if isinstance(seconds, dict) else seconds

    def _return(self, task: str, seed: int | None) -> float | None:
        result = self.summary.tasks.get(task) if self.summary is not None else None
        one = result.seeds.get(str(seed)) if result is not None else None
        return one.return_mean if one is not None else None


def _queued(path: Path, run: PlannedRun) -> Iterator[Entry]:
    experiment, cell, _ = _name(run.run)
    for task in run.tasks or [""]:
        for seed in run.seeds:
            yield Entry(
                phase=run.phase,
                experiment=experiment,
                cell=cell,
                task=task,
                seed=seed,
                state="queued",
                iteration=0,
                total=run.iterations,
                folder=str(path),
            )


def _order(entry: Entry) -> tuple[Any, ...]:
    number = int(entry.phase) if entry.phase.isdecimal() else -1
    seed = -1 if entry.seed is None else entry.seed
    place = (number, entry.phase, entry.experiment, entry.cell, entry.folder)
    return (*place, entry.task, seed)


def _name(folder: str) -> tuple[str, str, list[int]]:
    """Experiment, cell and seeds of a folder's name (see ``run_name``)."""
    parts = folder.split("__")
    if len(parts) != 4:
        return folder, "", []
    seeds = [int(seed) for seed in parts[2].split("-") if seed.isdecimal()]
    return parts[0], parts[1], seeds


def _summary(path: Path) -> tuple[Summary | None, str]:
    """The summary, or why there is none though the file is there."""
    file = path / "summary.json"
    if not file.exists():
        return None, ""
    try:
        return Summary.from_json(read_json(file), where=file.name), ""
    except UserError as error:
        return (None, one_line(str(error))) if file.exists() else (None, "")


def _read(file: Path) -> Mapping[str, Any] | None:
    """A JSON object; None where the file is missing, empty where it is damaged."""
    try:
        content = read_json(file)
    except UserError:
        return {} if file.exists() else None
    return content if isinstance(content, dict) else {}


def _told(note: Mapping[str, Any]) -> str:
    reason, where = _text(note, "reason"), _text(note, "where")
    return f"{reason} ({where})" if reason and where else reason or "the reason cannot be read"


def _holder(beat: Heartbeat) -> str:
    return f"process {beat.pid} on {beat.host}" + (f", job {beat.job}" if beat.job else "")


def _table(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _text(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _integers(value: Any) -> list[int]:
    return [v for v in value if type(v) is int] if isinstance(value, list) else []
