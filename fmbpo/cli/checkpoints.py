"""``import-checkpoint``, ``export-checkpoint``: world models from and for other projects."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from fmbpo.cli.arguments import Commands, say, stoppable

if TYPE_CHECKING:
    from fmbpo.running.stop import Stop


def add_commands(commands: Commands) -> None:
    """Add them."""
    importing = commands.add_parser(
        "import-checkpoint", help="take in a world model of TD-MPC2's, which PWM begins with"
    )
    importing.add_argument("file", type=Path, help="their file, for instance mt30_48M_4900000.pt")
    importing.add_argument(
        "--out", type=Path, help="the checkpoint to write (default: checkpoints/NAME)"
    )
    importing.set_defaults(command=_import_checkpoint)
    exporting = commands.add_parser(
        "export-checkpoint", help="write a world model as a file that TD-MPC2 and PWM read"
    )
    exporting.add_argument("source", type=Path, help="a pretraining run's folder, or a checkpoint")
    exporting.add_argument("--format", choices=("tdmpc2",), required=True)
    exporting.add_argument("--out", type=Path, required=True, help="the file to write")
    exporting.set_defaults(command=_export_checkpoint)


def _import_checkpoint(arguments: argparse.Namespace) -> int:
    from fmbpo.interop.importing import import_checkpoint

    out = arguments.out or Path("checkpoints") / arguments.file.stem

    def work(stop: Stop) -> int:
        with stop.ends_at_once():
            sizes = import_checkpoint(arguments.file, out, say)
        print("[world_model]")
        for key, value in sizes.items():
            print(f"{key} = {value}")
        print(f"\n[protocol]\ncheckpoint = {json.dumps(str(out))}")
        return 0

    return stoppable(arguments, work)


def _export_checkpoint(arguments: argparse.Namespace) -> int:
    from fmbpo.interop.exporting import export_checkpoint

    print(export_checkpoint(arguments.source, arguments.out))
    return 0
