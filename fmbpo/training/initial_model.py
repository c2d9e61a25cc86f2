"""The world model that policies begin with: its module and its origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from fmbpo.config.schema import Experiment
from fmbpo.errors import UserError
from fmbpo.hookspecs import Adopts, WorldModel
from fmbpo.measure.health import world_model_health
from fmbpo.measure.validation import Validator
from fmbpo.runs.checkpoint import load_checkpoint, read_manifest
from fmbpo.runs.findings import Finding
from fmbpo.runs.summary import Summary
from fmbpo.training.context import Context
from fmbpo.training.networks import build_world_model


@attrs.frozen
class InitialModel:
    """The world model that policies begin with; everything except the module may be unknown."""

    module: WorldModel
    checkpoint: Path | None = None
    version: str | None = None
    """The version of the plugin that trained it, if one did."""
    validation: Mapping[str, float] = attrs.field(factory=dict)
    flops: Any = 0.0
    seconds: Any = 0.0
    health: Sequence[Finding] = ()


def initial_model(
    context: Context, checkpoint: Path | None, pretrained: Summary | None
) -> InitialModel:
    """A frozen module from a checkpoint, or a fresh one without a checkpoint.

    ``pretrained``: the summary of the run that made the checkpoint. Without it (an imported
    checkpoint) the module is measured here, and may be of another kind if it fits.
    """
    e, data = context.experiment, context.data
    if checkpoint is None:
        return InitialModel(build_world_model(e.world_model, e.pretrain.seed, context.device))
    model = load_world_model(e, context.device, checkpoint, adopt=pretrained is None)
    version = trained_by(checkpoint, e.world_model.plugin)
    if pretrained is None:
        validator = Validator(data.train, data.held_out)
        measures = validator(model, e.world_model.component.rollout)
        health = world_model_health(measures)
        return InitialModel(model, checkpoint, version, measures, health=health)
    p = pretrained
    return InitialModel(model, checkpoint, version, p.wm_validation, p.flops, p.seconds, p.health)


def trained_by(checkpoint: Path, plugin: str) -> str | None:
    """The version of ``plugin`` that trained a world model's checkpoint; None if it did not.

    An imported checkpoint has no such version. Raises ``UserError`` as ``read_manifest``.
    """
    config = read_manifest(checkpoint).get("config", {})
    own = config.get("world_model", {}).get("plugin") == plugin
    version: str | None = config.get("versions", {}).get("world_model") if own else None
    return version


def load_world_model(
    experiment: Experiment, device: torch.device, checkpoint: Path, adopt: bool
) -> WorldModel:
    """The frozen module with a checkpoint's weights; ``adopt``: of another kind if it fits.

    Raises ``UserError`` if the checkpoint is missing, damaged, not a world model's, or does not fit
    the plugin's module. On the device ``meta`` the module has only shapes, but every byte is read.
    """
    table = experiment.world_model
    model = build_world_model(table, 0, device)
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
