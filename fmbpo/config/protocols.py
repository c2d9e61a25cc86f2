"""The protocols: the origin of the world model, and whether it learns with the policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs
from attrs import field

from fmbpo.base.files import path_of
from fmbpo.config.validators import betas, positive


@attrs.frozen(kw_only=True)
class ModelOptimiser:
    """Adam's settings for a world model. The learning rate decays linearly over the run."""

    learning_rate: float
    final_learning_rate: float
    betas: Sequence[float]
    grad_clip: float
    """Largest norm of the gradient of all parameters."""
    encoder_scale: float
    """The encoder's learning rate, as a multiple of ``learning_rate``."""


@attrs.frozen(kw_only=True, slots=False)
class Protocol:
    """``[protocol]``: the world model's role in policy learning. ``kind`` selects the class."""

    kind: Literal["frozen", "finetuned", "scratch"]


def _from_home(path: str) -> str:
    """Written in full, since the path is part of what identifies a run."""
    return str(path_of(path)) if path.startswith("~") else path


@attrs.frozen(kw_only=True, slots=False)
class _Pretrained(Protocol):
    world_model: str = ""
    """Name of the pretraining experiment whose checkpoint is used."""
    checkpoint: str = field(default="", converter=_from_home)
    """A world model's checkpoint file to use instead, such as an imported one."""

    def __attrs_post_init__(self) -> None:
        if not (self.world_model or self.checkpoint):
            raise ValueError("world_model must name a pretraining experiment, or checkpoint a file")


@attrs.frozen(kw_only=True, slots=False)
class _Learning(Protocol):
    model_iterations: int = field(default=1, validator=positive)
    """World-model steps before each policy step, which imagines from the last of their batches."""
    model_learning_rate: float = field(default=3e-4, validator=positive)
    """Adam's learning rate for the world model at the start."""
    model_final_learning_rate: float = field(default=1e-5, validator=positive)
    """Adam's learning rate for the world model at the end."""
    model_betas: list[float] = field(factory=lambda: [0.9, 0.999], validator=betas)
    """Adam's decay rates for the world model."""
    model_grad_clip: float = field(default=20.0, validator=positive)
    """Largest norm of the world model's gradient."""
    model_encoder_scale: float = field(default=1.0, validator=positive)
    """The encoder's learning rate, as a multiple of ``model_learning_rate``."""

    @property
    def optimiser(self) -> ModelOptimiser:
        """Adam's settings."""
        return ModelOptimiser(
            learning_rate=self.model_learning_rate,
            final_learning_rate=self.model_final_learning_rate,
            betas=self.model_betas,
            grad_clip=self.model_grad_clip,
            encoder_scale=self.model_encoder_scale,
        )


@attrs.frozen(kw_only=True)
class Frozen(_Pretrained):
    """The pretrained world model, which does not learn."""

    kind: Literal["frozen"] = "frozen"


@attrs.frozen(kw_only=True)
class Finetuned(_Pretrained, _Learning):
    """Each policy has its own copy of the pretrained world model, which learns with it."""

    kind: Literal["finetuned"] = "finetuned"


@attrs.frozen(kw_only=True)
class Scratch(_Learning):
    """Each policy has its own world model, randomly initialised and trained with it."""

    kind: Literal["scratch"] = "scratch"


PROTOCOLS: dict[str, type[Protocol]] = {
    "frozen": Frozen,
    "finetuned": Finetuned,
    "scratch": Scratch,
}
"""The protocols by their ``kind``."""
