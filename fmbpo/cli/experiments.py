"""``run``, ``check``, ``compare``, ``config``: commands about experiment files."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, TextIO

from fmbpo.cli.arguments import (
    Commands,
    add,
    add_group,
    add_query,
    duration,
    experiment_arguments,
    experiment_file,
    json_argument,
    loading,
    runs_argument,
    say,
    stoppable,
    versions_argument,
)
from fmbpo.errors import UserError

if TYPE_CHECKING:
    from fmbpo.config.schema import Experiment
    from fmbpo.config.study_file import Study
    from fmbpo.running.stop import Stop

TABLE_WIDTH = 120
"""Width of the closing table in characters, unless the terminal is wider."""


def add_commands(commands: Commands) -> None:
    """Add these commands."""
    run = add(commands, "run", "run or continue an experiment or a study", _run)
    experiment_arguments(run)
    runs_argument(run)
    versions_argument(run)
    json_argument(run, "the summary")
    run.add_argument("--time-limit", type=duration, metavar="TIME",
                     help="save and stop (status 75) before this time has passed: 90m, 2h, "
                     "45s, or SLURM's MM, MM:SS, HH:MM:SS, D-HH:MM:SS")  # fmt: skip
    run.add_argument("--no-wait", action="store_true",
                     help="end with status 75 if another process works on a part of the run "
                     "(default: wait for it)")  # fmt: skip

    check = add_query(commands, "check", "check an experiment or a study without training", _check)
    experiment_arguments(check)
    runs_argument(check)
    versions_argument(check)
    json_argument(check, "the checks")

    compare = add_query(commands, "compare", "print the differences between experiments; fail if "
                        "one is undeclared", _compare)  # fmt: skip
    compare.add_argument("experiments", type=experiment_file, nargs="+", metavar="FILE",
                         help="two or more TOML files of experiments")  # fmt: skip
    compare.add_argument("--scale", default="paper", metavar="NAME",
                         help="the scale to compare at (default: paper)")  # fmt: skip
    compare.add_argument("--factor", action="append", metavar="NAME",
                         help="a declared difference: world_model, policy, or a key (default: "
                         "world_model and policy)")  # fmt: skip

    config = add_group(
        commands, "config", "show a configuration, or the schema of experiment files"
    )
    show = add_query(config, "show", "print the resolved configuration of a file as TOML",
                     _config_show)  # fmt: skip
    experiment_arguments(show)
    show.add_argument("--origin", action="store_true", help="add the origin of each value")
    json_argument(show, "the configuration")
    add_query(config, "schema",
              "print the JSON Schema of experiment files with the installed plugins",
              _config_schema)  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    limit: float | None = arguments.time_limit
    deadline = None if limit is None else time.monotonic() + limit
    out = sys.stdout  # for results; anything that a plugin prints goes to stderr
    with contextlib.redirect_stdout(sys.stderr):
        return stoppable(arguments, lambda stop: _run_until(stop, arguments, out), deadline)


def _run_until(stop: Stop, arguments: argparse.Namespace, out: TextIO) -> int:
    with stop.ends_at_once():  # there is nothing to save yet
        from fmbpo.reporting.closing_table import print_run, print_study
        from fmbpo.reporting.run_pictures import draw_missing
        from fmbpo.running.preflight import preflight
        from fmbpo.running.run import Runner, Session
        from fmbpo.running.study import StudyRunner

        root, draw = arguments.runs, functools.partial(draw_missing, say=say)
        study, cells = _load(arguments)
        accept = arguments.accept_plugin_versions
        before = preflight(cells, root, thorough=False, traceback=root, accept_versions=accept)
        if any(row.status != "ok" for row in before.rows):
            before.print(sys.stderr)
        before.raise_failures()
        say(before.line)
        session = Session(
            root=root,
            say=say,
            draw=draw,
            expected=before.seconds,
            accept_versions=accept,
            wait=not arguments.no_wait,
        )
        if study:
            runner: StudyRunner | Runner = StudyRunner(study, session, before.loaded)
        else:
            runner = Runner(cells[""], session, before.loaded[0][1] if before.loaded else None)
    stream = sys.stderr if arguments.json else out
    width = max(TABLE_WIDTH, shutil.get_terminal_size().columns)
    if isinstance(runner, StudyRunner):
        ended = runner.run(stop)
        print_study(ended.summaries, ended.findings, stream, width=width)
        folder = ended.folder
        found = {name: summary.to_json() for name, summary in ended.summaries.items()}
    else:
        result = runner.run(stop)
        print_run(result.summary, stream, width=width)
        folder, found = result.folder, result.summary.to_json()
    say(f"written to {folder}")
    if arguments.json:
        print(json.dumps(found), file=out)
    return 0


def _load(arguments: argparse.Namespace) -> tuple[Study | None, dict[str, Experiment]]:
    """The study and its experiments by cell, or None and one experiment under ``""``."""
    from fmbpo.config import load_experiment
    from fmbpo.config.study_file import is_study, load_study

    given = loading(arguments)
    if not is_study(arguments.experiment):
        return None, {"": load_experiment(**given)}
    study = load_study(**given)
    return study, study.cells


def _check(arguments: argparse.Namespace) -> int:
    from fmbpo.running.preflight import preflight

    study, cells = _load(arguments)
    differences = [] if study is None else study.differences
    accept = arguments.accept_plugin_versions
    found = preflight(cells, arguments.runs, accept_versions=accept)
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
        raise UserError("only one experiment is named", where="compare", remedy="name another")
    # The comparison is of the files; the data set does not matter.
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
