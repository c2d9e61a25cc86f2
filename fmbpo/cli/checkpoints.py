"""``import-checkpoint``: world models from and for other projects."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fmbpo.cli.arguments import Commands


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


def _import_checkpoint(arguments: argparse.Namespace) -> int:
    from fmbpo.interop.importing import import_checkpoint

    out = arguments.out or Path("checkpoints") / arguments.file.stem
    sizes = import_checkpoint(arguments.file, out)
    print("[world_model]")
    for key, value in sizes.items():
        print(f"{key} = {value}")
    print(f"\n[protocol]\ncheckpoint = {json.dumps(str(out))}")
    return 0
