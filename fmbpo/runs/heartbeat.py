"""``heartbeat.json``: that a run's process is alive, and how far its work is.

The two are told apart: ``time`` says when the process last wrote, ``progress`` when its work last
moved (an iteration, or a step of an evaluation's episodes). A thread writes, so that a long
iteration does not look like a crash; it holds no lock and does no work, so that the process can
fork. A hung run keeps its ``time`` young while its ``progress`` grows old.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs

from fmbpo.base.files import read_json, write_json
from fmbpo.base.lock import this_process
from fmbpo.errors import UserError

EVERY = 10.0
"""Seconds between two heartbeats."""
MISSED = 300.0
"""A heartbeat older than so many seconds is no sign of life. Thirty intervals, since the clocks of
two hosts may differ: up to five minutes do no harm. One further in the future says nothing
either."""
STALLED = 1800.0
"""A run without progress for so many seconds hangs, however young its heartbeat is."""


@attrs.frozen(kw_only=True)
class Heartbeat:
    """What a run was doing a moment ago; times are in seconds since 1970, of the writer's clock.

    ``stages``: the cells (``task/seed``) that each stage trains, in the order of stages; ``stage``
    is the one in hand, at ``iteration`` of ``total``. ``seconds`` of training, over all processes.
    ``ended``: the process has left the run. ``job``: of the scheduler, empty without one.
    """

    time: float
    progress: float
    started: float
    ended: bool
    stage: str
    iteration: int
    total: int
    stages: Mapping[str, Sequence[str]]
    seconds: float
    pid: int
    host: str
    job: str
    hardware: str

    @property
    def number(self) -> int:
        """The stage's place among the stages, from 1; 0 before the first."""
        return list(self.stages).index(self.stage) + 1 if self.stage in self.stages else 0

    def is_recent(self, now: float) -> bool:
        """Whether a process on another host that wrote it is taken to live; see ``MISSED``."""
        return not self.ended and abs(now - self.time) <= MISSED

    def is_stalled(self, now: float) -> bool:
        """Whether the work has not moved for longer than any step of it takes."""
        return now - self.progress > STALLED


def read_heartbeat(path: Path) -> Heartbeat | None:
    """The last heartbeat; None where there is none, or none that can be read."""
    try:
        content = read_json(path)
        wanted = {field.name: field.type for field in attrs.fields(Heartbeat)}
        beat = Heartbeat(**{name: content[name] for name in wanted})
        numbers = (beat.time, beat.progress, beat.started, beat.seconds)
        counts = (beat.iteration, beat.total, beat.pid)
        texts = (beat.stage, beat.host, beat.job, beat.hardware)
        cells = [c for cells in beat.stages.values() for c in cells]
    except (UserError, KeyError, TypeError, AttributeError):
        return None
    sound = all(type(n) in (int, float) for n in numbers) and all(type(n) is int for n in counts)
    return beat if sound and all(isinstance(t, str) for t in (*texts, *cells)) else None


class Pulse:
    """Writes ``heartbeat.json`` while its block runs, and once more at the end."""

    def __init__(self, path: Path, hardware: str, stages: Mapping[str, Sequence[str]]) -> None:
        self._path, self._seconds = path, dict.fromkeys(stages, 0.0)
        now = time.time()
        # Replaced whole, never changed: the thread reads it without a lock.
        self._fields: dict[str, Any] = {
            "progress": now,
            "started": now,
            "ended": False,
            "stage": "",
            "iteration": 0,
            "total": 0,
            "stages": {name: list(cells) for name, cells in stages.items()},
            "seconds": 0.0,
            **this_process(),
            "job": scheduler_job(),
            "hardware": hardware,
        }
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Pulse:
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(EVERY)
        self._fields = {**self._fields, "ended": True}
        self._write()

    def at(self, stage: str, iteration: int, total: int, seconds: float) -> None:
        """The work is there now; ``seconds`` of training of this stage."""
        self._seconds[stage] = seconds
        self._fields = {
            **self._fields,
            "progress": time.time(),
            "stage": stage,
            "iteration": iteration,
            "total": total,
            "seconds": sum(self._seconds.values()),
        }

    def moved(self) -> None:
        """The work goes on within an iteration."""
        self._fields = {**self._fields, "progress": time.time()}

    def _beat(self) -> None:
        while not self._over.wait(EVERY):
            self._write()

    def _write(self) -> None:
        # A run must not die of its pulse.
        with contextlib.suppress(OSError, UserError):
            write_json(self._path, {"time": time.time(), **self._fields}, durable=False)


def beats_elsewhere(path: Path) -> Heartbeat | None:
    """The heartbeat of a living process on another host, which a lock may not reach from here.

    One that is recent may be a dead process's last: it lives if it beats again within two and a
    half intervals, for which this waits. No clock but ours takes part in that.
    """
    first = read_heartbeat(path)
    if first is None or first.host == this_process()["host"] or not first.is_recent(time.time()):
        return None
    end = time.monotonic() + 2.5 * EVERY
    while time.monotonic() < end:
        time.sleep(EVERY / 20)
        beat = read_heartbeat(path)
        if beat is not None and beat.time != first.time:
            return None if beat.ended else beat
    return None


def scheduler_job() -> str:
    """The SLURM job that this process belongs to, ``ARRAY_TASK`` in an array; else empty."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{n}") for n in ("JOB_ID", "TASK_ID"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
