"""From another project's file to a checkpoint folder of fmbpo's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import attrs

from fmbpo.errors import UserError
from fmbpo.interop.tdmpc2 import read_world_model
from fmbpo.runs.checkpoint import checkpoint_exists, save_checkpoint


def import_checkpoint(file: Path, out: Path) -> dict[str, Any]:
    """Write the world model in ``file`` as the checkpoint ``out``; its sizes.

    World models of every kind that ``adopt`` an MLP model's parameters can begin with it
    (``protocol.checkpoint``). Raises ``UserError`` as ``read_world_model`` does, where ``out``
    exists, and where it cannot be written.
    """
    if checkpoint_exists(out):
        raise UserError(
            "there is a checkpoint here already", where=str(out), remedy="choose another --out"
        )
    weights, sizes = read_world_model(file)
    table = attrs.asdict(sizes)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    manifest = {
        "kind": "world_model",
        "step": 0,
        "config": {"world_model": table},
        "imported": {"file": file.name, "sha256": digest},
    }
    save_checkpoint(out, manifest=manifest, weights=weights, state=None)
    return table
