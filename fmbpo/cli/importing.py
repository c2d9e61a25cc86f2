"""``data import-tdmpc2`` and ``data import-npz``: data of others into a store."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fmbpo.cli.arguments import Commands, say, stoppable

if TYPE_CHECKING:
    from fmbpo.running.stop import Stop

_EVERY = 5.0
"""Seconds between two lines of progress."""


def add_commands(commands: Commands) -> None:
    """Add them to the commands of ``data``."""
    for kind, text, files in (
        ("tdmpc2", "make a store of the MT30 files that TD-MPC2 published", "*.pt"),
        ("npz", "make a store of data of your own", "*.npz"),
    ):
        one = commands.add_parser(f"import-{kind}", help=text)
        one.add_argument("sources", nargs="+", type=Path, metavar="SRC",
                         help=f"files, or folders with {files}")  # fmt: skip
        one.add_argument("--out", required=True, type=Path, help="the store to write")
        one.add_argument("--compress", action="store_true", help="a smaller store, slower to write")
        one.set_defaults(command=_import, kind=kind, skip_other_tasks=False)
        if kind == "tdmpc2":
            one.add_argument(
                "--skip-other-tasks",
                action="store_true",
                help="leave out the episodes of tasks that MT30 has not (MT80 has 50 such)",
            )


def _import(arguments: argparse.Namespace) -> int:
    from fmbpo.base.free_memory import host_free
    from fmbpo.data.importing.into_store import Import, import_files

    asked = Import(
        arguments.kind,
        arguments.sources,
        compress=arguments.compress,
        skip_other_tasks=arguments.skip_other_tasks,
    )

    def work(stop: Stop) -> int:
        with stop.ends_at_once():  # what is written is kept
            path = import_files(asked, arguments.out, memory=host_free(), progress=Lines(), say=say)
        print(path)
        return 0

    return stoppable(arguments, work)


class Lines:
    """Says how far a stage is, how fast it goes and when it ends: every five seconds."""

    def __init__(self) -> None:
        from fmbpo.data.importing.into_store import CHECKING
        from fmbpo.runs.progress import Pace

        self._of_bytes = CHECKING
        self._pace: Pace | None = None
        self._said = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` of the stage."""
        from fmbpo.base.text import bytes_text, clock
        from fmbpo.runs.progress import Pace

        now = time.monotonic()
        if self._pace is None or self._pace.stage != stage:
            self._pace, self._said = Pace(stage, done, total, now), now
        self._pace.step = done
        if now - self._said < _EVERY and done < total:
            return
        self._said = now
        rate = self._pace.rate(now)
        number = bytes_text if stage == self._of_bytes else "{:,.0f}".format
        speed = f"{number(rate)} a second, " if rate else ""
        left = clock(self._pace.left(now) if done < total else 0)
        say(f"{stage}: {number(done)} of {number(total)}, {speed}{left} left")
