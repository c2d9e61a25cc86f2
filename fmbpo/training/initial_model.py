"""The world models that policies begin with: their modules and their origins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from fmbpo.config.schema import Experiment
from fmbpo.errors import UserError
from fmbpo.hookspecs import WorldModel
from fmbpo.measure.health import world_model_health
from fmbpo.measure.validation import Validator, mean_summarised, summarised
from fmbpo.nn.state import warm_up
from fmbpo.protocols import Adopts
from fmbpo.runs.checkpoint import load_checkpoint, read_manifest
from fmbpo.runs.findings import Finding
from fmbpo.runs.summary import Summary
from fmbpo.tasks.suite import Suite
from fmbpo.training.context import Context
from fmbpo.training.networks import build_world_model


@attrs.frozen
class InitialModel:
    """The origin of the world model that a replicate's policies begin with; all may be unknown.

    ``checkpoint``: None for a fresh model. ``adopt``: whether it may be of another kind that fits.
    ``version``: that of the plugin that trained it, if one did.
    """

    checkpoint: Path | None = None
    adopt: bool = False
    version: str | None = None
    validation: Mapping[str, Any] = attrs.field(factory=dict)
    flops: Any = 0.0
    seconds: Any = 0.0
    health: Sequence[Finding] = ()

    def build(self, context: Context) -> WorldModel:
        """The module: frozen, with the checkpoint's weights, or fresh without a checkpoint."""
        if self.checkpoint is None:
            return build_world_model(
                context.experiment.world_model, context.data.suite, 0, context.device
            )
        e, suite = context.experiment, context.data.suite
        return load_world_model(e, suite, context.device, self.checkpoint, self.adopt)


def initial_models(
    context: Context, checkpoints: Mapping[int, Path | None], pretrained: Mapping[int, Summary]
) -> dict[int, InitialModel]:
    """The world models by replicate; replicates with the same checkpoint share one.

    ``pretrained``: the summaries of the runs that made the checkpoints. An imported checkpoint has
    none: its module is measured here. Raises ``UserError`` as ``load_world_model``.
    """
    made: dict[Path | None, InitialModel] = {}
    for seed, checkpoint in checkpoints.items():
        if checkpoint not in made:
            made[checkpoint] = _initial_model(context, checkpoint, pretrained.get(seed))
    return {seed: made[checkpoint] for seed, checkpoint in checkpoints.items()}


def _initial_model(
    context: Context, checkpoint: Path | None, pretrained: Summary | None
) -> InitialModel:
    e, data = context.experiment, context.data
    if checkpoint is None:
        return InitialModel()
    version = trained_by(checkpoint, e.world_model.plugin)
    if (p := pretrained) is not None:
        return InitialModel(
            checkpoint, False, version, p.wm_validation, p.flops, p.seconds, p.health
        )
    model = load_world_model(e, data.suite, context.device, checkpoint, adopt=True)
    validator = Validator(data.train, data.held_out, warm_up(model))
    measures = validator(model, e.world_model.component.rollout)
    health = world_model_health(measures)
    return InitialModel(checkpoint, True, version, summarised(measures), health=health)


def distinct(models: Mapping[int, InitialModel]) -> list[InitialModel]:
    """The models, each once."""
    return list({id(model): model for model in models.values()}.values())


def mean_validation(models: Mapping[int, InitialModel]) -> dict[str, Any]:
    """The mean of each held-out measure over the models."""
    return mean_summarised([model.validation for model in distinct(models)])


def health_of(models: Mapping[int, InitialModel]) -> list[Finding]:
    """The gates that the models fail, each with its replicate if there are several models."""
    if len(each := distinct(models)) == 1:
        return list(each[0].health)
    return [
        attrs.evolve(f, where=", ".join(filter(None, (f"replicate {seed}", f.where))))
        for seed, model in models.items()
        for f in model.health
    ]


def trained_by(checkpoint: Path, plugin: str) -> str | None:
    """The version of ``plugin`` that trained a world model's checkpoint; None if it did not.

    An imported checkpoint has no such version. Raises ``UserError`` as ``read_manifest``.
    """
    config = read_manifest(checkpoint).get("config", {})
    own = config.get("world_model", {}).get("plugin") == plugin
    version: str | None = config.get("versions", {}).get("world_model") if own else None
    return version


def load_world_model(
    experiment: Experiment, suite: Suite, device: torch.device, checkpoint: Path, adopt: bool
) -> WorldModel:
    """The frozen module with a checkpoint's weights; ``adopt``: of another kind if it fits.

    Raises ``UserError`` if the checkpoint is missing, damaged, not a world model's, or does not fit
    the plugin's module. On the device ``meta`` the module has only shapes, but every byte is read.
    """
    table = experiment.world_model
    model = build_world_model(table, suite, 0, device)
    try:
        loaded = load_checkpoint(
            checkpoint, device=device, with_state=False, expect_kind="world_model"
        )
    except UserError as error:
        run = checkpoint.parent.parent
        remedy = error.remedy if adopt else f"move {run} away: the same command trains it again"
        raise UserError(error.what, where=error.where, remedy=remedy) from error
    weights: Mapping[str, torch.Tensor] = loaded.weights
    try:
        if adopt and isinstance(model, Adopts):
            weights = model.adopt(weights)
        model.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"does not fit world model {table.plugin!r}: {str(error).splitlines()[0]}",
            where=str(checkpoint),
            remedy="set the checkpoint's sizes in [world_model], or choose another checkpoint",
        ) from error
    table.component.freeze(model)
    return model
