"""``status`` and ``runs``: the state of run folders, and what in them can be removed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fmbpo.cli.arguments import Commands, add, add_group, json_argument, runs_argument, say


def add_commands(commands: Commands) -> None:
    """Add them."""
    status = add(commands, "status", "show the state, progress and return of every run", _status)
    runs_argument(status)
    status.add_argument("--phase", metavar="NAME", help="show only the runs of this phase")
    form = status.add_mutually_exclusive_group()
    json_argument(form, "the runs")
    form.add_argument("--markdown", action="store_true", help="print a table in Markdown")

    kinds = add_group(commands, "runs", "prune run folders, or import results")
    prune = add(kinds, "prune", "list what complete runs no longer need; with --yes, remove it",
                _prune)  # fmt: skip
    runs_argument(prune)
    prune.add_argument("--yes", action="store_true", help="remove it")
    importing = add(kinds, "import", "import results that were recorded elsewhere", _import)
    importing.add_argument("file", type=Path, help="a CSV file with the columns in "
                           "docs/statistics.md")  # fmt: skip
    runs_argument(importing)


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
