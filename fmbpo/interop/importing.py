"""From another project's file to a checkpoint of fmbpo."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from fmbpo.errors import UserError
from fmbpo.interop.tdmpc2 import read_world_model
from fmbpo.runs.checkpoint import checkpoint_exists, load_checkpoint, save_checkpoint


def import_checkpoint(
    file: Path, out: Path, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Write the world model in ``file`` as the checkpoint ``out``; returns its ``[world_model]``
    table.

    World models of every kind that ``adopt`` an MLP model's parameters can begin with it
    (``protocol.checkpoint``). If ``out`` already is a checkpoint of this file (by its SHA-256), it
    stays and ``say`` reports so. Raises ``UserError`` as ``read_world_model`` does, if ``out`` is
    another or a damaged checkpoint, or if it cannot be written.
    """
    weights, sizes = read_world_model(file)
    table = attrs.asdict(sizes)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if checkpoint_exists(out):
        there = load_checkpoint(out).manifest
        if there.get("imported", {}).get("sha256") != digest:
            raise UserError(
                "another checkpoint is here already",
                where=str(out),
                remedy="choose another --out",
            )
        say(f"{out} is this world model already; nothing to do")
        return table
    manifest = {
        "kind": "world_model",
        "step": 0,
        "config": {"world_model": table},
        "imported": {"file": file.name, "sha256": digest},
    }
    save_checkpoint(out, manifest=manifest, weights=weights, state=None)
    return table
