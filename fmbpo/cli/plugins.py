"""``plugins``: list, check and begin plugins."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from fmbpo.cli.arguments import Commands, say
from fmbpo.errors import UserError


def add_commands(commands: Commands) -> None:
    """Add them."""
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


def _plugins(arguments: argparse.Namespace) -> int:
    from fmbpo.plugins import list_plugins

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
            say(f"WARNING: {count} distributions offer the {kind} {name!r}: uninstall all but one")
    return 0


def _plugins_check(arguments: argparse.Namespace) -> int:
    from fmbpo.testing.contract.installed import check_installed

    found = check_installed(arguments.name, arguments.kind, arguments.override, say)
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
