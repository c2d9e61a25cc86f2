"""The world model that policies begin with: its module, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from fmbpo.config.schema import Experiment
from fmbpo.errors import UserError
from fmbpo.measure.health import world_model_health
from fmbpo.measure.sizes import DIMS
from fmbpo.measure.validation import Validator
from fmbpo.runs.checkpoint import load_checkpoint
from fmbpo.runs.findings import Finding
from fmbpo.runs.summary import Summary
from fmbpo.training.dataset import Dataset
from fmbpo.training.pretraining import build_world_model


@attrs.frozen
class Source:
    """The world model that policies begin with; all about it but the module may be unknown."""

    module: Any
    checkpoint: Path | None = None
    validation: Mapping[str, float] = attrs.field(factory=dict)
    flops: float = 0.0
    seconds: float = 0.0
    health: Sequence[Finding] = ()


def begin(
    experiment: Experiment,
    data: Dataset,
    device: torch.device,
    checkpoint: Path | None,
    pretrained: Summary | None,
) -> Source:
    """A frozen module from a checkpoint, or a fresh one without.

    ``pretrained``: what the run that made the checkpoint found; without it (an imported one) the
    module is measured here, and may be of another kind where it fits.
    """
    table = experiment.world_model
    if checkpoint is None:
        return Source(build_world_model(table, experiment.pretrain.seed, device))
    model = load_world_model(experiment, device, checkpoint, adopt=pretrained is None)
    if pretrained is None:
        measures = Validator(data.train, data.held_out)(model, table.component.rollout)
        return Source(model, checkpoint, measures, health=world_model_health(measures))
    return Source(
        model,
        checkpoint,
        pretrained.wm_validation,
        _number(pretrained.flops),
        _number(pretrained.seconds),
        pretrained.health,
    )


def check_source(experiment: Experiment, checkpoint: Path, adopt: bool) -> None:
    """``UserError`` where ``begin`` could not begin with this checkpoint: it is not there, damaged,
    no world model's, or does not fit the plugin's module.

    Every byte is read; the module has shapes alone.
    """
    with torch.device("meta"):
        module = experiment.world_model.component.build(experiment.world_model.config, DIMS)
    _fill(module, experiment, torch.device("meta"), checkpoint, adopt)


def load_world_model(
    experiment: Experiment, device: torch.device, checkpoint: Path, adopt: bool
) -> Any:
    """The frozen module with a checkpoint's weights; ``adopt``: of another kind where it fits.

    ``UserError`` as ``check_source``.
    """
    model = build_world_model(experiment.world_model, 0, device)
    _fill(model, experiment, device, checkpoint, adopt)
    experiment.world_model.component.freeze(model)
    return model


def _fill(
    model: Any, experiment: Experiment, device: torch.device, checkpoint: Path, adopt: bool
) -> None:
    table = experiment.world_model
    try:
        loaded = load_checkpoint(
            checkpoint, device=device, with_state=False, expect_kind="world_model"
        )
    except UserError as error:
        run = checkpoint.parent.parent
        remedy = error.remedy if adopt else f"move {run} away: it is trained again"
        raise UserError(error.what, where=error.where, remedy=remedy) from error
    weights = loaded.weights
    try:
        if adopt and hasattr(model, "adopt"):
            weights = model.adopt(weights)
        model.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"does not fit world model {table.plugin!r}: {str(error).splitlines()[0]}",
            where=str(checkpoint),
            remedy="give [world_model] the checkpoint's sizes, or the experiment another one",
        ) from error


def _number(value: float | dict[str, float]) -> float:
    assert not isinstance(value, dict)  # a pretraining run has one part
    return value
