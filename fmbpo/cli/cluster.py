"""``submit``, ``cancel``: an experiment or a study as jobs of a SLURM cluster."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from fmbpo.base.files import path_of
from fmbpo.cli.arguments import (
    Commands,
    add,
    duration,
    experiment_arguments,
    experiment_file,
    loading,
    runs_argument,
    say,
    stoppable_at_once,
    versions_argument,
    whole_number,
)

if TYPE_CHECKING:
    from fmbpo.cluster.site import Site


def add_commands(commands: Commands) -> None:
    """Add these commands."""
    submit = add(commands, "submit", "queue the runs of an experiment or a study as jobs of a "
                 "SLURM cluster", _submit)  # fmt: skip
    experiment_arguments(submit)
    runs_argument(submit)
    versions_argument(submit)
    submit.add_argument("--dry-run", action="store_true",
                        help="print the graph of jobs and the sbatch lines; write "
                        "nothing")  # fmt: skip
    submit.add_argument("--site", type=path_of, metavar="FILE",
                        help="a TOML file with these settings and more (default: "
                        "FMBPO_SITE)")  # fmt: skip
    for name, text in (
        ("partition", "SLURM's partition"),
        ("account", "the account that pays"),
        ("qos", "the quality of service"),
        ("mem", "memory of a job per node (default: from the preflight's estimate)"),
    ):
        submit.add_argument(f"--{name}", help=text)
    submit.add_argument("--time", type=_time, metavar="TIME",
                        help="time limit of a job; a longer run is queued again and continues "
                        "(default: from the preflight's estimate)")  # fmt: skip
    for name, what in (
        ("gpus-per-job", "GPUs of a job per node (default: 0)"),
        ("cpus-per-job", "cores of a job per node (default: its threads or simulators)"),
        ("nodes-per-job", "nodes of a job (default: 1)"),
        ("processes", "processes that train on a node (default: one per GPU, or one)"),
    ):
        least = 0 if name == "gpus-per-job" else 1
        submit.add_argument(f"--{name}", type=whole_number(least, 1024), metavar="N", help=what)

    cancel = add(commands, "cancel", "cancel the jobs of an experiment or a study", _cancel)
    cancel.add_argument("experiment", type=experiment_file, metavar="FILE|NAME",
                        help="the file or the name that was submitted")  # fmt: skip
    runs_argument(cancel)


def _time(text: str) -> str:
    duration(text)
    return text


def _submit(arguments: argparse.Namespace) -> int:
    return stoppable_at_once(arguments, lambda: _queue(arguments))


def _queue(arguments: argparse.Namespace) -> None:
    site = _site(arguments)
    from fmbpo.base.free_memory import resident
    from fmbpo.cluster import slurm
    from fmbpo.cluster.lines import Lines
    from fmbpo.cluster.record import add_to_plan
    from fmbpo.cluster.submitting import submit
    from fmbpo.cluster.works import check_device, pinned, works_of
    from fmbpo.config import load_experiment
    from fmbpo.config.study_file import Study, is_study, load_study
    from fmbpo.distributed.group import Group
    from fmbpo.library import prepare
    from fmbpo.running.session import Session
    from fmbpo.running.study import StudyRunner, planned

    slurm.check_installed()
    load = load_study if is_study(arguments.experiment) else load_experiment
    experiment = load(**loading(arguments))
    group = Group(0, site.members * site.nodes_per_job, site.members)
    accept, root = arguments.accept_plugin_versions, arguments.runs.absolute()
    session = Session(root=root, say=say, accept_versions=accept, group=group)
    report, runner = prepare(experiment, session, as_jobs=True)
    runners = list(runner.runners.values()) if isinstance(runner, StudyRunner) else [runner]
    check_device(runners, site)
    cells = list(experiment.cells.values()) if isinstance(experiment, Study) else [experiment]
    command = [*_command(arguments, root), *(w for o in pinned(cells, runners) for w in ("-o", o))]
    result = runner.folder.name if isinstance(runner, StudyRunner) else runner.names.result
    out = root / "reports" / experiment.name
    written = ["report", str(root / result), "--runs", str(root), "--out", str(out)]
    policies = any(e.policy is not None for e in cells)
    asked = [max(e.system.threads, e.evaluation.workers) for e in cells]

    def begin() -> None:
        if isinstance(runner, StudyRunner):
            runner.begin()
        else:
            add_to_plan(root, planned("", runner))

    lines = Lines(
        name=experiment.name,
        command=command,
        report=[[*command, "--only", result], written] if policies else [],
        site=site,
        folder=root / "jobs",
        here=Path.cwd(),
        cores=site.cpus_per_job or max(site.members, *asked),
    )
    submit(
        root,
        lines,
        works_of(runners, report, root),
        base=resident(),
        begin=begin,
        say=print,
        dry=arguments.dry_run,
    )


def _site(arguments: argparse.Namespace) -> Site:
    """The settings of the site's file, and the options over them."""
    from fmbpo.cluster.site import VARIABLE, Site, load_site

    file = arguments.site or (path_of(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    names = [field.name for field in attrs.fields(Site)]
    given = vars(arguments) | {"memory": arguments.mem}
    options = {name: given[name] for name in names if given.get(name) is not None}
    return attrs.evolve(load_site(file) if file else Site(), **options)


def _command(arguments: argparse.Namespace, root: Path) -> list[str]:
    """The words of ``fmbpo run`` for the same experiment."""
    from fmbpo.config.load import DATA_VARIABLE

    data = arguments.data or os.environ.get(DATA_VARIABLE)
    words = ["run", str(arguments.experiment), "--runs", str(root)]
    words += ["--scale", arguments.scale] if arguments.scale else []
    words += ["--data", str(data)] if data else []
    words += ["--accept-plugin-versions"] if arguments.accept_plugin_versions else []
    return [*words, *(word for one in arguments.override for word in ("-o", one))]


def _cancel(arguments: argparse.Namespace) -> int:
    from fmbpo.cluster.submitting import cancel
    from fmbpo.config import toml

    file = arguments.experiment
    cancel(arguments.runs.absolute(), toml.read(file).tree.get("name", file.stem), print)
    return 0
