"""A shortcut model (arXiv 2410.12557): a stochastic flow from noise, solved by one evaluation.

The network sees a point x on the way from noise (τ = 0) to the next latent (τ = 1), and the length
d of the jump that it shall make. It answers with the end of the straight path whose point at
τ + d is right, ``x' = x + d / (1 - τ) (ê - x)``. Short jumps learn from data by flow matching, and
each longer jump from two jumps of half its length. A prediction is one jump of length 1. All points
are convex combinations of SimNorm's outputs, so nothing is projected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from attrs.validators import and_, ge, le
from torch import Tensor

from fmbpo import hookspecs as spec
from fmbpo.nn import blocks
from fmbpo.nn.blocks import simnorm
from fmbpo.nn.rollout import model_rollout
from fmbpo.nn.world_model import (
    SMALL,
    LatentWorldModel,
    WorldModelConfig,
    mean_squared,
    prediction,
    sub_trajectory_loss,
)


@attrs.frozen(kw_only=True)
class Config(WorldModelConfig):
    """The settings that the study's world models share, and those of the jumps."""

    halvings: int = attrs.field(default=3, validator=and_(ge(1), le(10)))
    """The shortest jump has the length 2^-halvings."""
    shortcut_coef: float = attrs.field(default=1.0, validator=ge(0.0))
    """Weight of the longer jumps' error, beside that of the shortest."""


class Shortcut(LatentWorldModel):
    """The dynamics see ``[z, e, a]``, then ``x``, τ and d."""

    config: Config

    def __init__(self, config: Config, dims: spec.WorldModelDims) -> None:
        super().__init__(config, dims, config.latent_dim + 2)
        self.noise_dim, self.loss_noise_dim = config.latent_dim, 3 + config.latent_dim

    def end(self, given: Tensor, x: Tensor, tau: Tensor, length: Tensor) -> Tensor:
        """``[z, e, a]``, points ``[..., D]``, τ and d ``[..., 1]`` -> ends ``[..., D]``."""
        end: Tensor = self.dynamics(torch.cat([given, x, tau, length], -1))
        return end

    def advance(self, z: Tensor, action: Tensor, task: spec.Task, noise: Tensor) -> Tensor:
        """The next latent: the end of one jump from the noise."""
        start = torch.zeros_like(z[..., :1])
        return self.end(self.step_input(z, action, task), simnorm(noise), start, start + 1)

    @torch.no_grad()
    def halved(self, given: Tensor, x: Tensor, tau: Tensor, length: Tensor) -> Tensor:
        """The end of the straight path through the point that two jumps of half the length reach:
        a mean of both jumps' ends."""
        half, left = length / 2, 1 - tau
        first = self.end(given, x, tau, half)
        x = x + half / left * (first - x)
        second = self.end(given, x, tau + half, half)
        share = left / (2 * (left - half))  # at most 1, since a jump ends at τ = 1 at the latest
        return first + share * (second - first)


def jumps(which: Tensor, where: Tensor, halvings: int) -> tuple[Tensor, Tensor]:
    """Uniform numbers -> starts τ and lengths d of jumps: d is 2^-k for any k < ``halvings``, and τ
    a multiple of d."""
    length = 2.0 ** -(which * halvings).floor().clamp(max=halvings - 1)
    return (where / length).floor().clamp(max=1 / length - 1) * length, length


spec_version = 2
small: Mapping[str, Any] = SMALL
build = Shortcut


@spec.hookimpl
def predict(
    module: Shortcut, state: Tensor, action: Tensor, task: spec.Task, noise: Tensor
) -> spec.Prediction:
    """One jump from the noise; one pass through the reward head."""
    following = module.advance(state, action, task, noise)
    return prediction(module, state, following, action, task)


@spec.hookimpl
def rollout(
    module: Shortcut, state: Tensor, partner: spec.ChooseAction, task: spec.Task, noise: Tensor
) -> spec.Rollout:
    """Repeated ``predict``."""
    return model_rollout(lambda z, a, n: predict(module, z, a, task, n), state, partner, noise)


@spec.hookimpl
def loss(
    module: Shortcut, batch: spec.Batch, noise: Tensor, done: Tensor
) -> tuple[Tensor, spec.Metrics]:
    """TD-MPC2's loss; its errors are those of the shortest jumps' ends, and of the longer ones'."""
    config, start = module.config, simnorm(noise[..., 3:])
    time, which, where = torch.special.ndtr(noise[..., :3]).chunk(3, -1)
    tau, length = jumps(which, where, config.halvings)
    shortest = torch.full_like(time, 2.0**-config.halvings)

    def errors(z: Tensor, predicted: Tensor, target: Tensor, task: spec.Task) -> Tensor:
        given = module.step_input(z, batch.action_HBA, task)
        short = module.end(given, start + time * (target - start), time, shortest)
        x = start + tau * (target - start)
        long = module.end(given, x, tau, length) - module.halved(given, x, tau, length)
        return mean_squared(short - target) + config.shortcut_coef * mean_squared(long)

    step = lambda t, z, task: module.advance(z, batch.action_HBA[t], task, noise[t, :, 3:])  # noqa: E731
    return sub_trajectory_loss(module, batch, step, errors)


@spec.hookimpl
def freeze(module: Shortcut) -> None:
    """Stop every parameter from learning."""
    blocks.freeze(module)
