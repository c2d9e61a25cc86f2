"""``data``: collect, import, describe and verify data sets."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fmbpo.cli import importing
from fmbpo.cli.arguments import Commands, say, stoppable
from fmbpo.errors import UserError

if TYPE_CHECKING:
    from fmbpo.engine.stop import Stop


def add_commands(commands: Commands) -> None:
    """Add them."""
    data = commands.add_parser("data", help="collect, import, describe and verify data sets")
    kinds = data.add_subparsers(required=True, metavar="COMMAND")
    collect = kinds.add_parser("collect", help="make data in the simulator with the planner")
    collect.add_argument("--out", required=True, type=Path, help="the store to write")
    collect.add_argument(
        "--tasks", required=True, help="task names, separated by commas; NAME=COUNT for a "
        "task with its own number of episodes"
    )  # fmt: skip
    collect.add_argument("--episodes", type=int, default=64, help="episodes a task (default: 64)")
    collect.add_argument(
        "--explore", type=int, default=0, help="further episodes a task of random bursts and rests"
    )
    collect.add_argument(
        "--recover", type=int, default=0, help="further episodes a task of the planner, "
        "interrupted by random actions"
    )  # fmt: skip
    collect.add_argument("--seed", type=int, default=0)
    collect.add_argument("--recipe", default="default", help="mix of behaviours: default or random")
    collect.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )
    collect.add_argument("--compress", action="store_true", help="a store a third of the size")
    collect.set_defaults(command=_collect)
    importing.add_commands(kinds)
    for name, action, text in (
        ("info", _info, "describe a data set"),
        ("verify", _verify, "read every row and compare it with the data set's id"),
    ):
        one = kinds.add_parser(name, help=text)
        one.add_argument("path", help='the store, or "embedded" for the one in the package')
        one.set_defaults(command=action)


def _collect(arguments: argparse.Namespace) -> int:
    from fmbpo.data.collect import collect
    from fmbpo.tasks.mt30 import task_info

    episodes = {}
    for item in arguments.tasks.split(","):
        name, _, count = item.strip().partition("=")
        if count and not count.isdigit():
            raise UserError(f"{count!r} is no number of episodes", where=f"--tasks {item}")
        episodes[task_info(name).name] = int(count or arguments.episodes)

    def work(stop: Stop) -> int:
        with stop.ends_at_once():  # every finished episode is kept
            path = collect(
                arguments.out,
                list(episodes),
                episodes,
                arguments.seed,
                arguments.recipe,
                arguments.workers,
                lambda done, total: say(f"{done}/{total} episodes"),
                explore=arguments.explore,
                recover=arguments.recover,
                compress=arguments.compress,
            )
        print(path)
        return 0

    return stoppable(arguments, work)


def _store_path(text: str) -> Path:
    if text != "embedded":
        return Path(text)
    from fmbpo.data.embedded import embedded_path

    return embedded_path()


def _info(arguments: argparse.Namespace) -> int:
    from fmbpo.data.store import info

    print(json.dumps(info(_store_path(arguments.path)), indent=2))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from fmbpo.data.store import verify

    path = _store_path(arguments.path)
    print(f"ok: {path} is what its id says: {verify(path)}")
    return 0
