"""Starts the processes of a run: torchrun's launcher, with fmbpo's messages and exit statuses."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import filterfalse
from tempfile import TemporaryDirectory

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, launch_agent

from fmbpo.base.cores import usable_cores
from fmbpo.base.worker import SIGNALS, search_path
from fmbpo.errors import UserError

SAVING = 600
"""Seconds that the leader may take to save after a signal."""
AT_ONCE = 10
"""Seconds within which a killed process and those that notice it end."""


class Killed(UserError):
    """A signal from somewhere else ended a process."""


def launch(words: Sequence[str], processes: int, restarts: int = 0) -> None:
    """Run ``fmbpo WORDS`` in this number of processes on this machine; returns if all succeed.

    If a process is killed, all start again, up to ``restarts`` times, and continue from the last
    checkpoint.

    Raises ``SystemExit`` with the status of the process that failed first, which has said why;
    ``Killed`` if one was killed once more. After a signal to this process it passes the signal on,
    waits until the leader has saved, and raises ``SignalException``.
    """
    for left in reversed(range(restarts + 1)):
        try:
            return _launched(words, processes)
        except Killed as error:
            if not left:
                raise
            of = f"{restarts - left + 1} of {restarts}"
            print(f"{error.what}: all start again, restart {of}", file=sys.stderr)


def _launched(words: Sequence[str], processes: int) -> None:
    try:
        with _prepared(processes), TemporaryDirectory() as logs:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=processes,
                run_id=uuid.uuid4().hex,
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                max_restarts=0,
                logs_specs=DefaultLogsSpecs(log_dir=logs),
                signals_to_handle=",".join(s.name for s in filterfalse(_ignored, SIGNALS)),
            )
            launch_agent(config, sys.executable, ["-P", "-m", "fmbpo", *words])
    except ChildFailedError as error:
        raise _ended(*_culprit(error), processes) from None


@contextmanager
def _prepared(processes: int) -> Iterator[None]:
    """The environment, signals and silence that launching needs; everything is put back."""
    before, silent = dict(os.environ), logging.root.manager.disable
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    os.environ |= {
        "OMP_NUM_THREADS": str(max(usable_cores() // processes, 1)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SAVING),
        **before,
        "PYTHONPATH": search_path(),
    }
    logging.disable()  # the processes say themselves what happens
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        logging.disable(silent)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _ignored(number: signal.Signals) -> bool:
    """Whether the signal was ignored when the command began, as under nohup, and stays so."""
    return signal.getsignal(number) is signal.SIG_IGN


def _culprit(error: ChildFailedError) -> tuple[int, ProcessFailure]:
    """The process that was killed, or else the one that failed first. The launcher itself sends the
    others SIGTERM and, half a minute later, SIGKILL."""
    rank, first = error.get_first_failure()
    for other, failure in error.failures.items():
        by_others = failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM
        if by_others and failure.timestamp <= first.timestamp + AT_ONCE:
            return other, failure
    return rank, first


def _ended(rank: int, failure: ProcessFailure, processes: int) -> BaseException:
    if failure.exitcode >= 0:
        return SystemExit(failure.exitcode)
    name = signal.Signals(-failure.exitcode).name
    return Killed(
        f"{name} ended process {rank} of {processes}",
        where=f"--processes {processes}",
        remedy="if memory ran short, use fewer processes; the last checkpoint is kept, and the "
        "same command continues",
    )
