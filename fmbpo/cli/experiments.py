"""``run``, ``check``, ``experiments``, ``compare``, ``config``: commands about experiments."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import attrs

from fmbpo.base.files import path_of
from fmbpo.base.text import printable
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
from fmbpo.cli.processes import in_processes, processes_argument
from fmbpo.errors import UserError

if TYPE_CHECKING:
    from fmbpo.config.schema import Experiment
    from fmbpo.config.study_file import Study
    from fmbpo.distributed.group import Group
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
    run.add_argument("--only", action="append", default=[], metavar="RUN",
                     help="do this run alone, by its name in `fmbpo check`, for which everything "
                     "else is ready; may be repeated (default: all)")  # fmt: skip
    processes_argument(run)

    check = add_query(commands, "check", "check an experiment or a study without training", _check)
    experiment_arguments(check)
    runs_argument(check)
    versions_argument(check)
    json_argument(check, "the checks")

    text = "list the experiments that come with fmbpo, or copy one"
    catalogue = add_query(commands, "experiments", text, _experiments)
    json_argument(catalogue, "the list")
    kinds = catalogue.add_subparsers(metavar="[COMMAND]")
    copy = add(kinds, "copy", "copy one, with all that it extends, to edit it", _copy)
    copy.add_argument("name", help="its name, or an older one")
    copy.add_argument("--out", type=path_of, default=Path("experiments"), metavar="DIR",
                      help="the folder to write to (default: experiments)")  # fmt: skip

    compare = add_query(commands, "compare", "print the differences between experiments; fail if "
                        "one is undeclared", _compare)  # fmt: skip
    compare.add_argument("experiments", type=experiment_file, nargs="+", metavar="FILE|NAME",
                         help="two or more experiments")  # fmt: skip
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

    def lead(group: Group) -> int:
        return stoppable(arguments, lambda stop: _run_until(stop, group, arguments, out), deadline)

    with contextlib.redirect_stdout(sys.stderr):
        return in_processes(arguments, lead)


def _run_until(stop: Stop, group: Group, arguments: argparse.Namespace, out: TextIO) -> int:
    with stop.ends_at_once():  # there is nothing to save yet
        from fmbpo.library import run
        from fmbpo.reporting.closing_table import print_run, print_study
        from fmbpo.running.study import StudyResult

        experiment = _load(arguments)
    ended = run(
        experiment,
        arguments.runs,
        accept_versions=arguments.accept_plugin_versions,
        wait=not arguments.no_wait,
        say=say,
        stop=stop,
        group=group,
        only=arguments.only,
    )
    group.leave()
    stream = sys.stderr if arguments.json else out
    width = max(TABLE_WIDTH, shutil.get_terminal_size().columns)
    found: dict[str, Any]
    if isinstance(ended, StudyResult):
        print_study(ended.summaries, ended.findings, stream, width=width)
        for hypothesis in ended.hypotheses:
            print(printable(hypothesis.sentence), file=stream)
        found = {name: summary.to_json() for name, summary in ended.summaries.items()}
    elif len(ended.models) > 1:
        replicates = {str(seed): summary for seed, summary in ended.models.items()}
        print_study(replicates, [], stream, width=width)
        found = {name: summary.to_json() for name, summary in replicates.items()}
    else:
        print_run(ended.summary, stream, width=width)
        found = ended.summary.to_json()
    say(f"written to {ended.folder}")
    if arguments.json:
        print(json.dumps(found), file=out)
    return 0


def _load(arguments: argparse.Namespace) -> Experiment | Study:
    from fmbpo.config import load_experiment
    from fmbpo.config.study_file import is_study, load_study

    load = load_study if is_study(arguments.experiment) else load_experiment
    return load(**loading(arguments))


def _check(arguments: argparse.Namespace) -> int:
    from fmbpo.library import check

    experiment = _load(arguments)
    differences: list[str] = getattr(experiment, "differences", [])
    accept = arguments.accept_plugin_versions
    found = check(experiment, arguments.runs, accept_versions=accept)
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


def _experiments(arguments: argparse.Namespace) -> int:
    from fmbpo.config.catalogue import entries

    if arguments.json:
        print(json.dumps([attrs.asdict(entry) for entry in entries()], indent=2))
        return 0
    from rich import box
    from rich.table import Table

    from fmbpo.base.text import console

    columns = ("name", "phase", "description", "older names")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for entry in entries():
        table.add_row(entry.name, entry.phase, entry.description, ", ".join(entry.aliases))
    width = max(TABLE_WIDTH, shutil.get_terminal_size().columns)
    console(sys.stdout, width).print(table)
    return 0


def _copy(arguments: argparse.Namespace) -> int:
    from fmbpo.config.catalogue import copy

    file = copy(arguments.name, arguments.out)
    print(file)
    say(f"edit it, then: fmbpo run {file}")
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
