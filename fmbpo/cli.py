"""The command line. Parsing imports nothing heavy; each command imports what it needs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmbpo import __version__
from fmbpo.errors import UserError

USER_MISTAKE = 2
TABLE_WIDTH, PLANNED = 100, 20
"""Columns that the closing table needs, and further ones for the returns of planning."""
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (0 done, 2 a mistake to mend, 130 interrupted)."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fmbpo", description="Does flow matching help model-based policy optimisation?"
    )
    parser.add_argument("--version", action="version", version=f"fmbpo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run an experiment or a study to its end, or continue it")
    _experiment_arguments(run)
    run.add_argument("--runs", default="runs", metavar="DIR", help="where runs go (default: runs)")
    run.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="validate an experiment whole, without training")
    _experiment_arguments(check)
    check.set_defaults(command=_check)

    compare = commands.add_parser(
        "compare", help="print in what experiments differ; fails where it is no declared factor"
    )
    compare.add_argument("experiments", type=Path, nargs="+", help="two or more TOML files")
    compare.add_argument("--scale", default="paper", help="at which scale (default: paper)")
    compare.add_argument(
        "--factor", action="append", metavar="NAME",
        help="what may differ: world_model, policy, or a key (default: world_model and policy)",
    )  # fmt: skip
    compare.set_defaults(command=_compare)

    config = commands.add_parser("config", help="show a configuration, or what one may hold")
    config_commands = config.add_subparsers(required=True, metavar="COMMAND")
    show = config_commands.add_parser("show", help="print what a file resolves to, as TOML")
    _experiment_arguments(show)
    show.add_argument("--origin", action="store_true", help="say where each value comes from")
    show.add_argument("--json", action="store_true", help="print it as JSON")
    show.set_defaults(command=_config_show)
    config_schema = config_commands.add_parser(
        "schema", help="print the JSON Schema of experiment files, with the installed plugins"
    )
    config_schema.set_defaults(command=_config_schema)

    plugins = commands.add_parser("plugins", help="list, check or begin plugins")
    plugins.add_argument("--json", action="store_true")
    plugins.set_defaults(command=_plugins)
    plugin_commands = plugins.add_subparsers(metavar="COMMAND")
    checking = plugin_commands.add_parser("check", help="hold plugins against the contract")
    checking.add_argument("name", nargs="?", help="the plugin's name (default: every plugin)")
    checking.add_argument(
        "--kind", choices=("world_model", "policy"), help="where both kinds have the name"
    )
    checking.add_argument(
        "-o", "--override", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of the plugin, on top of its small ones",
    )  # fmt: skip
    checking.add_argument("--json", action="store_true")
    checking.set_defaults(command=_plugins_check)
    new = plugin_commands.add_parser("new", help="write a plugin to begin with")
    new.add_argument("kind", choices=("world_model", "policy"))
    new.add_argument("name", help="its name and its package's, for instance my_policy")
    new.add_argument("--out", type=Path, default=Path(), help="where its folder goes (default: .)")
    new.set_defaults(command=_plugins_new)

    importing = commands.add_parser(
        "import-checkpoint", help="take in a world model of TD-MPC2's, which PWM begins with"
    )
    importing.add_argument("file", type=Path, help="their file, for instance mt30_48M_4900000.pt")
    importing.add_argument(
        "--out", type=Path, help="the checkpoint to write (default: checkpoints/NAME)"
    )
    importing.set_defaults(command=_import_checkpoint)

    data = commands.add_parser("data", help="collect, describe and verify data sets")
    kinds = data.add_subparsers(required=True, metavar="COMMAND")
    collect = kinds.add_parser("collect", help="make data in the simulator with the planner")
    collect.add_argument("--out", required=True, type=Path, help="the store to write")
    collect.add_argument(
        "--tasks", required=True, help="task names, separated by commas; NAME=COUNT for a "
        "task with its own number of episodes"
    )  # fmt: skip
    collect.add_argument("--episodes", type=int, default=64, help="episodes a task (default: 64)")
    collect.add_argument(
        "--explore", type=int, default=0, help="further episodes a task of random bursts and rests"
    )
    collect.add_argument(
        "--recover", type=int, default=0, help="further episodes a task of the planner, "
        "interrupted by random actions"
    )  # fmt: skip
    collect.add_argument("--seed", type=int, default=0)
    collect.add_argument("--recipe", default="default", help="mix of behaviours: default or random")
    collect.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )
    collect.add_argument("--compress", action="store_true", help="a store a third of the size")
    collect.set_defaults(command=_collect)
    for name, action, text in (
        ("info", _info, "describe a data set"),
        ("verify", _verify, "read every row and compare it with the data set's id"),
    ):
        one = kinds.add_parser(name, help=text)
        one.add_argument("path", help='the store, or "embedded" for the one in the package')
        one.set_defaults(command=action)
    return parser


def _experiment_arguments(parser: argparse.ArgumentParser) -> None:
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


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _run(arguments: argparse.Namespace) -> int:
    import shutil

    from fmbpo.engine.loop import Interrupted
    from fmbpo.engine.run import Runner
    from fmbpo.engine.study import StudyRunner
    from fmbpo.experiment import load_experiment
    from fmbpo.experiment.study import is_study, load_study
    from fmbpo.report.side_by_side import print_comparison
    from fmbpo.report.table import print_closing

    stream = sys.stderr if arguments.json else sys.stdout
    width = max(TABLE_WIDTH, shutil.get_terminal_size().columns)
    root = Path(arguments.runs)
    try:
        if is_study(arguments.experiment):
            cells = StudyRunner(load_study(**_loading(arguments)), root, _say).run()
            print_comparison(cells.summaries, cells.findings, stream, width=width)
            folder = cells.folder
            found = {name: summary.to_json() for name, summary in cells.summaries.items()}
        else:
            result = Runner(load_experiment(**_loading(arguments)), root, _say).run()
            wide = max(width, TABLE_WIDTH + PLANNED) if result.summary.planning else width
            print_closing(result.summary, stream, width=wide)
            folder, found = result.folder, result.summary.to_json()
    except Interrupted as stopped:
        _say(f"interrupted: {stopped}; the same command continues")
        return INTERRUPTED
    _say(f"written to {folder}")
    if arguments.json:
        print(json.dumps(found))
    return 0


def _loading(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "path": arguments.experiment,
        "scale": arguments.scale,
        "overrides": arguments.override,
        "data": arguments.data,
    }


def _check(arguments: argparse.Namespace) -> int:
    from fmbpo.engine.check import check_experiment
    from fmbpo.experiment import load_experiment
    from fmbpo.experiment.study import is_study, load_study

    if is_study(arguments.experiment):
        study = load_study(**_loading(arguments))
        for line in study.differences:
            print(f"ok: differs as declared: {line}")
        for name, experiment in study.cells.items():
            print(f"-- cell {name}")
            for line in check_experiment(experiment):
                print(line)
    else:
        for line in check_experiment(load_experiment(**_loading(arguments))):
            print(line)
    print(f"ok: {arguments.experiment} can run")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from fmbpo.engine.sizes import sizes
    from fmbpo.experiment import load_experiment
    from fmbpo.experiment.factors import FACTORS, differences

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
    from fmbpo.experiment.show import shown, toml_text

    values, origins = shown(**_loading(arguments))
    if arguments.json:
        found = {"values": values, "origins": origins} if arguments.origin else values
        print(json.dumps(found, indent=2))
    else:
        print(toml_text(values, origins if arguments.origin else {}), end="")
    return 0


def _config_schema(_: argparse.Namespace) -> int:
    from fmbpo.experiment.json_schema import schema_text

    print(schema_text(say=_say), end="")
    return 0


def _plugins(arguments: argparse.Namespace) -> int:
    from fmbpo.registry import list_plugins

    found = list_plugins()
    rows = [
        {
            "kind": listing.kind,
            "name": listing.name,
            "version": listing.version,
            "distribution": listing.distribution,
            "module": listing.value,
        }
        for listing in found
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    if not rows:
        print("no plugin is installed; install one with: pip install -e plugins/NAME")
        return 0
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    for row in [{key: key for key in widths}, *rows]:
        print("  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip())
    claims = Counter((listing.kind, listing.name) for listing in found)
    for (kind, name), count in claims.items():
        if count > 1:
            _say(f"WARNING: {count} distributions offer the {kind} {name!r}: uninstall all but one")
    return 0


def _plugins_check(arguments: argparse.Namespace) -> int:
    from fmbpo.testing.contract.installed import check_installed
    from fmbpo.testing.contract.table import print_checks

    found = check_installed(arguments.name, arguments.kind, arguments.override, _say)
    if arguments.json:
        print(json.dumps([plugin.to_json() for plugin in found], indent=2))
    else:
        for plugin in found:
            print_checks(plugin.title, plugin.outcomes, sys.stdout)
    failed = sum(o.status == "failed" for plugin in found for o in plugin.outcomes)
    if failed:
        raise UserError(
            f"{failed} check(s) failed",
            where=f"plugins check {arguments.name or ''}".rstrip(),
            remedy="each failed check says what was expected and how to mend it",
        )
    return 0


def _plugins_new(arguments: argparse.Namespace) -> int:
    from fmbpo.scaffold import new_plugin

    place = new_plugin(arguments.kind, arguments.name, arguments.out)
    print(f"{place}: begin with {arguments.name}/__init__.py, then")
    print(f"  pip install -e {place}")
    print(f"  fmbpo plugins check {arguments.name} --kind {arguments.kind}")
    return 0


def _import_checkpoint(arguments: argparse.Namespace) -> int:
    from fmbpo.interop.importing import import_checkpoint

    out = arguments.out or Path("checkpoints") / arguments.file.stem
    sizes = import_checkpoint(arguments.file, out)
    print("[world_model]")
    for key, value in sizes.items():
        print(f"{key} = {value}")
    print(f"\n[protocol]\ncheckpoint = {json.dumps(str(out))}")
    return 0


def _collect(arguments: argparse.Namespace) -> int:
    from fmbpo.data.collect import collect
    from fmbpo.tasks.mt30 import task_info

    episodes = {}
    for item in arguments.tasks.split(","):
        name, _, count = item.strip().partition("=")
        if count and not count.isdigit():
            raise UserError(f"{count!r} is no number of episodes", where=f"--tasks {item}")
        episodes[task_info(name).name] = int(count or arguments.episodes)
    path = collect(
        arguments.out,
        list(episodes),
        episodes,
        arguments.seed,
        arguments.recipe,
        arguments.workers,
        lambda done, total: _say(f"{done}/{total} episodes"),
        explore=arguments.explore,
        recover=arguments.recover,
        compress=arguments.compress,
    )
    print(path)
    return 0


def _store_path(text: str) -> Path:
    if text != "embedded":
        return Path(text)
    from fmbpo.data.embedded import embedded_path

    return embedded_path()


def _info(arguments: argparse.Namespace) -> int:
    from fmbpo.data.store import info

    print(json.dumps(info(_store_path(arguments.path)), indent=2))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from fmbpo.data.store import verify

    path = _store_path(arguments.path)
    print(f"ok: {path} is what its id says: {verify(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
