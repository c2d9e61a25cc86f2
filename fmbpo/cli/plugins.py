"""``plugins``: list, check and create plugins."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import attrs

from fmbpo.base.files import path_of
from fmbpo.cli.arguments import Commands, add, add_query, json_argument, override_argument, say
from fmbpo.errors import UserError
from fmbpo.plugins import GROUPS, list_plugins


def add_commands(commands: Commands) -> None:
    """Add these commands."""
    plugins = add_query(commands, "plugins", "list, check or create plugins", _plugins)
    json_argument(plugins, "the list")
    kinds = plugins.add_subparsers(metavar="[COMMAND]")
    checking = add_query(kinds, "check", "check plugins against the contract", _plugins_check)
    checking.add_argument("name", nargs="?", help="the plugin's name (default: every plugin)")
    checking.add_argument("--kind", choices=tuple(GROUPS),
                          help="the plugin's kind; needed if plugins of both kinds have this "
                          "name")  # fmt: skip
    checking.add_argument("--check", action="append", default=[], metavar="CHECK",
                          help="run this check alone; may be repeated (default: every "
                          "check)")  # fmt: skip
    override_argument(checking, "set one of the plugin's settings; the others keep their small "
                      "values")  # fmt: skip
    json_argument(checking, "the checks")
    new = add(kinds, "new", "write a new plugin that passes the contract", _plugins_new)
    new.add_argument("kind", choices=tuple(GROUPS), help="the plugin's kind")
    new.add_argument("name", help="the name of the plugin and its package, for instance my_policy")
    new.add_argument("--out", type=path_of, default=Path(), metavar="DIR",
                     help="the folder in which to create the plugin's folder "
                     "(default: .)")  # fmt: skip


def _plugins(arguments: argparse.Namespace) -> int:
    found = list_plugins()
    rows = [attrs.asdict(listing) for listing in found]
    for row in rows:
        row["module"] = row.pop("value")
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    if not rows:
        print("no plugins are installed; to install one: pip install -e plugins/NAME")
        return 0
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    for row in [{key: key for key in widths}, *rows]:
        print("  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip())
    claims = Counter((listing.kind, listing.name) for listing in found)
    for (kind, name), count in claims.items():
        if count > 1:
            say(
                f"WARNING: {count} distributions provide the {kind} {name!r}: uninstall all but one"
            )
    return 0


def _plugins_check(arguments: argparse.Namespace) -> int:
    from fmbpo.testing.contract import check_installed

    which = arguments.name, arguments.kind, arguments.override
    found = check_installed(*which, say, arguments.check)
    if arguments.json:
        print(json.dumps([plugin.to_json() for plugin in found], indent=2))
    else:
        for plugin in found:
            print(*plugin.table(), sep="\n")
    failed = sum(o.status == "failed" for plugin in found for o in plugin.outcomes)
    if failed:
        raise UserError(
            f"{failed} check(s) failed",
            where=f"plugins check {arguments.name or ''}".rstrip(),
            remedy="each failed check names the expectation, the finding and the remedy",
        )
    return 0


def _plugins_new(arguments: argparse.Namespace) -> int:
    from fmbpo.scaffold import new_plugin

    project = new_plugin(arguments.kind, arguments.name, arguments.out)
    print(f"{project}: start with {arguments.name}/__init__.py, then")
    print(f"  pip install -e {project}")
    print(f"  fmbpo plugins check {arguments.name} --kind {arguments.kind}")
    print(f"  fmbpo run {project / 'experiment.toml'}")
    return 0
