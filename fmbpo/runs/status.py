"""The state of the runs under a root: a row per run, task and seed, read from their folders.

The process that works on a run writes each file in its folder in one step. Readers do not wait, and
accept a folder that is incomplete, damaged, or gone the next moment.

The state of a run is that of the first line that applies:

============= =====================================================================================
``stale``     its lock is held, but it made no progress for ``heartbeat.STALLED`` seconds
``running``   its lock is held; or another host's heartbeat is within ``heartbeat.MISSED`` seconds
              of this host's clock, since locks may not reach across the shared disk
``completed`` ``summary.json`` is there
``failed``    ``failed.json`` is there, or the summary cannot be read
``stopped``   ``stopped.json`` is there
``stale``     none of these: it was killed, or its machine crashed
============= =====================================================================================

``queued`` are runs without a folder in the plan of a study. On the host that wrote the heartbeat
only the lock decides: it lives exactly as long as the process.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs

from fmbpo.base.files import read_json
from fmbpo.base.lock import holder_of
from fmbpo.base.metrics import seed_label
from fmbpo.base.structure import T, fit, read_as
from fmbpo.base.text import clock, one_line
from fmbpo.errors import UserError
from fmbpo.runs.heartbeat import STALLED, Heartbeat, read_heartbeat
from fmbpo.runs.outcome import FAILED, STOPPED, read_outcome
from fmbpo.runs.plan import PLAN, STUDY, PlannedRun, read_plan
from fmbpo.runs.summary import Summary

IMPORTED = "imported.json"
"""The file that marks a folder of results that were imported."""
State: TypeAlias = Literal["queued", "running", "stale", "failed", "stopped", "completed"]


@attrs.frozen(kw_only=True)
class Entry:
    """One run, task and seed; a pretraining run has one entry without a task.

    ``iteration`` of ``total`` of the stage that trains this cell; ``runtime``: seconds of training
    of all cells of the run together; ``beat`` and ``progress``: seconds since the last heartbeat
    and the last progress; ``scheduler``: its state of the ``job``. None, or empty, if unknown.
    """

    phase: str
    experiment: str
    cell: str
    task: str
    seed: int | None
    policy: int = 0
    state: State
    reason: str = ""
    iteration: int | None = None
    total: int | None = None
    runtime: float | None = None
    final_return: float | None = None
    beat: float | None = None
    progress: float | None = None
    job: str = ""
    scheduler: str = ""
    hardware: str = ""
    folder: str


def scan(root: Path, now: float | None = None) -> list[Entry]:
    """Every run under ``root``, sorted by phase, experiment, cell, run, task and seed.

    ``now``: seconds since 1970. Raises ``UserError`` if ``root`` cannot be listed.
    """
    now, folders = time.time() if now is None else now, folders_in(root)
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


def folders_in(root: Path) -> list[Path]:
    """The folders in the folder of all runs. Raises ``UserError`` if it cannot be listed."""
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())
    except OSError as error:
        raise UserError(
            f"cannot be listed ({error.strerror})",
            where=str(root),
            remedy="name the folder of all runs with --runs",
        ) from error


def is_run(path: Path) -> bool:
    """Whether a folder is a run's, or is about to become one; imported results are not runs."""
    if (path / IMPORTED).exists():
        return False
    if (path / "config.json").exists():
        return True
    named = len(path.name.split("__")) == 4
    return named and not any((path / name).exists() for name in (PLAN, STUDY))


def state_of(path: Path) -> State:
    """A run's state."""
    return _Run(path, time.time(), None).state


class _Run:
    """The content of one folder. Reads each file once; the summary last, as it is written last."""

    def __init__(self, path: Path, now: float, planned: PlannedRun | None) -> None:
        self.path, self.now, self.planned = path, now, planned
        self.locked = bool(holder_of(path / "run.lock"))
        self.beat = read_heartbeat(path / "heartbeat.json")
        self.config = read_as(path / "config.json", dict[str, Any]) or {}
        self.summary, self.unreadable = _summary(path / "summary.json")
        self.state, self.reason = self._state()

    def _state(self) -> tuple[State, str]:
        beat, now = self.beat, self.now
        if self.locked or (beat is not None and beat.lives_elsewhere(now)):
            if beat is not None and not beat.ended and now - beat.progress > STALLED:
                return "stale", f"no progress for {clock(now - beat.progress)}: {_holder(beat)}"
            return "running", ""
        if self.unreadable:
            return "failed", self.unreadable
        failed, stopped = read_outcome(self.path / FAILED), read_outcome(self.path / STOPPED)
        if self.summary is not None:
            # A later failure means that something could not be added to the complete run.
            return "completed", failed or ""
        if failed is not None:
            return "failed", failed
        if stopped is not None:
            return "stopped", stopped
        if beat is None:
            return "stale", "ended before its first heartbeat"
        return "stale", f"no heartbeat for {clock(max(now - beat.time, 0))}: {_holder(beat)}"

    def entries(self) -> list[Entry]:
        """A row for each task and seed; none if the folder is gone."""
        if not self.path.is_dir():
            return []
        experiment, cell, named_seeds = _name(self.path.name)
        beat = self.beat
        alive = beat if self.state in ("running", "stale") else None
        run = Entry(
            phase=self._setting(str, "phase") or (self.planned.phase if self.planned else ""),
            experiment=self._setting(str, "name") or experiment,
            cell=cell,
            task="",
            seed=None,
            state=self.state,
            reason=self.reason,
            runtime=self._runtime(),
            beat=self.now - alive.time if alive else None,
            progress=self.now - alive.progress if alive else None,
            job=beat.job if beat else "",
            hardware=beat.hardware if beat else "",
            folder=str(self.path),
        )
        replicates: Sequence[int | None] = self._setting(list[int], "grid", "seeds") or named_seeds
        numbers = range(self._setting(int, "grid", "policies_per_model") or 1)
        return [
            attrs.evolve(run, task=task, seed=seed, policy=number, **self._cell(task, label))
            for task in self._tasks()
            for seed in replicates or [None]
            for number in numbers
            for label in [seed_label(seed, number)]
        ]

    def _setting(self, cls: type[T], *keys: str) -> T | None:
        """A setting by its key path; None if it is absent or of another type."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return fit(value, cls)

    def _tasks(self) -> Sequence[str]:
        if self.summary is not None and self.summary.tasks:
            return list(self.summary.tasks)
        cells = [cell for cells in self.beat.stages.values() for cell in cells] if self.beat else []
        if cells:
            return list(dict.fromkeys(cell.rpartition("/")[0] for cell in cells))
        tasks = self._setting(list[str], "grid", "tasks")
        return tasks or (self.planned.tasks if self.planned else ()) or [""]

    def _cell(self, task: str, seed: str) -> dict[str, Any]:
        """The cell's progress, and its final return."""
        result = self.summary.tasks.get(task) if self.summary is not None else None
        one = result.seeds.get(seed) if result is not None else None
        table = "policy_learning" if "policy_learning" in self.config else "pretrain"
        iteration, total = None, self._setting(int, table, "iterations")
        if self.state == "completed":
            iteration = total
        elif self.beat is not None and total is not None:
            of = [i for i, c in enumerate(self.beat.stages.values(), 1) if f"{task}/{seed}" in c]
            current, own = self.beat.number, (of or [self.beat.number])[0]
            iteration = self.beat.iteration if own == current else total if own < current else 0
        final = one.return_mean if one is not None else None
        return {"iteration": iteration, "total": total, "final_return": final}

    def _runtime(self) -> float | None:
        if self.summary is None:
            return self.beat.seconds if self.beat is not None else None
        seconds = self.summary.seconds
        return seconds.get("policy_learning") if isinstance(seconds, dict) else seconds


def _queued(path: Path, run: PlannedRun) -> Iterator[Entry]:
    experiment, cell, _ = _name(run.run)
    for task in run.tasks or [""]:
        for seed, number in itertools.product(run.seeds, range(run.policies)):
            yield Entry(
                phase=run.phase,
                experiment=experiment,
                cell=cell,
                task=task,
                seed=seed,
                policy=number,
                state="queued",
                iteration=0,
                total=run.iterations,
                folder=str(path),
            )


def _order(entry: Entry) -> tuple[Any, ...]:
    number = int(entry.phase) if entry.phase.isdecimal() else -1
    seed = -1 if entry.seed is None else entry.seed, entry.policy
    return (number, entry.phase, entry.experiment, entry.cell, entry.folder, entry.task, seed)


def _name(folder: str) -> tuple[str, str, list[int]]:
    """Experiment, cell and seeds of a folder's name (see ``run_name``)."""
    parts = folder.split("__")
    if len(parts) != 4:
        return folder, "", []
    seeds = [int(seed) for seed in parts[2].split("-") if seed.isdecimal()]
    return parts[0], parts[1], seeds


def _summary(file: Path) -> tuple[Summary | None, str]:
    """The summary, or the reason why it cannot be read."""
    try:
        return Summary.from_json(read_json(file), where=file.name), ""
    except UserError as error:
        return None, one_line(str(error)) if file.exists() else ""


def _holder(beat: Heartbeat) -> str:
    return f"{beat.writer}, job {beat.job}" if beat.job else beat.writer
