"""From a world model's checkpoint to a file that TD-MPC2 and PWM can read."""

from __future__ import annotations

from pathlib import Path

import torch

from fmbpo.base.files import disk_errors, replace_file
from fmbpo.errors import UserError
from fmbpo.interop.tdmpc2 import exported, read_world_model
from fmbpo.runs.checkpoint import checkpoint_exists, load_checkpoint
from fmbpo.runs.folder import BEST, checkpoint_of


def export_checkpoint(source: Path, out: Path) -> Path:
    """Write the world model in ``source`` as TD-MPC2's ``{"model": {name: tensor}}``.

    ``source``: a checkpoint, or the folder of a pretraining run, whose best checkpoint is taken.
    The file is read back and compared before it gets its name. Raises ``UserError`` if there is no
    world model, if its parameters are not those of TD-MPC2's (only the MLP's are), if ``out``
    exists, or if it cannot be written.
    """
    best = checkpoint_of(source, BEST)
    place = best if checkpoint_exists(best) else source
    if out.exists():
        raise UserError("there is already a file here", where=str(out), remedy="choose another")
    checkpoint = load_checkpoint(place, with_state=False)
    kind = checkpoint.manifest.get("kind")
    if kind != "world_model":
        raise UserError(
            f"the checkpoint is of kind {kind!r}, not a world model's",
            where=str(place),
            remedy="give the folder of a pretraining run, or its best checkpoint",
        )
    weights = checkpoint.weights

    def write(aside: Path) -> None:
        try:
            torch.save({"model": exported(weights)}, aside)
            again, _ = read_world_model(aside)
        except (UserError, ValueError, KeyError) as error:
            raise _not_theirs(place, str(getattr(error, "what", error))) from error
        if again.keys() != weights.keys() or not all(
            torch.equal(again[name], value) for name, value in weights.items()
        ):
            raise _not_theirs(place, "it has parameters of its own")

    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, write)
    return out


def _not_theirs(place: Path, why: str) -> UserError:
    return UserError(
        f"TD-MPC2 has no such world model: {why}",
        where=str(place),
        remedy="export an MLP world model",
    )
