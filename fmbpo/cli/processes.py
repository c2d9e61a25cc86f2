"""A command in several processes: starting them, and this process's place among them."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from fmbpo.base.worker import SIGNALS
from fmbpo.cli.arguments import INTERRUPTED, LAUNCHED, TRY_AGAIN, whole_number
from fmbpo.errors import UserError

if TYPE_CHECKING:
    from fmbpo.distributed.group import Group

_DIE_WITH_PARENT = 1
"""``PR_SET_PDEATHSIG`` of Linux's prctl."""


def processes_argument(parser: argparse.ArgumentParser) -> None:
    """``--processes`` and ``--max-restarts``."""
    parser.add_argument("--processes", type=whole_number(1, 1024), metavar="N",
                        help="train in N processes of this machine, which torchrun's launcher "
                        "starts: each has a part of the policies and of the world model's batches "
                        "(default: 1)")  # fmt: skip
    parser.add_argument("--max-restarts", type=whole_number(0, 1000), default=0, metavar="N",
                        help="if a process is killed, start all again up to N times; they continue "
                        "from the last checkpoint (default: 0)")  # fmt: skip


def in_processes(arguments: argparse.Namespace, work: Callable[[Group], int]) -> int:
    """The status of ``work`` as the leader, which leaves the group when it is done; starts the
    processes first if that is asked for, or follows the leader if torchrun started this process as
    another one."""
    asked = arguments.processes
    if LAUNCHED not in os.environ:
        if (asked or 1) > 1 or arguments.max_restarts:
            return _launched(arguments)
        from fmbpo.distributed.group import ALONE

        return work(ALONE)
    started = os.environ["WORLD_SIZE"]
    if asked not in (None, int(started)):
        raise UserError(
            f"torchrun has started {started} processes, not {asked}",
            where="--processes",
            remedy="leave it out: torchrun says how many",
        )
    return _as_member(work)


def _launched(arguments: argparse.Namespace) -> int:
    from torch.distributed.elastic.multiprocessing import SignalException

    from fmbpo.distributed.launch import launch

    try:
        launch(arguments.words, arguments.processes or 1, arguments.max_restarts)
    except SignalException as stopped:  # the leader has said so
        return INTERRUPTED if stopped.sigval == signal.SIGINT else TRY_AGAIN
    return 0


def _as_member(work: Callable[[Group], int]) -> int:
    rank = int(os.environ["RANK"])
    if rank:
        # The leader answers signals; when it has ended, so do the others.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    elif sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
    from fmbpo.distributed.group import Group, Lost
    from fmbpo.running.following import follow

    # If the leader fails or stops, the others notice the lost connection.
    with contextlib.suppress(Lost) if rank else contextlib.nullcontext():
        group = Group.joined()
        if rank == 0:
            return work(group)
        follow(group)
        group.leave()
    return 0
