"""Converts world models between TD-MPC2's files and fmbpo's checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch

from fmbpo.base.files import disk_errors, replace_file
from fmbpo.errors import UserError
from fmbpo.interop.tdmpc2 import exported, read_world_model
from fmbpo.runs.checkpoint import checkpoint_exists, load_checkpoint, save_checkpoint
from fmbpo.runs.folder import BEST, checkpoint_of


def import_checkpoint(
    file: Path, out: Path, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Write the world model in ``file`` as the checkpoint ``out``; return its ``[world_model]``
    table.

    All world models that ``adopt`` an MLP model's parameters can start from it
    (``protocol.checkpoint``). If ``out`` is already a checkpoint of this file (by its SHA-256), it
    stays and ``say`` reports that. Raises ``UserError`` as ``read_world_model`` does, if ``out`` is
    another or a damaged checkpoint, or if it cannot be written.
    """
    weights, sizes = read_world_model(file)
    table = attrs.asdict(sizes)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if checkpoint_exists(out):
        if load_checkpoint(out).manifest.get("imported", {}).get("sha256") != digest:
            what, remedy = "there is already another checkpoint here", "choose another --out"
            raise UserError(what, where=str(out), remedy=remedy)
        say(f"{out} is already this world model; nothing to do")
        return table
    manifest = {
        "kind": "world_model",
        "step": 0,
        "config": {"world_model": table},
        "imported": {"file": file.name, "sha256": digest},
    }
    save_checkpoint(out, manifest=manifest, weights=weights, state=None)
    return table


def export_checkpoint(source: Path, out: Path) -> Path:
    """Write the world model in ``source`` as TD-MPC2's ``{"model": {name: tensor}}``.

    ``source``: a checkpoint, or the folder of a pretraining run, whose best checkpoint is used. The
    file is read back and compared before it gets its name. Raises ``UserError`` if there is no
    world model, if its parameters are not TD-MPC2's (only the MLP's are), if ``out`` exists, or if
    it cannot be written.
    """
    best = checkpoint_of(source, BEST)
    place = best if checkpoint_exists(best) else source
    if (place / "config.json").is_file():
        remedy = "name the folder of a finished pretraining run, or a checkpoint"
        raise UserError("this run has no pretrained world model", where=str(place), remedy=remedy)
    if out.exists():
        raise UserError("there is already a file here", where=str(out), remedy="choose another")
    weights = load_checkpoint(place, with_state=False, expect_kind="world_model").weights

    def write(aside: Path) -> None:
        try:
            torch.save({"model": exported(weights)}, aside)
            again, _ = read_world_model(aside)
            if again.keys() != weights.keys() or not all(
                torch.equal(again[name], value) for name, value in weights.items()
            ):
                raise ValueError("it has additional parameters")
        except (UserError, ValueError, KeyError) as error:
            raise UserError(
                f"TD-MPC2 has no such world model: {getattr(error, 'what', error)}",
                where=str(place),
                remedy="export an MLP world model",
            ) from error

    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, write)
    return out
