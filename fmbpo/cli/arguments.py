"""What several commands share: the arguments that name an experiment, lines for people."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, TypeAlias

USER_MISTAKE, INTERRUPTED = 2, 130
"""Exit statuses."""
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a module adds its commands."""


def experiment_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, ``--scale``, ``--data`` and ``-o``."""
    parser.add_argument("experiment", type=Path, help="the TOML file of an experiment or a study")
    parser.add_argument(
        "--scale", help='"paper", or an overlay of the file such as "laptop" (default: paper '
        "where a data set is configured, else laptop)"
    )  # fmt: skip
    parser.add_argument("--data", help="the data set (or FMBPO_DATA, or data.path in the file)")
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="KEY=VALUE",
        help="override one value, for example -o policy_learning.iterations=2000",
    )  # fmt: skip


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
