"""``heartbeat.json``: that a run's process is alive, and how far its work is.

``time`` says when the process last wrote, ``progress`` when its work last moved (an iteration, or a
step of an evaluation's episodes). A thread writes, so that a long iteration does not look like a
crash; it holds no lock and does no work, so that the process can fork. If a run hangs, its ``time``
stays recent while its ``progress`` grows old.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from fmbpo.base.files import write_json
from fmbpo.base.lock import this_process
from fmbpo.base.structure import plain, read_as
from fmbpo.errors import UserError

EVERY = 10.0
"""Seconds between two heartbeats."""
MISSED = 300.0
"""A heartbeat older than so many seconds is no sign of life, nor is one so far in the future.
Thirty intervals, since the clocks of two hosts may differ: up to five minutes do no harm."""
STALLED = 1800.0
"""A run without progress for so many seconds hangs, however recent its heartbeat is."""


@attrs.frozen(kw_only=True)
class Heartbeat:
    """The work of a run a moment ago; times are in seconds since 1970, by the writer's clock.

    ``stages``: the cells (``task/seed``) that each stage trains, in the order of stages; ``stage``
    is the current one, at ``iteration`` of ``total``. ``seconds`` of training, over all processes.
    ``ended``: the process has left the run. ``job``: the scheduler's, empty without one.
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

    @property
    def writer(self) -> str:
        """The process that wrote it."""
        return f"process {self.pid} on {self.host}"

    def lives_elsewhere(self, now: float) -> bool:
        """Whether its writer is on another host and counts as alive; see ``MISSED``.

        On this host the lock alone decides.
        """
        elsewhere = self.host != this_process()["host"]
        return elsewhere and not self.ended and abs(now - self.time) <= MISSED

    def is_stalled(self, now: float) -> bool:
        """Whether the work has stood still for longer than any of its steps takes."""
        return now - self.progress > STALLED


def read_heartbeat(path: Path) -> Heartbeat | None:
    """The last heartbeat; None if there is none, or if it cannot be read."""
    return read_as(path, Heartbeat)


class Pulse:
    """Writes ``heartbeat.json`` while its block runs, and once more at the end."""

    def __init__(self, path: Path, hardware: str, stages: Mapping[str, Sequence[str]]) -> None:
        self._path, self._seconds = path, dict.fromkeys(stages, 0.0)
        now = time.time()
        # Replaced whole, never changed: the thread reads it without a lock.
        self._last = Heartbeat(
            time=now,
            progress=now,
            started=now,
            ended=False,
            stage="",
            iteration=0,
            total=0,
            stages=stages,
            seconds=0.0,
            **this_process(),
            job=scheduler_job(),
            hardware=hardware,
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Pulse:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(EVERY)
        self._last = attrs.evolve(self._last, ended=True)
        self._write()

    def at(self, stage: str, iteration: int, total: int, seconds: float) -> None:
        """The work has come this far; ``seconds``: how long this stage has trained."""
        self._seconds[stage] = seconds
        now, seconds = time.time(), sum(self._seconds.values())
        self._last = attrs.evolve(
            self._last, progress=now, seconds=seconds, stage=stage, iteration=iteration, total=total
        )

    def moved(self) -> None:
        """The work goes on within an iteration."""
        self._last = attrs.evolve(self._last, progress=time.time())

    def _beat(self) -> None:
        while not self._over.wait(EVERY):
            self._write()

    def _write(self) -> None:
        # A run must not die of its pulse.
        with contextlib.suppress(OSError, UserError):
            beat = attrs.evolve(self._last, time=time.time())
            write_json(self._path, plain(beat), durable=False)


def beats_elsewhere(path: Path) -> Heartbeat | None:
    """The heartbeat of a living process on another host, which a lock may not reach from here.

    A recent heartbeat may be a dead process's last: the process lives if it beats again within two
    and a half intervals, and this function waits that long, by the clock of this host alone.
    """
    first = read_heartbeat(path)
    if first is None or not first.lives_elsewhere(time.time()):
        return None
    end = time.monotonic() + 2.5 * EVERY
    while time.monotonic() < end:
        time.sleep(EVERY / 20)
        beat = read_heartbeat(path)
        if beat is not None and beat.time != first.time:
            return None if beat.ended else beat
    return None


def scheduler_job() -> str:
    """The SLURM job of this process, ``ARRAY_TASK`` in an array; empty without one."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{n}") for n in ("JOB_ID", "TASK_ID"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
