"""``data``: collect, import, describe and verify data sets."""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path

from fmbpo.cli.arguments import Commands, add, add_group, say, stoppable_at_once
from fmbpo.cli.collecting import add_collect
from fmbpo.cli.progress import Lines
from fmbpo.data.embedded import store_path

_VERIFYING = "verifying"


def add_commands(commands: Commands) -> None:
    """Add them."""
    kinds = add_group(commands, "data", "collect, import, describe and verify data sets")
    add_collect(kinds)
    for kind, text, files in (
        ("tdmpc2", "import the MT30 files that TD-MPC2 published", "*.pt"),
        ("npz", "import data of your own", "*.npz"),
    ):
        one = add(kinds, f"import-{kind}", text, _import)
        one.add_argument("sources", nargs="+", type=Path, metavar="SRC",
                         help=f"files, or folders with {files}")  # fmt: skip
        one.add_argument("--out", required=True, type=Path, metavar="STORE",
                         help="the store to write")  # fmt: skip
        one.add_argument("--compress", action="store_true", help="a smaller store, slower to write")
        one.set_defaults(kind=kind, skip_other_tasks=False)
        if kind == "tdmpc2":
            one.add_argument("--skip-other-tasks", action="store_true",
                             help="leave out tasks that are not in MT30 (MT80 has 50)")  # fmt: skip
    for name, work, text in (
        ("info", _info, "describe a data set as JSON"),
        ("verify", _verify, "read every row and compare it with the data set's id"),
    ):
        one = add(kinds, name, text, work)
        one.add_argument("path", type=store_path,
                         help='the store, or "embedded" for the one in the package')  # fmt: skip


def _import(arguments: argparse.Namespace) -> int:
    from fmbpo.base.free_memory import host_free
    from fmbpo.data.importing.into_store import CHECKING, Import, import_files

    asked = Import(
        arguments.kind,
        arguments.sources,
        compress=arguments.compress,
        skip_other_tasks=arguments.skip_other_tasks,
    )

    def work() -> None:
        lines = Lines(of_bytes=CHECKING)
        path = import_files(asked, arguments.out, memory=host_free(), progress=lines, say=say)
        print(path)

    return stoppable_at_once(arguments, work)


def _info(arguments: argparse.Namespace) -> int:
    from fmbpo.data.store import info

    print(json.dumps(info(arguments.path), indent=2))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from fmbpo.data.store import verify

    lines = functools.partial(Lines(of_bytes=_VERIFYING), _VERIFYING)
    print(f"ok: {arguments.path} agrees with its id: {verify(arguments.path, lines)}")
    return 0
