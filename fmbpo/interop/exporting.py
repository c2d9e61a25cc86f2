"""From a world model's checkpoint to a file that TD-MPC2 and PWM can read."""

from __future__ import annotations

from pathlib import Path

import torch

from fmbpo.base.files import disk_errors, replace_file
from fmbpo.errors import UserError
from fmbpo.interop.tdmpc2 import exported, read_world_model
from fmbpo.runs.checkpoint import checkpoint_exists, load_checkpoint


def export_checkpoint(source: Path, out: Path) -> Path:
    """Write the world model in ``source`` as TD-MPC2's ``{"model": {name: tensor}}``.

    ``source``: a checkpoint's folder, or a pretraining run's, whose best checkpoint is taken. The
    file is read back and compared before it gets its name. Raises ``UserError`` where there is no
    world model, where it has parameters that TD-MPC2's has not (only the MLP's are the same), where
    ``out`` is there already, and where it cannot be written.
    """
    best = source / "checkpoints" / "best"
    folder = best if checkpoint_exists(best) else source
    if out.exists():
        raise UserError("there is a file here already", where=str(out), remedy="choose another")
    checkpoint = load_checkpoint(folder, with_state=False)
    kind = checkpoint.manifest.get("kind")
    if kind != "world_model":
        raise UserError(
            f"the checkpoint is of kind {kind!r}, not a world model's",
            where=str(folder),
            remedy="give the folder of a pretraining run, or of its best checkpoint",
        )
    weights = checkpoint.weights

    def write(aside: Path) -> None:
        try:
            torch.save({"model": exported(weights)}, aside)
            again, _ = read_world_model(aside)
        except (UserError, ValueError, KeyError) as error:
            raise _not_theirs(folder, str(getattr(error, "what", error))) from error
        if again.keys() != weights.keys() or not all(
            torch.equal(again[name], value) for name, value in weights.items()
        ):
            raise _not_theirs(folder, "it has parameters of its own")

    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, write)
    return out


def _not_theirs(folder: Path, why: str) -> UserError:
    return UserError(
        f"this world model has no form in TD-MPC2: {why}",
        where=str(folder),
        remedy="export one with the parameters of TD-MPC2's own: the MLP's",
    )
