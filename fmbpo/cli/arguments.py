"""What several commands share: the arguments that name an experiment, lines for people."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from fmbpo.running.stop import Stop

USER_MISTAKE, TRY_AGAIN, INTERRUPTED = 2, 75, 130
"""Exit statuses; 75 is ``EX_TEMPFAIL`` of sysexits.h: the same command continues."""
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a module adds its commands."""


def experiment_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, ``--scale``, ``--data`` and ``-o``."""
    parser.add_argument(
        "experiment", type=experiment_file, help="the TOML file of an experiment or a study"
    )
    parser.add_argument(
        "--scale", help='"paper", or an overlay of the file such as "laptop" (default: paper '
        "where a data set is configured, else laptop)"
    )  # fmt: skip
    parser.add_argument("--data", help="the data set (or FMBPO_DATA, or data.path in the file)")
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="KEY=VALUE",
        help="override one value, for example -o policy_learning.iterations=2000",
    )  # fmt: skip


def experiment_file(text: str) -> Path:
    """The file itself; where there is none, the one beside it that has the name as an alias."""
    path = Path(text)
    if path.exists() or not path.parent.is_dir():
        return path
    from fmbpo.config.load import of_alias

    found = of_alias(path)
    if found is None:
        return path
    say(f"{path.stem} is an older name of {found}")
    return found


def experiment_or_folder(text: str) -> Path:
    """``experiment_file`` of a name that ends in ``.toml``; any other name is a folder's."""
    return experiment_file(text) if text.endswith(".toml") else Path(text)


def loading(arguments: argparse.Namespace) -> dict[str, Any]:
    """What ``load_experiment`` and ``load_study`` are given."""
    return {
        "path": arguments.experiment,
        "scale": arguments.scale,
        "overrides": arguments.override,
        "data": arguments.data,
    }


def say(line: str) -> None:
    """A line for people, on stderr: stdout is for results."""
    print(line, file=sys.stderr, flush=True)


def stoppable(
    arguments: argparse.Namespace, work: Callable[[Stop], int], deadline: float | None = None
) -> int:
    """``work`` under a ``Stop``; where that ends it, the status, and how to continue is said."""
    from fmbpo.running.stop import Stop
    from fmbpo.runs.outcome import Interrupted

    try:
        with Stop(deadline).listening() as stop:
            return work(stop)
    except Interrupted as stopped:
        why = f" ({stopped.why})" if stopped.why else ""
        say(f"interrupted: {stopped}{why}; the same command continues:")
        say(f"  {shlex.join(['fmbpo', *arguments.words])}")
        return INTERRUPTED if stopped.why == "SIGINT" else TRY_AGAIN


_UNITS = {"s": 1, "m": 60, "h": 3600}
_LONGEST = 366
"""Days of a time limit, at most; a timer of the system takes no number without end."""


def duration(text: str) -> float:
    """Seconds of ``90m``, ``2h``, ``45s``, or of a time as SLURM takes it.

    SLURM's are ``MM``, ``MM:SS``, ``HH:MM:SS``, ``D-HH``, ``D-HH:MM`` and ``D-HH:MM:SS``. Raises
    ``argparse.ArgumentTypeError`` for anything else, for no time at all, and for over 366 days.
    """
    if re.search(r"\d{16}", text):
        raise _too_long(text)
    short = re.fullmatch(r"(\d+)([smh])", text, re.ASCII)
    whole = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text, re.ASCII)
    if short:
        seconds = int(short[1]) * _UNITS[short[2]]
    elif whole:
        days, *rest = whole.groups()
        parts = [int(part) for part in rest if part is not None]
        # Behind days the first number is hours; else one or two numbers begin with minutes.
        hours = parts if days or len(parts) == 3 else [0, *parts]
        hour, minute, second = [*hours, 0, 0][:3]
        seconds = ((int(days or 0) * 24 + hour) * 60 + minute) * 60 + second
        if max(parts[1:], default=0) > 59:
            seconds = 0
    else:
        seconds = 0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time limit: give 90m, 2h, 45s, MM, MM:SS, HH:MM:SS or D-HH:MM:SS"
        )
    if seconds > _LONGEST * 24 * 3600:
        raise _too_long(text)
    return float(seconds)


def _too_long(text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text[:20]!r} is over {_LONGEST} days: give a shorter time")
