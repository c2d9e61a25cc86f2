"""``data``: collect, import, describe and verify data sets."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fmbpo.cli import importing
from fmbpo.cli.arguments import Commands
from fmbpo.cli.collecting import add_collect


def add_commands(commands: Commands) -> None:
    """Add them."""
    data = commands.add_parser("data", help="collect, import, describe and verify data sets")
    kinds = data.add_subparsers(required=True, metavar="COMMAND")
    add_collect(kinds)
    importing.add_commands(kinds)
    for name, action, text in (
        ("info", _info, "describe a data set"),
        ("verify", _verify, "read every row and compare it with the data set's id"),
    ):
        one = kinds.add_parser(name, help=text)
        one.add_argument("path", help='the store, or "embedded" for the one in the package')
        one.set_defaults(command=action)


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
