"""The command line. Parsing imports nothing heavy; each command imports its own dependencies."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from fmbpo import __version__
from fmbpo.base.files import remedy_of
from fmbpo.base.lock import Taken
from fmbpo.base.text import printable
from fmbpo.cli import checkpoints, cluster, data, experiments, plugins, runs, tasks
from fmbpo.cli.arguments import INTERRUPTED, TRY_AGAIN, USER_MISTAKE, say
from fmbpo.cli.streams import degrading
from fmbpo.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0: done, 2: a mistake to fix, 75: stopped by a scheduler or a time limit, or in use by another
    process, 130: by Ctrl-C.
    """
    with degrading() as output:
        try:
            _check_folder()
            arguments = parser().parse_args(argv)
            arguments.words = sys.argv[1:] if argv is None else list(argv)
            status: int = arguments.command(arguments)
            print(end="", flush=True)
            if output.failure and arguments.only_prints:
                raise output.failure
            if output.failure and not isinstance(output.failure, BrokenPipeError):
                say(f"warning: the output is incomplete: {output.failure.strerror}")
            return status
        except UserError as error:
            return _mistake(error)
        except Taken as other:
            print(f"{other}; run the same command again when that has ended", file=sys.stderr)
            return TRY_AGAIN
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:
            return 1
        except OSError as error:  # not handled by a command: a full disk, say
            place, remedy = str(error.filename or "the output")[:200], remedy_of(error)
            if not remedy:
                raise
            return _mistake(UserError(error.strerror or str(error), where=place, remedy=remedy))


def _check_folder() -> None:
    """Raise ``UserError`` if the working directory was removed: torch ends the process there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        remedy = "change to a folder that exists: cd"
        raise UserError("the working directory no longer exists", remedy=remedy) from None


def _mistake(error: UserError) -> int:
    say(printable(f"error: {error}", keep="\n"))
    return USER_MISTAKE


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; each group's module adds its own."""
    whole = argparse.ArgumentParser(
        prog="fmbpo",
        description="Run and compare experiments: does flow matching help model-based policy "
        "optimisation?",
    )
    whole.add_argument("--version", action="version", version=f"fmbpo {__version__}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for group in (experiments, cluster, runs, plugins, checkpoints, data, tasks):
        group.add_commands(commands)
    return whole
