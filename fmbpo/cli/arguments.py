"""Shared by the commands: arguments, messages, and how a command stops and continues."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fmbpo.base.files import path_of
from fmbpo.base.text import duration as seconds_of
from fmbpo.errors import UserError

if TYPE_CHECKING:
    from fmbpo.running.stop import Stop
    from fmbpo.tasks.known import Own
    from fmbpo.testing.contract import Checked
    from fmbpo.testing.task_contract import CheckedTask

USER_MISTAKE, TRY_AGAIN, INTERRUPTED = 2, 75, 130
"""Exit statuses; 75 is ``EX_TEMPFAIL`` of sysexits.h: the same command continues."""
LAUNCHED = "TORCHELASTIC_RUN_ID"
"""A variable that a launcher of several processes sets, and nobody else."""
ECHO = 3.0
"""Seconds within which a launcher passes on a signal that its processes may have had before."""
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""The subparsers to which a module adds its commands."""


def add(
    commands: Commands, name: str, text: str, work: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a command; ``work`` returns the exit status, ``text`` is the help."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(command=work, only_prints=False)
    return parser


def add_query(
    commands: Commands, name: str, text: str, work: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a command that only prints: it fails if its output cannot be written."""
    parser = add(commands, name, text, work)
    parser.set_defaults(only_prints=True)
    return parser


def add_group(commands: Commands, name: str, text: str) -> Commands:
    """Add a command that requires one of its subcommands."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    return parser.add_subparsers(required=True, metavar="COMMAND")


def experiment_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE|NAME, ``--scale``, ``--data`` and ``-o``."""
    parser.add_argument("experiment", type=experiment_file, metavar="FILE|NAME",
                        help="the TOML file of an experiment or a study, or the name of one that "
                        "`fmbpo experiments` lists")  # fmt: skip
    parser.add_argument("--scale", metavar="NAME",
                        help='"paper", or a scale that the file defines, such as "laptop" '
                        "(default: paper if a data set is configured, else laptop)")  # fmt: skip
    parser.add_argument("--data", metavar="PATH",
                        help="the data set's folder (default: FMBPO_DATA, or the file's "
                        "data.path)")  # fmt: skip
    override_argument(parser, "set one value, for example -o policy_learning.iterations=2000")


def override_argument(parser: argparse.ArgumentParser, text: str) -> None:
    """``-o``, which may be repeated."""
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE",
                        help=text)  # fmt: skip


def runs_argument(parser: argparse.ArgumentParser) -> None:
    """``--runs``."""
    parser.add_argument("--runs", type=path_of, default=Path("runs"), metavar="DIR",
                        help="the folder of all runs (default: runs)")  # fmt: skip


def versions_argument(parser: argparse.ArgumentParser) -> None:
    """``--accept-plugin-versions``."""
    parser.add_argument("--accept-plugin-versions", action="store_true",
                        help="use complete runs and checkpoints that other versions of the "
                        "plugins made")  # fmt: skip


def json_argument(parser: argparse._ActionsContainer, what: str) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON on stdout")


def check_argument(parser: argparse.ArgumentParser) -> None:
    """``--check``, which may be repeated."""
    parser.add_argument("--check", action="append", default=[], metavar="CHECK",
                        help="run this check alone; may be repeated (default: every "
                        "check)")  # fmt: skip


def checked_status(
    checked: Sequence[Checked | CheckedTask], arguments: argparse.Namespace, where: str
) -> int:
    """Print the outcomes, as JSON with ``--json``; returns the status. ``UserError`` if a check
    failed; ``where``: the command."""
    if arguments.json:
        print(json.dumps([one.to_json() for one in checked], indent=2))
    else:
        for one in checked:
            print(*one.table(), sep="\n")
    failed = sum(outcome.status == "failed" for one in checked for outcome in one.outcomes)
    if failed:
        raise UserError(
            f"{failed} check(s) failed",
            where=where,
            remedy="each failed check names the expectation, the finding and the remedy",
        )
    return 0


def out_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """``--out`` of the commands that write a project."""
    parser.add_argument("--out", type=path_of, default=Path(), metavar="DIR",
                        help=f"the folder in which to create the {what}'s folder "
                        "(default: .)")  # fmt: skip


def experiment_file(text: str) -> Path:
    """The file that a person names, by its path or by a name of the catalogue."""
    from fmbpo.config.catalogue import find

    found = find(text)
    if found.stem != Path(text).stem and found.is_file():
        say(f"{Path(text).stem} is an older name of {found}")
    return found


def add_own_tasks(parser: argparse.ArgumentParser) -> None:
    """``--experiment``, whose tasks ``own_tasks`` gives."""
    parser.add_argument("--experiment", type=experiment_file, metavar="FILE|NAME",
                        help="an experiment whose tables [tasks.NAME] define tasks")  # fmt: skip


def own_tasks(arguments: argparse.Namespace) -> Own:
    """The tasks that ``--experiment`` defines."""
    from fmbpo.config.load import load_tasks

    return load_tasks(arguments.experiment) if arguments.experiment else {}


def experiment_or_folder(text: str) -> Path:
    """A folder, if there is one; else ``experiment_file``."""
    path = path_of(text)
    return path if os.path.isdir(path) else experiment_file(text)


def loading(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of ``load_experiment`` and ``load_study``."""
    return {
        "path": arguments.experiment,
        "scale": arguments.scale,
        "overrides": arguments.override,
        "data": arguments.data,
    }


def say(line: str) -> None:
    """Print a message on stderr; stdout is for results."""
    print(line, file=sys.stderr, flush=True)


def stoppable(
    arguments: argparse.Namespace, work: Callable[[Stop], int], deadline: float | None = None
) -> int:
    """The status of ``work``; if a ``Stop`` ends it, print the command that continues."""
    from fmbpo.running.stop import Stop
    from fmbpo.runs.outcome import Interrupted

    try:
        with Stop(deadline, ECHO if LAUNCHED in os.environ else 0.0).listening() as stop:
            return work(stop)
    except Interrupted as stopped:
        # Zarr's event loop would report, with tracebacks, the calls that were cut short.
        logging.getLogger("asyncio").disabled = True
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        why = f" ({stopped.why})" if stopped.why else ""
        say(f"interrupted: {stopped}{why}; the same command continues:")
        say(f"  {shlex.join(['fmbpo', *arguments.words])}")
        return INTERRUPTED if stopped.why == "SIGINT" else TRY_AGAIN


def stoppable_at_once(arguments: argparse.Namespace, work: Callable[[], None]) -> int:
    """``stoppable`` for work that keeps its finished parts, or writes everything or nothing."""

    def ends_at_once(stop: Stop) -> int:
        with stop.ends_at_once():
            work()
        return 0

    return stoppable(arguments, ends_at_once)


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """A type of arguments: whole numbers from ``low`` to ``high``, if that is given."""
    last, kind = 2**31 - 1, f"of at least {low}"
    if high is not None:
        last, kind = high, f"from {low} to {high}"

    def number(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= last:
            raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a whole number {kind}")
        return int(text)

    return number


def duration(text: str) -> float:
    """``fmbpo.base.text.duration`` as a type of arguments."""
    try:
        return seconds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
