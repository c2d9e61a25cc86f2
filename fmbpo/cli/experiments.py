"""``run``, ``check``, ``compare``, ``config``: commands about experiment files."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from fmbpo.cli.arguments import (
    Commands,
    duration,
    experiment_arguments,
    experiment_file,
    loading,
    say,
    stoppable,
)
from fmbpo.errors import UserError

if TYPE_CHECKING:
    from fmbpo.running.preflight import Report
    from fmbpo.running.stop import Stop

TABLE_WIDTH, PLANNED = 100, 20
"""Columns that the closing table needs, and further ones for the returns of planning."""


def add_commands(commands: Commands) -> None:
    """Add them."""
    run = commands.add_parser("run", help="run an experiment or a study to its end, or continue it")
    experiment_arguments(run)
    run.add_argument("--runs", default="runs", metavar="DIR", help="where runs go (default: runs)")
    run.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    run.add_argument(
        "--time-limit", type=duration, metavar="TIME",
        help="save and stop (status 75) before so much time has passed: 90m, 2h, 45s, or as SLURM "
        "takes it, MM, MM:SS, HH:MM:SS, D-HH:MM:SS",
    )  # fmt: skip
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="validate an experiment whole, without training")
    experiment_arguments(check)
    check.add_argument("--runs", default="runs", metavar="DIR", help="where they would go")
    check.add_argument("--json", action="store_true", help="print the checks as JSON")
    check.set_defaults(command=_check)

    compare = commands.add_parser(
        "compare", help="print in what experiments differ; fails where it is no declared factor"
    )
    compare.add_argument(
        "experiments", type=experiment_file, nargs="+", help="two or more TOML files"
    )
    compare.add_argument("--scale", default="paper", help="at which scale (default: paper)")
    compare.add_argument(
        "--factor", action="append", metavar="NAME",
        help="what may differ: world_model, policy, or a key (default: world_model and policy)",
    )  # fmt: skip
    compare.set_defaults(command=_compare)

    config = commands.add_parser("config", help="show a configuration, or what one may hold")
    config_commands = config.add_subparsers(required=True, metavar="COMMAND")
    show = config_commands.add_parser("show", help="print what a file resolves to, as TOML")
    experiment_arguments(show)
    show.add_argument("--origin", action="store_true", help="say where each value comes from")
    show.add_argument("--json", action="store_true", help="print it as JSON")
    show.set_defaults(command=_config_show)
    config_schema = config_commands.add_parser(
        "schema", help="print the JSON Schema of experiment files, with the installed plugins"
    )
    config_schema.set_defaults(command=_config_schema)


def _run(arguments: argparse.Namespace) -> int:
    limit: float | None = arguments.time_limit
    deadline = None if limit is None else time.monotonic() + limit
    out = sys.stdout  # for results; what a plugin prints meanwhile goes to stderr
    with contextlib.redirect_stdout(sys.stderr):
        return stoppable(arguments, lambda stop: _run_until(stop, arguments, out), deadline)


def _run_until(stop: Stop, arguments: argparse.Namespace, out: TextIO) -> int:
    import shutil

    with stop.ends_at_once():  # nothing is there to be saved
        from fmbpo.config import load_experiment
        from fmbpo.config.study_file import is_study, load_study
        from fmbpo.report.run_pictures import draw_missing
        from fmbpo.report.run_table import print_run
        from fmbpo.report.study_table import print_study
        from fmbpo.running.preflight import preflight
        from fmbpo.running.run import Runner
        from fmbpo.running.study import StudyRunner

        root = Path(arguments.runs)

        def draw(folder: Path) -> list[Path]:
            return draw_missing(folder, say)

        runner: StudyRunner | Runner
        if is_study(arguments.experiment):
            study = load_study(**loading(arguments))
            before = _checked(preflight(study.cells, root, thorough=False, traceback=root))
            runner = StudyRunner(study, root, say, before.loaded, before.seconds, draw)
        else:
            one = load_experiment(**loading(arguments))
            before = _checked(preflight({"": one}, root, thorough=False, traceback=root))
            data = before.loaded[0][1] if before.loaded else None
            runner = Runner(one, root, say, data, expected=before.seconds, draw=draw)
    stream = sys.stderr if arguments.json else out
    width = max(TABLE_WIDTH, shutil.get_terminal_size().columns)
    if isinstance(runner, StudyRunner):
        cells = runner.run(stop)
        print_study(cells.summaries, cells.findings, stream, width=width)
        folder = cells.folder
        found = {name: summary.to_json() for name, summary in cells.summaries.items()}
    else:
        result = runner.run(stop)
        wide = max(width, TABLE_WIDTH + PLANNED) if result.summary.planning else width
        print_run(result.summary, stream, width=wide)
        folder, found = result.folder, result.summary.to_json()
    say(f"written to {folder}")
    if arguments.json:
        print(json.dumps(found), file=out)
    return 0


def _checked(found: Report) -> Report:
    """A preflight before a run: one line where all is well, else the table; ``UserErrors``."""
    if any(row.status != "ok" for row in found.rows):
        found.print(sys.stderr)
    found.raise_failures()
    say(found.line)
    return found


def _check(arguments: argparse.Namespace) -> int:
    from fmbpo.config import load_experiment
    from fmbpo.config.study_file import is_study, load_study
    from fmbpo.running.preflight import preflight

    differences = []
    if is_study(arguments.experiment):
        study = load_study(**loading(arguments))
        cells, differences = study.cells, study.differences
    else:
        cells = {"": load_experiment(**loading(arguments))}
    found = preflight(cells, Path(arguments.runs))
    if arguments.json:
        rows = [row.to_json() for row in found.rows]
        print(json.dumps({"differences": differences, "checks": rows}, indent=2))
    else:
        for line in differences:
            print(f"differs as declared: {line}")
        found.print(sys.stdout)
    found.raise_failures()
    if not arguments.json:
        print(f"ok: {arguments.experiment} can run")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from fmbpo.config import load_experiment
    from fmbpo.config.factors import FACTORS, differences
    from fmbpo.measure.sizes import sizes

    if len(arguments.experiments) < 2:
        raise UserError("there is one experiment alone", where="compare", remedy="name another")
    # What is compared is the files; which data they would run on does not matter.
    experiments = [
        load_experiment(file, scale=arguments.scale, data="embedded")
        for file in arguments.experiments
    ]
    declared, undeclared = differences(experiments, arguments.factor or FACTORS)
    for line in declared:
        print(f"declared    {line}")
    for line in undeclared:
        print(f"UNDECLARED  {line}")
    lines, warnings = sizes(experiments)
    for line in lines:
        print(f"parameters  {line}")
    for warning in warnings:
        print(f"WARNING     {warning}")
    if undeclared:
        raise UserError(
            f"{len(undeclared)} difference(s) beyond the declared factors",
            where=", ".join(e.name for e in experiments),
            remedy="make them equal, or declare them with --factor KEY",
        )
    print(f"ok: {', '.join(e.name for e in experiments)} differ in nothing else")
    return 0


def _config_show(arguments: argparse.Namespace) -> int:
    from fmbpo.config.show import shown, toml_text

    values, origins = shown(**loading(arguments))
    if arguments.json:
        found = {"values": values, "origins": origins} if arguments.origin else values
        print(json.dumps(found, indent=2))
    else:
        print(toml_text(values, origins if arguments.origin else {}), end="")
    return 0


def _config_schema(_: argparse.Namespace) -> int:
    from fmbpo.config.json_schema import schema_text

    print(schema_text(say=say), end="")
    return 0
