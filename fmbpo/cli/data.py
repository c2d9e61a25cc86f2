"""``data``: collect, import, describe and verify data sets."""

from __future__ import annotations

import argparse
import functools
import json
import math
import re
import time
from typing import TYPE_CHECKING

from fmbpo.base.cores import usable_cores
from fmbpo.base.files import path_of
from fmbpo.base.text import bytes_text, clock
from fmbpo.cli.arguments import (
    Commands,
    add,
    add_group,
    add_own_tasks,
    add_query,
    own_tasks,
    say,
    stoppable_at_once,
    versions_argument,
)
from fmbpo.data.embedded import store_path
from fmbpo.errors import UserError
from fmbpo.runs.progress import Pace

if TYPE_CHECKING:
    from fmbpo.data.collecting import Recipe
    from fmbpo.tasks.known import Own

RANDOM = "random"
"""The policy, and the recipe, of random actions."""
EVERY = 5.0
"""Seconds between two lines of progress."""


def add_commands(commands: Commands) -> None:
    """Add these commands."""
    kinds = add_group(commands, "data", "collect, import, describe and verify data sets")
    _add_collect(kinds)
    for kind, text, files in (
        ("tdmpc2", "import the MT30 files that TD-MPC2 published", "*.pt"),
        ("npz", "import your own data from .npz files", "*.npz"),
    ):
        one = add(kinds, f"import-{kind}", text, _import)
        one.add_argument("sources", nargs="+", type=path_of, metavar="SRC",
                         help=f"files, or folders with {files}")  # fmt: skip
        one.add_argument("--out", required=True, type=path_of, metavar="STORE",
                         help="the store to write")  # fmt: skip
        one.add_argument("--compress", action="store_true", help="a smaller store, slower to write")
        one.add_argument("--action-scale", type=_positive, metavar="X", default=1.0,
                         help="divide all actions by X, for recordings whose actions are not in "
                         "[-1, 1]")  # fmt: skip
        one.set_defaults(kind=kind, skip_other_tasks=False, suites="mt30", experiment=None)
        if kind == "tdmpc2":
            one.add_argument("--skip-other-tasks", action="store_true",
                             help="skip the episodes of other tasks (MT80 has 50 that are not in "
                             "MT30)")  # fmt: skip
            one.add_argument("--suites", metavar="NAME,…", default="mt30",
                             help="the suites whose tasks the files' task ids count, one after "
                             "another (default: mt30)")  # fmt: skip
        else:
            add_own_tasks(one)
    one = add(kinds, "import-minari", "import a data set of Minari", _import_minari)
    one.add_argument("dataset", metavar="ID",
                     help="the data set's id, such as mujoco/invertedpendulum/expert-v0; "
                     "`minari download ID` fetches it")  # fmt: skip
    one.add_argument("--out", required=True, type=path_of, metavar="STORE",
                     help="the store to write")  # fmt: skip
    one.add_argument("--task", required=True, metavar="NAME",
                     help="the task; a new name is given to the environment that the data set "
                     "names")  # fmt: skip
    add_own_tasks(one)
    one.add_argument("--compress", action="store_true", help="a smaller store, slower to write")
    for name, work, text in (
        ("info", _info, "describe a data set as JSON"),
        ("verify", _verify, "read all rows and check them against the data set's id"),
    ):
        one = add_query(kinds, name, text, work)
        one.add_argument("path", type=store_path,
                         help='the store, or "embedded" for the one in the package')  # fmt: skip


def _add_collect(kinds: Commands) -> None:
    collect = add(kinds, "collect", "collect data in the simulator", _collect)
    collect.add_argument("--out", required=True, type=path_of, metavar="STORE",
                         help="the store to write")  # fmt: skip
    collect.add_argument("--tasks", metavar="NAME,…",
                         help="tasks; NAME=COUNT gives one its own number of episodes, mt30 "
                         "or another suite all its tasks (default: the recipe's)")  # fmt: skip
    add_own_tasks(collect)
    for name, text in (
        ("episodes", "episodes per task (default: the recipe's, usually 64)"),
        ("explore", "further episodes per task of random bursts and rests (default: 0)"),
        ("recover", "further episodes per task of the planner, interrupted by random actions "
         "(default: 0)"),
        ("seed", "seed of all random choices (default: 0)"),
    ):  # fmt: skip
        default = None if name == "episodes" else 0
        collect.add_argument(f"--{name}", type=int, metavar="N", default=default, help=text)
    mix = collect.add_mutually_exclusive_group()
    mix.add_argument("--recipe", default="", metavar="NAME|FILE",
                     help="mix of behaviours: default, random, mt30-mini, or a TOML file with a "
                     "table per behaviour (default: default)")  # fmt: skip
    mix.add_argument("--noise", metavar="X,Y,…",
                     help="instead of a recipe: only the planner, with these standard deviations "
                     "of action noise in equal shares")  # fmt: skip
    collect.add_argument("--policy", metavar="random|RUN",
                         help="random: no planner, only random actions, as the recipe random; else "
                         "a finished run whose policies replace the planner")  # fmt: skip
    versions_argument(collect)
    collect.add_argument("--workers", type=int, metavar="N", default=usable_cores(),
                         help="worker processes (default: one per usable core)")  # fmt: skip
    collect.add_argument("--compress", action="store_true",
                         help="a smaller store, slower to write")  # fmt: skip


def _collect(arguments: argparse.Namespace) -> int:
    from fmbpo.data.collecting import Request, collect

    own = own_tasks(arguments)
    recipe = _recipe(arguments)
    episodes = _episodes(arguments, recipe, own)
    policies = None
    if arguments.policy not in (None, RANDOM):
        from fmbpo.running.collecting_policies import run_agent

        run, accept = path_of(arguments.policy), arguments.accept_plugin_versions
        policies = run_agent(run, list(episodes), accept_versions=accept)
    request = Request(
        list(episodes),
        episodes,
        recipe.mix,
        seed=arguments.seed,
        explore=arguments.explore,
        recover=arguments.recover,
        compress=arguments.compress,
        policies=policies,
        own=own,
    )
    lines = functools.partial(Lines(), "episodes")
    return stoppable_at_once(
        arguments, lambda: print(collect(arguments.out, request, arguments.workers, lines))
    )


def _recipe(arguments: argparse.Namespace) -> Recipe:
    from fmbpo.data.collecting import Recipe, behaviours, recipe_named, with_noise

    if arguments.policy == RANDOM and (arguments.noise is not None or arguments.recover):
        what, remedy = "there is no planner whose actions could be changed", "omit one of the two"
        raise UserError(what, where=f"--policy {RANDOM}", remedy=remedy)
    if arguments.noise is not None:
        try:
            return Recipe(with_noise([float(word) for word in arguments.noise.split(",")]))
        except ValueError:
            where = f"--noise {arguments.noise}"
            raise UserError(
                "not a list of numbers", where=where, remedy="write it as 0,0.1,0.3"
            ) from None
    if not arguments.recipe.endswith(".toml"):
        default = RANDOM if arguments.policy == RANDOM else "default"
        return recipe_named(arguments.recipe or default)
    from fmbpo.config import toml

    content = toml.read(path_of(arguments.recipe)).tree
    if not all(isinstance(value, dict) for value in content.values()):
        raise UserError(
            "a value is outside the tables of behaviours",
            where=arguments.recipe,
            remedy="write a table [NAME] for each behaviour",
        )
    return Recipe(behaviours(content))


def _episodes(arguments: argparse.Namespace, recipe: Recipe, own: Own) -> dict[str, int]:
    """Episodes by task."""
    from fmbpo.tasks.known import suites, task_info

    most = recipe.episodes if arguments.episodes is None else arguments.episodes
    if arguments.tasks is None:
        if not recipe.tasks:
            remedy = "name the tasks, or mt30 for all"
            raise UserError("the recipe names no tasks", where="--tasks", remedy=remedy)
        return dict.fromkeys(recipe.tasks, most)
    episodes: dict[str, int] = {}
    for item in arguments.tasks.split(","):
        name, _, count = item.strip().partition("=")
        if count and not re.fullmatch(r"\d{1,9}", count, re.ASCII):
            what, remedy = f"{count!r} is not a number of episodes", "write NAME=COUNT"
            raise UserError(what, where=f"--tasks {item}", remedy=remedy)
        whole = next((s for s in suites() if s.name.lower() == name.lower()), None)
        names = whole.names if whole else (task_info(name, own).name,)
        episodes.update(dict.fromkeys(names, int(count or most)))
    return episodes


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return number


def _import(arguments: argparse.Namespace) -> int:
    from fmbpo.base.free_memory import host_free
    from fmbpo.data.importing.into_store import CHECKING, Import, import_files
    from fmbpo.tasks.known import suites_named

    asked = Import(
        arguments.kind,
        arguments.sources,
        compress=arguments.compress,
        skip_other_tasks=arguments.skip_other_tasks,
        action_scale=arguments.action_scale,
        suite=suites_named(arguments.suites.split(",")),
        own=own_tasks(arguments),
    )
    lines, free = Lines(of_bytes=CHECKING), host_free()
    return stoppable_at_once(
        arguments,
        lambda: print(import_files(asked, arguments.out, memory=free, progress=lines, say=say)),
    )


def _import_minari(arguments: argparse.Namespace) -> int:
    from fmbpo.data.importing.minari import MinariImport, import_minari

    own, lines = own_tasks(arguments), functools.partial(Lines(), "episodes")
    asked = MinariImport(arguments.dataset, arguments.task, own, arguments.compress)
    return stoppable_at_once(
        arguments, lambda: print(import_minari(asked, arguments.out, progress=lines, say=say))
    )


def _info(arguments: argparse.Namespace) -> int:
    from fmbpo.data.store import info

    print(json.dumps(info(arguments.path), indent=2))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from fmbpo.data.store import verify

    lines = functools.partial(Lines(of_bytes="verifying"), "verifying")
    print(f"ok: {arguments.path} agrees with its id: {verify(arguments.path, lines)}")
    return 0


class Lines:
    """Prints progress, at most a line per ``EVERY`` seconds; the stage ``of_bytes`` is in bytes."""

    def __init__(self, of_bytes: str = "") -> None:
        self._of_bytes, self._pace, self._said = of_bytes, Pace("", 0, 0, 0.0), 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report ``done`` of ``total`` parts of the stage."""
        now = time.monotonic()
        if self._pace.stage != stage:
            self._pace, self._said = Pace(stage, done, total, now), now
        self._pace.step = done
        if now - self._said < EVERY and done < total:
            return
        self._said = now
        rate = self._pace.rate(now)
        number = bytes_text if stage == self._of_bytes else "{:,.0f}".format
        speed = f"{number(rate) if rate >= 10 else f'{rate:.2g}'} per second, " if rate else ""
        left = clock(self._pace.left(now) if done < total else 0)
        say(f"{stage}: {number(done)} of {number(total)}, {speed}{left} left")
