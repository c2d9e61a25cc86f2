"""``status`` and ``runs``: what the run folders say, and what of them can go."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fmbpo.cli.arguments import Commands, say


def add_commands(commands: Commands) -> None:
    """Add them."""
    status = commands.add_parser("status", help="show every run: state, progress, return")
    _root(status)
    status.add_argument("--phase", help="those of one phase alone")
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print it as JSON on stdout")
    form.add_argument("--markdown", action="store_true", help="print it as a table in Markdown")
    status.set_defaults(command=_status)

    runs = commands.add_parser("runs", help="look after run folders")
    kinds = runs.add_subparsers(required=True, metavar="COMMAND")
    prune = kinds.add_parser(
        "prune", help="list what complete runs keep and nobody needs; with --yes, remove it"
    )
    _root(prune)
    prune.add_argument("--yes", action="store_true", help="remove it")
    prune.set_defaults(command=_prune)
    importing = kinds.add_parser("import", help="take in results that were recorded elsewhere")
    importing.add_argument("file", type=Path, help="a CSV file: docs/statistics.md has its columns")
    _root(importing)
    importing.set_defaults(command=_import)


def _root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are (runs)"
    )


def _status(arguments: argparse.Namespace) -> int:
    import shutil

    import attrs

    from fmbpo.report.status_table import WIDTH, markdown, print_status
    from fmbpo.runs.status import scan

    entries = scan(arguments.runs)
    if arguments.phase is not None:
        entries = [entry for entry in entries if entry.phase == arguments.phase]
    if arguments.json:
        print(json.dumps([attrs.asdict(entry) for entry in entries], indent=2))
    elif arguments.markdown:
        print(markdown(entries), end="")
    elif entries:
        print_status(entries, sys.stdout, width=max(WIDTH, shutil.get_terminal_size().columns))
    else:
        of = f" of phase {arguments.phase}" if arguments.phase is not None else ""
        say(f"no runs{of} in {arguments.runs}")
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    from fmbpo.base.text import bytes_text
    from fmbpo.errors import UserError
    from fmbpo.runs.prune import find_waste, remove

    found, total = 0, 0
    for run, waste in find_waste(arguments.runs):
        if arguments.yes:
            try:
                waste = remove(run, waste)
            except UserError as error:
                say(f"left as it is: {error}")
                continue
        for one in waste:
            print(f"{one.path}  {bytes_text(one.size)}  {one.why}")
            found, total = found + 1, total + one.size
    done = "removed" if arguments.yes else "would be removed; --yes removes it"
    print(f"{found} of {bytes_text(total)} {done}" if found else "nothing to remove")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from fmbpo.compare.imported import import_results

    for folder in import_results(arguments.file, arguments.runs):
        print(folder)
    return 0
