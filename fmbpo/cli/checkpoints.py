"""``import-checkpoint``, ``export-checkpoint``: world models from and for other projects."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fmbpo.base.files import path_of
from fmbpo.cli.arguments import Commands, add, say, stoppable_at_once


def add_commands(commands: Commands) -> None:
    """Add these commands."""
    importing = add(
        commands, "import-checkpoint", "import a world model of TD-MPC2 or PWM", _import_checkpoint
    )
    importing.add_argument("file", type=path_of,
                           help="the checkpoint file, such as mt30_48M_4900000.pt")  # fmt: skip
    importing.add_argument("--out", type=path_of, metavar="FILE",
                           help="the checkpoint to write (default: checkpoints/NAME)")  # fmt: skip
    exporting = add(commands, "export-checkpoint", "export a world model in TD-MPC2's format, "
                    "which PWM reads", _export_checkpoint)  # fmt: skip
    exporting.add_argument("source", type=path_of,
                           help="a pretraining run's folder, or a checkpoint")  # fmt: skip
    exporting.add_argument("--format", choices=("tdmpc2",), required=True, help="the file's format")
    exporting.add_argument("--out", type=path_of, required=True, metavar="FILE",
                           help="the file to write")  # fmt: skip


def _import_checkpoint(arguments: argparse.Namespace) -> int:
    from fmbpo.interop.checkpoints import import_checkpoint

    out = arguments.out or Path("checkpoints") / arguments.file.stem

    def work() -> None:
        sizes = import_checkpoint(arguments.file, out, say)
        print("[world_model]")
        for key, value in sizes.items():
            print(f"{key} = {value}")
        print(f"\n[protocol]\ncheckpoint = {json.dumps(str(out))}")

    return stoppable_at_once(arguments, work)


def _export_checkpoint(arguments: argparse.Namespace) -> int:
    from fmbpo.interop.checkpoints import export_checkpoint

    print(export_checkpoint(arguments.source, arguments.out))
    return 0
