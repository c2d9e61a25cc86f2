"""Commands on run folders: show their state, compare them, remove files that are not needed."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import attrs

from fmbpo.base.files import path_of
from fmbpo.cli.arguments import (
    Commands,
    add,
    add_group,
    add_query,
    experiment_or_folder,
    json_argument,
    runs_argument,
    say,
    stoppable_at_once,
)
from fmbpo.errors import UserError


def add_commands(commands: Commands) -> None:
    """Add these commands."""
    status = add_query(
        commands, "status", "show the state, progress and return of every run", _status
    )
    runs_argument(status)
    status.add_argument("--phase", metavar="NAME", help="show only the runs of this phase")
    form = status.add_mutually_exclusive_group()
    json_argument(form, "the runs")
    form.add_argument("--markdown", action="store_true", help="print a table in Markdown")

    kinds = add_group(commands, "runs", "prune run folders, or import results")
    prune = add(kinds, "prune", "list the files that complete runs no longer need; with --yes, "
                "remove them", _prune)  # fmt: skip
    runs_argument(prune)
    prune.add_argument("--yes", action="store_true", help="remove these files")
    importing = add(kinds, "import", "import results that were recorded elsewhere", _import)
    importing.add_argument("file", type=path_of, help="a CSV file with the columns that "
                           "docs/statistics.md lists")  # fmt: skip
    runs_argument(importing)

    report = add(commands, "report", "compare runs: tables, figures, statistics", _report)
    report.add_argument("runs_of", type=experiment_or_folder, nargs="+", metavar="FILE|NAME|FOLDER",
                        help="the file or name of a study or an experiment, or a folder of a "
                        "study, a run or imported results")  # fmt: skip
    report.add_argument("--out", type=path_of, required=True, metavar="DIR",
                        help="the folder to write")  # fmt: skip
    runs_argument(report)
    report.add_argument("--allow-mixing", action="append", default=[], metavar="FIELD",
                        help="compare runs that differ in protocol, conventions, scale, data, "
                        "evaluation or budget; every title names the difference")  # fmt: skip
    report.add_argument("--separate", action="store_true",
                        help="put runs that must not be ranked against each other into separate "
                        "sections")  # fmt: skip


def _status(arguments: argparse.Namespace) -> int:
    from fmbpo.cluster.watching import watch
    from fmbpo.reporting.status_table import WIDTH, markdown, print_status
    from fmbpo.runs.status import scan

    watched = watch(arguments.runs, scan(arguments.runs))
    entries = list(watched.entries)
    if watched.warning:
        say(watched.warning)
    if arguments.phase is not None:
        entries = [entry for entry in entries if entry.phase == arguments.phase]
    if arguments.json:
        print(json.dumps([attrs.asdict(entry) for entry in entries], indent=2))
    elif arguments.markdown:
        print(markdown(entries), end="")
    elif entries:
        print_status(entries, sys.stdout, width=max(WIDTH, shutil.get_terminal_size().columns))
        print("\n".join(watched.reports), end="\n" * bool(watched.reports))
    else:
        of = f" of phase {arguments.phase}" if arguments.phase is not None else ""
        say(f"no runs{of} in {arguments.runs}")
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    from fmbpo.base.lock import Taken
    from fmbpo.base.text import bytes_text, counted
    from fmbpo.runs.prune import find_waste, remove

    found, total = 0, 0
    for run, waste in find_waste(arguments.runs):
        if arguments.yes:
            try:
                waste = remove(run, waste)
            except (UserError, Taken) as error:
                say(f"not pruned: {error}")
                continue
        for one in waste:
            print(f"{one.path}  {bytes_text(one.size)}  {one.why}")
            found, total = found + 1, total + one.size
    done = "removed" if arguments.yes else "would be removed; --yes removes them"
    files = f"{counted(found, 'file')}, {bytes_text(total)},"
    print(f"{files} {done}" if found else "nothing to remove")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from fmbpo.compare.imported import import_results

    for folder in import_results(arguments.file, arguments.runs):
        print(folder)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    return stoppable_at_once(arguments, lambda: _write(arguments))


def _write(arguments: argparse.Namespace) -> None:
    from fmbpo.compare.comparison import EXPLORATORY
    from fmbpo.library import report

    comparison = report(
        [folder for one in arguments.runs_of for folder in _folders(one, arguments.runs)],
        arguments.out,
        mixing=arguments.allow_mixing,
        separate=arguments.separate,
    )
    for title, lines in comparison.attention.items():
        for line in lines:
            say(f"ATTENTION: {f'{title}: ' if title else ''}{line}")
    for study in comparison.registered:
        print(f"registered hypotheses of {study.study}")
        for hypothesis in study.hypotheses:
            print(f"  {hypothesis.sentence}")
    if comparison.hypotheses:
        print("exploratory")
    else:
        say(EXPLORATORY)
    for section in comparison.sections:
        print(section.title)
        for effect in section.effects:
            found = effect.difference
            known = found.low is not None and found.high is not None
            interval = f" [{found.low:.4g}, {found.high:.4g}]" if known else ""
            note = f"; {effect.note}" if effect.note else ""
            print(f"  {effect.task or 'all tasks'}: {effect.name}: {effect.verdict}"
                  f" ({found.value:+.4g}{interval}{note})")  # fmt: skip
    say(f"written to {arguments.out}: report.html, ...")


def _folders(named: Path, root: Path) -> list[Path]:
    """The folder itself; for the file of a study or an experiment, the folder of its run."""
    from fmbpo.config import toml

    if named.suffix != ".toml":
        return [named]
    name = toml.read(named).tree.get("name", named.stem)
    runs = (path for path in root.glob("*__*") if path.name.startswith(f"{name}__"))
    found = sorted(path for path in runs if path.is_dir())
    if len(found) == 1:
        return found
    what, remedy = f"there is no run of {name}", f"give --runs DIR, or `fmbpo run {named}` first"
    if found:
        what = f"there are {len(found)} runs of {name}"
        remedy = f"name one of their folders: {', '.join(map(str, found))}"
    raise UserError(what, where=str(root), remedy=remedy)
