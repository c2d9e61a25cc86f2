"""Starts the processes of a run: torchrun's launcher, with fmbpo's messages and exit statuses."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, launch_agent

from fmbpo.base.cores import usable_cores
from fmbpo.base.worker import SIGNALS, search_path
from fmbpo.errors import UserError

SAVING = 600
"""Seconds that the leader may take to save after a signal."""
_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""A scheduler's warnings before the end, which torchrun's launcher would not pass on."""


def launch(words: Sequence[str], processes: int) -> None:
    """Run ``fmbpo WORDS`` in this number of processes on this machine; returns if all succeed.

    Raises ``SystemExit`` with the status of the process that failed first, which has said why;
    ``UserError`` if a signal killed one; ``SignalException`` after a signal to this process, which
    the others get as well and which they survive until the leader has saved.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        with _prepared(processes):
            launch_agent(config, sys.executable, ["-P", "-m", "fmbpo", *words])
    except ChildFailedError as error:
        # The launcher ends the others by SIGTERM.
        ended = error.failures.items()
        killed = [one for one in ended if one[1].exitcode not in (*range(256), -signal.SIGTERM)]
        rank, first = killed[0] if killed else error.get_first_failure()
        raise _ended(rank, processes, first) from None


@contextmanager
def _prepared(processes: int) -> Iterator[None]:
    """The environment, signals and silence that launching needs; everything is put back."""
    before, silent = dict(os.environ), logging.root.manager.disable
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    os.environ |= {
        "OMP_NUM_THREADS": str(max(usable_cores() // processes, 1)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SAVING),
        # In half of all restarts the second rendezvous hangs without it (torch 2.13).
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        **before,
        "PYTHONPATH": search_path(),
    }
    logging.disable()  # the processes say themselves what happens
    for warning in _WARNINGS:
        signal.signal(warning, _pass_on)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        logging.disable(silent)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _pass_on(number: int, _: FrameType | None) -> None:
    raise SignalException("passed on as a request to end", signal.SIGTERM)


def _ended(rank: int, processes: int, failure: ProcessFailure) -> BaseException:
    if failure.exitcode >= 0:
        return SystemExit(failure.exitcode)
    name = signal.Signals(-failure.exitcode).name
    return UserError(
        f"{name} ended process {rank} of {processes}",
        where=f"--processes {processes}",
        remedy="if memory ran short, use fewer processes; the last checkpoint is kept, and the "
        "same command continues",
    )
