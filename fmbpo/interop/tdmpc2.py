"""World models in TD-MPC2's multi-task checkpoints, which PWM begins with: names, sizes, safety.

TD-MPC2 (arXiv 2310.16828) has written two styles of keys; those of the world model are the same in
both. PWM (arXiv 2407.02466) writes ``_encoder.0.weight`` for ``_encoder.state.0.weight``. The
policy prior and the Q-functions are ignored. Files that PWM itself saves hold objects beside the
parameters and are refused.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from fmbpo.data.sampler import action_masks
from fmbpo.errors import UserError
from fmbpo.nn import two_hot
from fmbpo.nn.blocks import SIMPLEX_DIM
from fmbpo.tasks.mt30 import ACTION_WIDTH, MT30, OBS_WIDTH

_LAYER = re.compile(r"_(encoder|dynamics|reward)(?:\.state)?\.(\d+)\.(ln\.)?(weight|bias)")
_EMBEDDING = "_task_emb.weight"
_MASKS = "_action_masks"


@attrs.frozen
class Sizes:
    """A world model's sizes, under the names of a ``[world_model]`` table."""

    encoder_units: list[int]
    units: list[int]
    latent_dim: int
    task_dim: int


def read_world_model(path: Path) -> tuple[dict[str, Tensor], Sizes]:
    """The world model's parameters under fmbpo's names, and its sizes.

    Nothing in the file is executed, and the file is mapped, not read: only parameters that are
    used take memory. Raises ``UserError`` for a file that holds code, is damaged, is not a
    checkpoint of this kind, or was made for other widths or tasks.
    """
    state = _state_dict(path)
    try:
        raw = renamed(state)
        sizes = _sizes(raw)  # before any number is looked at
        weights = {name: value.float() for name, value in raw.items()}
        for name, value in weights.items():
            if not torch.isfinite(value).all():
                raise ValueError(f"{name} is not finite")
        _check_masks(state.get(_MASKS))
    except ValueError as error:
        raise UserError(
            str(error),
            where=str(path),
            remedy="give a multi-task checkpoint of TD-MPC2 trained on MT30",
        ) from error
    return weights, sizes


def exported(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """fmbpo's parameters of an MLP world model under TD-MPC2's names."""
    last = max(int(k.split(".")[1]) for k in weights if k.startswith("reward."))
    result = {}
    for name, value in weights.items():
        part, _, rest = name.partition(".")
        if part == "task_embedding":
            result[_EMBEDDING] = value
            continue
        layer, *kind = rest.split(".")
        prefix = f"_{part}.state.{layer}" if part == "encoder" else f"_{part}.{layer}"
        inner = {"linear": "", "norm": "ln."}[kind[0]] if int(layer) < last or len(kind) > 1 else ""
        result[f"{prefix}.{inner}{kind[-1]}"] = value
    return result


def _state_dict(path: Path) -> Mapping[str, Any]:
    remedy = "give the file that TD-MPC2 saved; it is only read, never executed"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise UserError("no such file", where=str(path)) from error
    except (PermissionError, IsADirectoryError) as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except pickle.UnpicklingError as error:
        raise UserError(
            "the file asks for code to be executed, or is not a checkpoint of torch",
            where=str(path),
            remedy=remedy,
        ) from error
    except Exception as error:  # torch raises many kinds for damaged files
        text = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"not a checkpoint of torch ({type(error).__name__}: {text[:120]})",
            where=str(path),
            remedy=remedy,
        ) from error
    inner = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(inner, Mapping):
        raise UserError(
            f"the file holds a {type(content).__name__}, not a dictionary of parameters",
            where=str(path),
            remedy=remedy,
        )
    return inner


def renamed(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The world model's parameters under fmbpo's names, from TD-MPC2's or PWM's.

    Raises ``ValueError`` for a parameter that is unknown, not a tensor, or not a plain array.
    """
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
    """The sizes, from the shapes; every shape is checked against them."""
    shapes = {name: tuple(value.shape) for name, value in weights.items()}

    def outputs(part: str) -> list[int]:
        layers = sorted({int(k.split(".")[1]) for k in shapes if k.startswith(f"{part}.")})
        if len(layers) < 2 or layers != list(range(len(layers))):
            raise ValueError(f"the file lacks layers of a world model's {part}")
        return [_bias(shapes, part, layer) for layer in layers]

    tasks, task_dim = _shape(shapes, "task_embedding.weight", 2)
    encoder, dynamics, reward = (outputs(part) for part in ("encoder", "dynamics", "reward"))
    latent = encoder[-1]
    wanted: dict[str, tuple[int, ...]] = {"task_embedding.weight": (len(MT30), task_dim)}
    if tasks != len(MT30):
        raise ValueError(f"the model has {tasks} tasks, MT30 has {len(MT30)}")
    if reward[-1] != two_hot.BINS or reward[:-1] != dynamics[:-1] or dynamics[-1] != latent:
        raise ValueError(
            f"dynamics {dynamics} and reward head {reward} do not fit a latent of {latent} "
            f"and {two_hot.BINS} reward bins"
        )
    if latent % SIMPLEX_DIM:
        raise ValueError(f"the latent's width {latent} is not a multiple of {SIMPLEX_DIM}")
    step = latent + task_dim + ACTION_WIDTH
    inputs = {"encoder": OBS_WIDTH + task_dim, "dynamics": step, "reward": step}
    for part, widths in (("encoder", encoder), ("dynamics", dynamics), ("reward", reward)):
        below = inputs[part]
        for layer, width in enumerate(widths):
            name, plain = f"{part}.{layer}", part == "reward" and layer == len(widths) - 1
            wanted[f"{name}.weight" if plain else f"{name}.linear.weight"] = (width, below)
            wanted[f"{name}.bias" if plain else f"{name}.linear.bias"] = (width,)
            if not plain:
                wanted[f"{name}.norm.weight"] = wanted[f"{name}.norm.bias"] = (width,)
            below = width
    for name in sorted(wanted.keys() | shapes.keys()):
        if shapes.get(name) != wanted.get(name):
            raise ValueError(
                f"{name} has shape {_text(shapes.get(name))}, not {_text(wanted.get(name))}"
            )
    return Sizes(encoder[:-1], dynamics[:-1], latent, task_dim)


def _bias(shapes: Mapping[str, tuple[int, ...]], part: str, layer: int) -> int:
    plain = f"{part}.{layer}.bias"
    name = plain if plain in shapes else f"{part}.{layer}.linear.bias"
    return _shape(shapes, name, 1)[0]


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str, dims: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) != dims:
        raise ValueError(f"{name} is missing" if shape is None else f"{name} has shape {shape}")
    return shape


def _text(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))


def _check_masks(masks: Any) -> None:
    """Newer files hold each task's action mask, which shows the order of the tasks."""
    if masks is None:
        return
    ours = action_masks()
    if not isinstance(masks, Tensor) or masks.shape != ours.shape or (masks != ours).any():
        raise ValueError(
            "the action widths of the file's tasks are not those of MT30, in MT30's order"
        )
