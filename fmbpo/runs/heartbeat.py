"""``heartbeat.json``: a sign that a run's process is alive, and its progress.

``time`` is that of the last heartbeat, ``progress`` that of the last progress (an iteration, or a
step of an evaluation's episodes): if a run hangs, only ``progress`` grows old. A thread writes, so
that a long iteration does not look like a crash. It holds no lock, so that the process can fork.
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
"""Seconds: a heartbeat is a sign of life if it is no older, and no further in the future. At thirty
intervals, a difference of five minutes between the clocks of two hosts does no harm."""
STALLED = 1800.0
"""Seconds without progress after which a run hangs, however recent its heartbeat is."""


@attrs.frozen(kw_only=True)
class Heartbeat:
    """The recent progress of a run; times are in seconds since 1970, by the writer's clock.

    ``stages``: the cells (``task/seed``) that each stage trains, in order; ``stage`` is the current
    one, at ``iteration`` of ``total``. ``seconds`` of training, over all processes. ``ended``: the
    process has left the run. ``job``: the scheduler's, empty without one.
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
        """Whether its writer is on another host and counts as alive (``MISSED``). On this host only
        the lock decides."""
        elsewhere = self.host != this_process()["host"]
        return elsewhere and not self.ended and abs(now - self.time) <= MISSED


def read_heartbeat(path: Path) -> Heartbeat | None:
    """The last heartbeat; None if there is none or it cannot be read."""
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
        """Record progress; ``seconds``: those that this stage has trained."""
        self._seconds[stage] = seconds
        now, seconds = time.time(), sum(self._seconds.values())
        self._last = attrs.evolve(
            self._last, progress=now, seconds=seconds, stage=stage, iteration=iteration, total=total
        )

    def moved(self) -> None:
        """Record progress within an iteration."""
        self._last = attrs.evolve(self._last, progress=time.time())

    def _beat(self) -> None:
        while not self._over.wait(EVERY):
            self._write()

    def _write(self) -> None:
        # A failed heartbeat must not end the run.
        with contextlib.suppress(OSError, UserError):
            beat = attrs.evolve(self._last, time=time.time())
            write_json(self._path, plain(beat), durable=False)


def beats_elsewhere(path: Path) -> Heartbeat | None:
    """The heartbeat of a live process on another host, which a lock may not reach from here.

    A recent heartbeat may be a dead process's last. So this function waits up to two and a half
    intervals, by this host's clock, for the next one.
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
