"""``tasks``: list the known tasks, film policies in them, check them, and create a suite."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from fmbpo.base.files import path_of
from fmbpo.cli.arguments import (
    Commands,
    add,
    add_own_tasks,
    add_query,
    check_argument,
    checked_status,
    json_argument,
    out_argument,
    own_tasks,
    say,
    stoppable_at_once,
    versions_argument,
    whole_number,
)
from fmbpo.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fmbpo.tasks.film import ActOnce
    from fmbpo.tasks.suite import TaskInfo

SCORES, LENGTH = ("PWM", "TD-MPC2"), ("steps",)
"""Last columns of the list: published scores if there are any, else the episodes' length."""
_WIDTH = 80
"""Width of the list, in characters."""
_SMALLEST, _LARGEST = 16, 4096
"""Limits of a video's width and height, in pixels."""


def add_commands(commands: Commands) -> None:
    """Add these commands."""
    tasks = add_query(commands, "tasks", "list, film, check or create tasks", _tasks)
    json_argument(tasks, "the list")
    add_own_tasks(tasks)
    kinds = tasks.add_subparsers(metavar="[COMMAND]")
    render = add(kinds, "render", "write a video of an episode, without a display", _render)
    render.add_argument("task", nargs="?", help="the task (default: every task of the run)")
    render.add_argument("--policy", type=path_of, metavar="RUN",
                        help="the folder of a finished run whose policy acts (default: random "
                        "actions)")  # fmt: skip
    add_own_tasks(render)
    versions_argument(render)
    render.add_argument("--seed", metavar="N",
                        help="the seed of the run's policy (default: the run's first)")  # fmt: skip
    render.add_argument("--episode", type=whole_number(0), default=0, metavar="N",
                        help="start from the initial state of the final evaluation's episode N "
                        "(default: 0)")  # fmt: skip
    render.add_argument("--out", type=path_of, metavar="FILE",
                        help="a .mp4, .gif or .webp file (default: RUN/videos/TASK__SEED.mp4, "
                        "which reports show; TASK.mp4 for random actions)")  # fmt: skip
    render.add_argument("--size", type=_size, default=(320, 240), metavar="WxH",
                        help="width and height in pixels (default: 320x240)")  # fmt: skip
    render.add_argument("--steps", type=whole_number(1), metavar="N",
                        help="steps of the episode (default: all)")  # fmt: skip
    checking = add_query(kinds, "check", "check tasks against the contract", _check)
    checking.add_argument("name", nargs="*", metavar="NAME",
                          help="a suite or a task (default: the tasks that the experiment "
                          "defines)")  # fmt: skip
    add_own_tasks(checking)
    check_argument(checking)
    json_argument(checking, "the checks")
    new = add(kinds, "new", "write a new suite of tasks that passes the contract", _new)
    new.add_argument("name", help="the name of the suite and its package, for instance my_tasks")
    out_argument(new, "suite")


def _tasks(arguments: argparse.Namespace) -> int:
    from fmbpo.tasks.known import suites
    from fmbpo.tasks.suite import Suite

    own = tuple(definition.task(name) for name, definition in own_tasks(arguments).items())
    known = [*suites(), *([Suite("own tasks", own)] if own else [])]
    if arguments.json:
        rows = [{"suite": suite.name, **attrs.asdict(task)} for suite in known for task in suite]
        print(json.dumps(rows, indent=2))
        return 0
    from rich import box
    from rich.table import Table

    from fmbpo.base.text import console

    for suite in known:
        scored = all(None not in (task.pwm_return, task.tdmpc2_return) for task in suite)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("id", "task", "observation", "action", *(SCORES if scored else LENGTH)):
            table.add_column(column, justify="left" if column == "task" else "right", no_wrap=True)
        for number, task in enumerate(suite):
            more = [str(task.episode_steps)]
            if scored:
                more = [f"{score:.1f}" for score in (task.pwm_return, task.tdmpc2_return)]
            sizes = str(task.obs_dim), str(task.action_dim)
            table.add_row(str(number), task.name, *sizes, *more)
        if suite is not known[0]:
            print(f"\n{suite.name}")
        console(sys.stdout, _WIDTH).print(table)
        if scored:
            print("PWM, TD-MPC2: published mean returns (maximum 1000).")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from fmbpo.testing.task_contract import check_tasks

    own = own_tasks(arguments)
    names = arguments.name or list(own)
    if not names:
        raise UserError(
            "there is nothing to check",
            where="tasks check",
            remedy="name a suite or a task (`fmbpo tasks` lists them), or an experiment that "
            "defines tasks with --experiment FILE",
        )
    checked = check_tasks(names, own, say, arguments.check)
    return checked_status(checked, arguments, " ".join(["tasks check", *arguments.name]))


def _new(arguments: argparse.Namespace) -> int:
    from fmbpo.scaffold import new_suite

    project, tasks = new_suite(arguments.name, arguments.out)
    data = shlex.quote(str(project / "random.zarr"))
    print(f"{project}: start with {arguments.name}/__init__.py, then")
    print(f"  pip install -e {shlex.quote(str(project))}")
    print(f"  fmbpo tasks check {arguments.name}")
    collect = f"fmbpo data collect --tasks {','.join(tasks)} --policy random --episodes 500"
    print(f"  {collect} --out {data}")
    print(f"  fmbpo run {shlex.quote(str(project / 'experiment.toml'))} --data {data}")
    print(f"  fmbpo tasks render {tasks[0]}")
    return 0


def _render(arguments: argparse.Namespace) -> int:
    if arguments.policy is None and arguments.task is None:
        raise UserError(
            "there is nothing to film",
            where="tasks render",
            remedy="name a task (`fmbpo tasks` lists them), or a run with --policy RUN",
        )
    if arguments.policy is None and arguments.seed is not None:
        raise UserError(
            "a seed selects a trained policy; random actions have none",
            where="--seed",
            remedy="name a run with --policy RUN, or choose the initial state with --episode N",
        )
    work = _film_random if arguments.policy is None else _film_run
    return stoppable_at_once(arguments, lambda: work(arguments))


def _film_random(arguments: argparse.Namespace) -> None:
    import numpy as np

    from fmbpo.tasks.known import suite_of, task_info

    own, episode = own_tasks(arguments), arguments.episode
    task = task_info(arguments.task, own)
    generator, width = np.random.default_rng(episode), suite_of([task.name], own).action_width
    say(f"{task.name}: random actions, since no --policy is given")

    def act(_: NDArray[Any]) -> NDArray[np.float32]:
        return generator.uniform(-1, 1, width).astype(np.float32)

    out = arguments.out or Path(f"{task.name}.mp4")
    _film(arguments, task, act, episode, out, f"random actions, seed {episode}")


def _film_run(arguments: argparse.Namespace) -> None:
    from fmbpo.running.trained_policies import load_policy, trained_policies
    from fmbpo.tasks.known import task_name

    accept = arguments.accept_plugin_versions
    policies = trained_policies(arguments.policy, accept_versions=accept)
    seed = policies[0].seed if arguments.seed is None else arguments.seed
    tasks = list(dict.fromkeys(policy.task for policy in policies))
    if arguments.task is not None:
        tasks = [task_name(arguments.task)]
    if arguments.out is not None and len(tasks) > 1:
        raise UserError(
            f"one file cannot hold the {len(tasks)} tasks of the run",
            where=f"--out {arguments.out}",
            remedy=f"name one of {', '.join(tasks)}, or omit --out",
        )
    for task in tasks:
        policy = load_policy(arguments.policy, task, seed, accept_versions=accept)
        out = arguments.out or arguments.policy / "videos" / f"{task}__{seed}.mp4"
        initial = policy.evaluation_seed + arguments.episode
        what = f"policy of seed {seed}, episode {arguments.episode}"
        _film(arguments, policy.task, policy.act, initial, out, what)


def _film(
    arguments: argparse.Namespace, task: TaskInfo, act: ActOnce, seed: int, out: Path, what: str
) -> None:
    """Write one video and print its line."""
    from fmbpo.tasks.film import film
    from fmbpo.tasks.suite import SimulationError

    try:
        total, steps = film(task, act, seed, out, size=arguments.size, steps=arguments.steps)
    except SimulationError as error:
        raise UserError(
            str(error), where="tasks render", remedy="choose another --episode, or fewer --steps"
        ) from error
    print(f"{task.name}: {what}: return {total:.1f} in {steps} steps: {out}", flush=True)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text, re.ASCII)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(_SMALLEST <= side <= _LARGEST for side in size):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size such as 320x240, each side {_SMALLEST} to {_LARGEST} pixels"
        )
    return size
