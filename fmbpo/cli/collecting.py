"""``data collect``: the command line of ``fmbpo.data.collecting``."""

from __future__ import annotations

import argparse
import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fmbpo.cli.arguments import Commands, add, stoppable_at_once
from fmbpo.cli.progress import Lines
from fmbpo.errors import UserError

if TYPE_CHECKING:
    from fmbpo.data.collecting import Recipe


def add_collect(kinds: Commands) -> None:
    """Add the command to ``data``."""
    collect = add(kinds, "collect", "collect data in the simulator with a planner", _collect)
    collect.add_argument("--out", required=True, type=Path, metavar="STORE",
                         help="the store to write")  # fmt: skip
    collect.add_argument("--tasks", metavar="NAME,…",
                         help="tasks; NAME=COUNT gives one its own number of episodes, mt30 "
                         "names all tasks (default: the recipe's)")  # fmt: skip
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
    mix.add_argument("--recipe", default="default", metavar="NAME|FILE",
                     help="mix of behaviours: default, random, mt30-mini, or a TOML file with a "
                     "table for each")  # fmt: skip
    mix.add_argument("--noise", metavar="X,Y,…",
                     help="instead of a recipe: only the planner, with these standard deviations "
                     "of action noise in equal shares")  # fmt: skip
    collect.add_argument("--policy", type=Path, metavar="RUN",
                         help="a finished run whose policies replace the planner")  # fmt: skip
    collect.add_argument("--workers", type=int, metavar="N", default=os.cpu_count() or 1,
                         help="processes (default: one per core)")  # fmt: skip
    collect.add_argument("--compress", action="store_true",
                         help="a store of a third of the size, slower to write")  # fmt: skip


def _collect(arguments: argparse.Namespace) -> int:
    from fmbpo.data.collecting import Request, collect

    recipe = _recipe(arguments)
    episodes = _episodes(arguments, recipe)
    policies = None
    if arguments.policy is not None:
        from fmbpo.running.collecting_policies import run_agent

        policies = run_agent(arguments.policy, list(episodes))
    request = Request(
        list(episodes),
        episodes,
        recipe.mix,
        seed=arguments.seed,
        explore=arguments.explore,
        recover=arguments.recover,
        compress=arguments.compress,
        policies=policies,
    )

    def work() -> None:
        lines = functools.partial(Lines(), "episodes")
        path = collect(arguments.out, request, arguments.workers, lines)
        print(path)

    return stoppable_at_once(arguments, work)


def _recipe(arguments: argparse.Namespace) -> Recipe:
    from fmbpo.data.collecting import Recipe, behaviours, recipe_named, with_noise

    if arguments.noise is not None:
        try:
            return Recipe(with_noise([float(word) for word in arguments.noise.split(",")]))
        except ValueError:
            where = f"--noise {arguments.noise}"
            raise UserError("not a list of numbers", where=where, remedy="as 0,0.1,0.3") from None
    if not arguments.recipe.endswith(".toml"):
        return recipe_named(arguments.recipe)
    from fmbpo.config import toml

    content = toml.read(Path(arguments.recipe)).tree
    if not all(isinstance(value, dict) for value in content.values()):
        raise UserError(
            "a value stands outside the tables of behaviours",
            where=arguments.recipe,
            remedy="write a table [NAME] for each behaviour",
        )
    return Recipe(behaviours(content))


def _episodes(arguments: argparse.Namespace, recipe: Recipe) -> dict[str, int]:
    """Episodes by task."""
    from fmbpo.tasks.mt30 import MT30, task_info

    most = recipe.episodes if arguments.episodes is None else arguments.episodes
    if arguments.tasks is None:
        if not recipe.tasks:
            what, remedy = "the recipe has no tasks of its own", "name the tasks, or mt30 for all"
            raise UserError(what, where="--tasks", remedy=remedy)
        return dict.fromkeys(recipe.tasks, most)
    episodes: dict[str, int] = {}
    for item in arguments.tasks.split(","):
        name, _, count = item.strip().partition("=")
        if count and not re.fullmatch(r"\d{1,9}", count, re.ASCII):
            what, remedy = f"{count!r} is no number of episodes", "write NAME=COUNT"
            raise UserError(what, where=f"--tasks {item}", remedy=remedy)
        names = list(MT30) if name.lower() == "mt30" else [task_info(name).name]
        episodes.update(dict.fromkeys(names, int(count or most)))
    return episodes
