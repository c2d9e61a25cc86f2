"""World models in TD-MPC2's multi-task checkpoints, which PWM starts from: names, sizes, safety.

TD-MPC2 (arXiv 2310.16828) has used two styles of keys, with the same keys for the world model. PWM
(arXiv 2407.02466) writes ``_encoder.0.weight`` for ``_encoder.state.0.weight``. The policy prior
and the Q-functions are ignored. Files that PWM itself saves contain objects in addition to the
parameters and are rejected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from fmbpo.data.importing.torch_file import load_mapped
from fmbpo.data.sampler import action_masks
from fmbpo.errors import UserError
from fmbpo.measure.sizes import dims_of
from fmbpo.nn.world_model import LatentWorldModel, WorldModelConfig
from fmbpo.tasks.mt30 import SUITE

_LAYER = re.compile(r"_(encoder|dynamics|reward)(?:\.state)?\.(\d+)\.(ln\.)?(weight|bias)")
_EMBEDDING = "_task_emb.weight"


@attrs.frozen
class Sizes:
    """A world model's sizes, under the names of a ``[world_model]`` table."""

    encoder_units: list[int]
    units: list[int]
    latent_dim: int
    task_dim: int


def read_world_model(path: Path) -> tuple[dict[str, Tensor], Sizes]:
    """The world model's parameters under fmbpo's names, and its sizes.

    Nothing in the file is executed. The file is mapped, not read, so only the used parameters take
    memory. Raises ``UserError`` for a file that contains code, is damaged, is not a checkpoint of
    this kind, or has other widths or tasks.
    """
    content = load_mapped(path)
    state = content.get("model", content)
    try:
        raw = renamed(state)
        sizes = _sizes(raw)  # before any value is read
        weights = {name: value.float() for name, value in raw.items()}
        for name, value in weights.items():
            if not torch.isfinite(value).all():
                raise ValueError(f"{name} is not finite")
        ours = action_masks(SUITE)
        masks = state.get("_action_masks", ours)  # newer files; shows the order of the tasks
        if not isinstance(masks, Tensor) or masks.shape != ours.shape or (masks != ours).any():
            raise ValueError("the action widths of the file's tasks are not those of MT30 in order")
    except ValueError as error:
        raise UserError(
            str(error),
            where=str(path),
            remedy="give a multi-task checkpoint of TD-MPC2 trained on MT30",
        ) from error
    return weights, sizes


def exported(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """fmbpo's parameters of an MLP world model under TD-MPC2's names."""
    renames = {"task_embedding": "task_emb", "encoder.": "encoder.state.",
               ".linear.": ".", ".norm.": ".ln."}  # fmt: skip
    result = {}
    for name, value in weights.items():
        for ours, theirs in renames.items():
            name = name.replace(ours, theirs)
        result[f"_{name}"] = value
    return result


def renamed(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The world model's parameters under fmbpo's names, from TD-MPC2's or PWM's.

    Raises ``ValueError`` for a parameter that is unknown, not a tensor, or not a plain array.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"holds a {type(state).__name__}, not a dictionary of parameters")
    found = {}
    for key, value in state.items():
        match = _LAYER.fullmatch(str(key))
        if match is None and key != _EMBEDDING:
            if str(key).startswith(("_encoder.", "_dynamics.", "_reward.", "_task_emb.")):
                raise ValueError(f"unknown parameter {key!r}")
            continue
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise ValueError(f"{key!r} is not a tensor of floating-point numbers")
        plain = value.layout is torch.strided and value.device.type == "cpu"
        if not plain or not value.is_contiguous():
            raise ValueError(f"{key!r} is not stored as a plain array")
        if match is None:
            found["task_embedding.weight"] = value
            continue
        part, layer, norm, kind = match.groups()
        found[f"{part}.{layer}.{'norm' if norm else 'linear'}.{kind}"] = value
    last = max((int(k.split(".")[1]) for k in found if k.startswith("reward.")), default=0)
    for kind in ("weight", "bias"):  # the head's last layer is a plain Linear
        if (name := f"reward.{last}.linear.{kind}") in found:
            found[f"reward.{last}.{kind}"] = found.pop(name)
    return found


def _sizes(weights: Mapping[str, Tensor]) -> Sizes:
    """The sizes, from the shapes; checks every shape against a model of these sizes."""
    shapes = {name: tuple(value.shape) for name, value in weights.items()}

    def widths(part: str) -> list[int]:
        pattern = re.compile(rf"{part}\.(\d+)\.(linear\.)?bias")
        layers = {int(m[1]): shapes[name] for name in shapes if (m := pattern.fullmatch(name))}
        if len(layers) < 2:
            raise ValueError(f"the file lacks layers of a world model's {part}")
        return [shape[0] for _, shape in sorted(layers.items()) if shape]

    embedding = shapes.get("task_embedding.weight", ())
    if len(embedding) != 2 or embedding[0] != len(SUITE):
        what = f"task_embedding.weight has shape {list(embedding)}"
        raise ValueError(f"{what}, but MT30 has {len(SUITE)} tasks")
    encoder, units = widths("encoder"), widths("dynamics")[:-1]
    sizes = Sizes(encoder[:-1], units, encoder[-1], embedding[1])
    with torch.device("meta"):
        model = LatentWorldModel(WorldModelConfig(**attrs.asdict(sizes)), dims_of(SUITE))
    wanted = {name: tuple(value.shape) for name, value in model.named_parameters()}
    for name in sorted(wanted.keys() | shapes.keys()):
        if shapes.get(name) != wanted.get(name):
            theirs, ours = (list(s[name]) if name in s else "none" for s in (shapes, wanted))
            raise ValueError(f"{name} has shape {theirs}, not {ours}")
    return sizes
