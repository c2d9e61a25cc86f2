"""The names of an experiment's runs, and whether it needs pretraining."""

from __future__ import annotations

from fmbpo.config import Finetuned, Frozen, config_hash
from fmbpo.config.schema import Experiment
from fmbpo.errors import UserError
from fmbpo.runs.folder import run_name


def pretraining_name(experiment: Experiment) -> str:
    """Name of the pretraining experiment."""
    named: str = getattr(experiment.protocol, "world_model", "")
    return named or experiment.name


def needs_pretraining(experiment: Experiment) -> bool:
    """Whether the experiment takes its world model from a pretraining run, or is one."""
    protocol = experiment.protocol
    pretrained = isinstance(protocol, Frozen | Finetuned) and not protocol.checkpoint
    return pretrained or experiment.policy is None


def needed_runs(experiment: Experiment, names: tuple[str, str]) -> list[str]:
    """Those of ``run_names`` that the experiment needs: not the pretraining if it has another
    world model."""
    return [name for name in (names if needs_pretraining(experiment) else names[1:]) if name]


def run_names(experiment: Experiment, data_identity: str) -> tuple[str, str]:
    """Folder names of the world model's run and of the policies' run (empty if there is none).

    Raises ``UserError`` for a name that a folder cannot have.
    """
    e = experiment
    digest = config_hash(e, "pretrain", data_identity=data_identity)
    try:
        name = pretraining_name(e)
        pretraining = run_name(name, e.world_model.plugin, [e.pretrain.seed], digest)
        if e.policy is None or e.grid is None:
            return pretraining, ""
        cell = f"{e.world_model.plugin}-{e.policy.plugin}"
        digest = config_hash(e, data_identity=data_identity)
        return pretraining, run_name(e.name, cell, e.grid.seeds, digest)
    except ValueError as error:
        raise UserError(
            str(error),
            where=e.name,
            remedy="use a short name of letters, digits, dots and hyphens, with single underscores "
            "between them",
        ) from error
