"""``data collect``: what is asked for on the command line, for ``fmbpo.data.collecting``."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fmbpo.cli.arguments import Commands, say, stoppable
from fmbpo.errors import UserError

if TYPE_CHECKING:
    from fmbpo.data.collecting import Recipe
    from fmbpo.running.stop import Stop


def add_collect(kinds: Commands) -> None:
    """Add the command to ``data``."""
    collect = kinds.add_parser("collect", help="make data in the simulator with the planner")
    collect.add_argument("--out", required=True, type=Path, help="the store to write")
    collect.add_argument(
        "--tasks", help="task names, separated by commas; mt30: all of them; NAME=COUNT for a "
        "number of episodes of its own (default: those of the recipe)"
    )  # fmt: skip
    collect.add_argument(
        "--episodes", type=int, help="episodes per task (default: the recipe's, 64)"
    )
    collect.add_argument(
        "--explore",
        type=int,
        default=0,
        help="further episodes per task of random bursts and rests",
    )
    collect.add_argument(
        "--recover", type=int, default=0, help="further episodes per task of the planner, "
        "interrupted by random actions"
    )  # fmt: skip
    collect.add_argument("--seed", type=int, default=0)
    mix = collect.add_mutually_exclusive_group()
    mix.add_argument(
        "--recipe", default="default", help="mix of behaviours: default, random, mt30-mini, or a "
        "TOML file with a table for each"
    )  # fmt: skip
    mix.add_argument(
        "--noise", metavar="X,Y,…", help="instead of a recipe: only the planner, with these "
        "standard deviations of action noise in equal shares"
    )  # fmt: skip
    collect.add_argument(
        "--policy", type=Path, metavar="RUN", help="a finished run whose policies act in the "
        "planner's place"
    )  # fmt: skip
    collect.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)"
    )
    collect.add_argument("--compress", action="store_true", help="a store a third of the size")
    collect.set_defaults(command=_collect)


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

    def work(stop: Stop) -> int:
        with stop.ends_at_once():  # every finished episode is kept
            path = collect(arguments.out, request, arguments.workers, _Progress())
        print(path)
        return 0

    return stoppable(arguments, work)


def _recipe(arguments: argparse.Namespace) -> Recipe:
    from fmbpo.data.collecting import Recipe, behaviours, recipe_named, with_noise

    if arguments.noise is not None:
        try:
            return Recipe(with_noise([float(word) for word in arguments.noise.split(",")]))
        except ValueError:
            raise UserError(
                "is no list of numbers", where=f"--noise {arguments.noise}", remedy="as 0,0.1,0.3"
            ) from None
    if not arguments.recipe.endswith(".toml"):
        return recipe_named(arguments.recipe)
    import tomli

    file = Path(arguments.recipe)
    try:
        content = tomli.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {error}", where=str(file)) from None
    if not all(isinstance(value, dict) for value in content.values()):
        raise UserError("wants a table [NAME] for each behaviour", where=str(file))
    return Recipe(behaviours(content))


def _episodes(arguments: argparse.Namespace, recipe: Recipe) -> dict[str, int]:
    """Episodes by task."""
    from fmbpo.tasks.mt30 import MT30, task_info

    most = recipe.episodes if arguments.episodes is None else arguments.episodes
    if arguments.tasks is None:
        if not recipe.tasks:
            raise UserError("name the tasks", where="--tasks", remedy="names, or mt30 for all")
        return dict.fromkeys(recipe.tasks, most)
    episodes: dict[str, int] = {}
    for item in arguments.tasks.split(","):
        name, _, count = item.strip().partition("=")
        if count and not count.isdigit():
            raise UserError(f"{count!r} is no number of episodes", where=f"--tasks {item}")
        names = list(MT30) if name.lower() == "mt30" else [task_info(name).name]
        episodes.update(dict.fromkeys(names, int(count or most)))
    return episodes


class _Progress:
    """A line for each finished episode, with the time that is left."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        from fmbpo.base.text import clock
        from fmbpo.runs.progress import Pace

        if self._began is None:
            self._began = time.monotonic(), done
        started, first = self._began
        left = Pace("collect", first, total, started, step=done).left(time.monotonic())
        say(f"{done}/{total} episodes, {clock(left)} left" if left else f"{done}/{total} episodes")
