"""``plugins``: list, check and create plugins."""

from __future__ import annotations

import argparse
import json
import shlex
from collections import Counter

import attrs

from fmbpo.cli.arguments import (
    Commands,
    add,
    add_query,
    check_argument,
    checked_status,
    json_argument,
    out_argument,
    override_argument,
    say,
)
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
    check_argument(checking)
    override_argument(checking, "set one of the plugin's settings; the others keep their small "
                      "values")  # fmt: skip
    json_argument(checking, "the checks")
    new = add(kinds, "new", "write a new plugin that passes the contract", _plugins_new)
    new.add_argument("kind", choices=tuple(GROUPS), help="the plugin's kind")
    new.add_argument("name", help="the name of the plugin and its package, for instance my_policy")
    out_argument(new, "plugin")


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
    return checked_status(found, arguments, f"plugins check {arguments.name or ''}".rstrip())


def _plugins_new(arguments: argparse.Namespace) -> int:
    from fmbpo.scaffold import new_plugin

    project = new_plugin(arguments.kind, arguments.name, arguments.out)
    where = shlex.quote(str(project))
    print(f"{project}: start with {arguments.name}/__init__.py, then")
    print(f"  pip install -e {where}")
    print(f"  fmbpo plugins check {arguments.name} --kind {arguments.kind}")
    print(f"  fmbpo run {shlex.quote(str(project / 'experiment.toml'))}")
    return 0
