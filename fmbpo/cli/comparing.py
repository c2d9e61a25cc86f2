"""``report``: compare runs, and write what is found as pages."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fmbpo.cli.arguments import Commands, experiment_or_folder, say, stoppable
from fmbpo.errors import UserError

if TYPE_CHECKING:
    from fmbpo.running.stop import Stop


def add_commands(commands: Commands) -> None:
    """Add them."""
    report = commands.add_parser("report", help="compare runs: tables, figures, statistics")
    report.add_argument(
        "runs_of", type=experiment_or_folder, nargs="+", metavar="STUDY|RUN",
        help="a study's or an experiment's file, or folders of studies, runs and imported results",
    )  # fmt: skip
    report.add_argument("--out", type=Path, required=True, metavar="DIR", help="where it goes")
    report.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are (runs)"
    )
    report.add_argument(
        "--allow-mixing", action="append", default=[], metavar="FIELD",
        help="compare runs that differ in protocol, conventions, scale, data, evaluation or "
        "budget; every title says so",
    )  # fmt: skip
    report.add_argument(
        "--separate", action="store_true",
        help="runs that must not be ranked against each other in sections of their own",
    )  # fmt: skip
    report.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> int:
    return stoppable(arguments, lambda stop: _report_until(stop, arguments))


def _report_until(stop: Stop, arguments: argparse.Namespace) -> int:
    with stop.ends_at_once():  # a report is written whole or not at all
        _write(arguments)
    return 0


def _write(arguments: argparse.Namespace) -> None:
    from fmbpo.compare.guard import compare
    from fmbpo.compare.reading import records_of
    from fmbpo.report.pages import check_place, write_report

    check_place(arguments.out)  # before the work, not after it
    folders = [folder for one in arguments.runs_of for folder in _folders(one, arguments.runs)]
    comparison = compare(
        records_of(folders),
        name=" and ".join(one.stem.split("__")[0] for one in arguments.runs_of),
        mixing=arguments.allow_mixing,
        separate=arguments.separate,
    )
    for title, lines in comparison.attention.items():
        for line in lines:
            say(f"ATTENTION: {f'{title}: ' if title else ''}{line}")
    for section in comparison.sections:
        print(section.title)
        for effect in section.effects:
            value, low, high = (
                effect.difference.value,
                effect.difference.low,
                effect.difference.high,
            )
            interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
            print(f"  {effect.task or 'all tasks'}: {effect.name}: {effect.verdict}"
                  f" ({value:+.4g}{interval})")  # fmt: skip
    written = write_report(comparison, arguments.out)
    say(f"written to {arguments.out}: {', '.join(path.name for path in written[:2])}, ...")


def _folders(named: Path, root: Path) -> list[Path]:
    """The folder itself; of a study's or an experiment's file the one that a run of it left."""
    from fmbpo.config import toml

    if named.suffix != ".toml":
        return [named]
    name = toml.read(named).tree.get("name", named.stem)
    found = sorted(path for path in root.glob(f"{name}__*") if path.is_dir())
    if len(found) == 1:
        return found
    if not found:
        raise UserError(
            f"there is no run of {name}",
            where=str(root),
            remedy=f"fmbpo run {named}, or --runs DIR",
        )
    raise UserError(
        f"there are {len(found)} of {name}: which one?",
        where=str(root),
        remedy=f"name a folder: {', '.join(path.name for path in found)}",
    )
