"""An ensemble of gated recurrent cells whose disagreement lowers the predicted rewards.

Latents fill the box [-1, 1]^D. Member k's step ``z + u (c - z)``, its gate u in [0, 1] and its
candidate c in [-1, 1], is a convex combination, and so is the members' mean: both stay in the
box for any number of steps, without a projection.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from attrs.validators import and_, deep_iterable, ge, gt, instance_of, min_len
from torch import Tensor, nn

from fmbpo import hookspecs as spec
from fmbpo.nn import blocks, two_hot
from fmbpo.nn.blocks import EmbedsTasks, NormedLinear, join, network, normed_mlp
from fmbpo.nn.rollout import model_rollout

_widths: Any = deep_iterable(and_(instance_of(int), gt(0)), min_len(1))


@attrs.frozen(kw_only=True)
class Config:
    """Settings of the ensemble."""

    encoder_units: list[int] = attrs.field(factory=lambda: [256], validator=_widths)
    """Hidden widths of the encoder, and of the decoder."""
    units: list[int] = attrs.field(factory=lambda: [256, 256], validator=_widths)
    """Hidden widths of each member and of the reward head."""
    latent_dim: int = attrs.field(default=128, validator=gt(0))
    """Width of the latent."""
    task_dim: int = attrs.field(default=16, validator=gt(0))
    """Width of the task embedding."""
    members: int = attrs.field(default=3, validator=ge(2))
    """K, gated cells."""
    pessimism: float = attrs.field(default=5.0, validator=ge(0.0))
    """κ: rewards are lowered by tanh(κ disagreement) bins, of 0.2 symlog each."""
    consistency_coef: float = attrs.field(default=1.0, validator=ge(0.0))
    """Weight of the members' latent errors."""
    observation_coef: float = attrs.field(default=10.0, validator=ge(0.0))
    """Weight of the decoded observations' errors, which keep latents from collapsing."""
    reward_coef: float = attrs.field(default=0.1, validator=ge(0.0))
    """Weight of the reward's cross-entropy."""


class Ensemble(EmbedsTasks):
    """Encoder, decoder and reward head, shared; K cells."""

    noise_dim = loss_noise_dim = 0
    evaluations = 1

    def __init__(self, config: Config, dims: spec.WorldModelDims) -> None:
        super().__init__(dims.tasks, config.task_dim)
        self.config, self.latent_dim = config, config.latent_dim
        seen, units = config.latent_dim + config.task_dim, config.encoder_units
        box = NormedLinear(units[-1], config.latent_dim, nn.Tanh())
        self.encoder = normed_mlp(dims.obs + config.task_dim, units, box)
        self.decoder = network(seen, units, dims.obs)
        step, width = (seen + dims.action, config.units), 2 * config.latent_dim
        self.reward = network(*step, two_hot.BINS)
        self.cells = nn.ModuleList(network(*step, width) for _ in range(config.members))

    def encode(self, obs: Tensor, embedding: Tensor) -> Tensor:
        """``[..., B, O]``, ``[B, E]`` -> ``[..., B, D]``."""
        z: Tensor = self.encoder(join(two_hot.symlog(obs), embedding))
        return z

    def steps(self, z: Tensor, x: Tensor) -> Tensor:
        """``z_BD`` and ``[z, e, a]`` -> each member's next latent ``[K, B, D]``."""
        halves = [cell(x).chunk(2, -1) for cell in self.cells]
        return torch.stack([z + gate.sigmoid() * (c.tanh() - z) for c, gate in halves])


def disagreement(steps: Tensor) -> Tensor:
    """``[K, ..., B, D]`` -> ``[..., B]``: the members' rms distance from their mean."""
    # A root's slope is infinite at 0, where saturated members agree.
    return (steps.var(0, correction=0).mean(-1) + 1e-8).sqrt()


def lowered(logits: Tensor, share: Tensor) -> Tensor:
    """``[B, R]`` logits ``share_B`` of the way to those of a reward one bin lower.

    Exactly a shift by that share of a bin if the logits are a parabola (a discrete normal
    distribution). An exponential tilt would end in the lowest bin if disagreement is large.
    """
    one_lower = torch.cat([logits[..., 1:], logits[..., -1:]], -1)
    return logits + share.unsqueeze(-1) * (one_lower - logits)


spec_version = 2
small: dict[str, Any] = {"encoder_units": [16], "units": [16, 16], "latent_dim": 16, "task_dim": 4}


def build(config: Config, dims: spec.WorldModelDims) -> Ensemble:
    """A freshly initialised ensemble."""
    return Ensemble(config, dims)


@spec.hookimpl
def predict(
    module: Ensemble, state: Tensor, action: Tensor, task: spec.Task, noise: Tensor
) -> spec.Prediction:
    """The members' mean, and a reward that is lower if the members agree less."""
    x = join(state, task.embedding_BE, action * task.mask_BA)
    steps = module.steps(state, x)
    share = torch.tanh(module.config.pessimism * disagreement(steps))
    return spec.Prediction(steps.mean(0), lowered(module.reward(x), share))


@spec.hookimpl
def rollout(
    module: Ensemble, state: Tensor, partner: spec.ChooseAction, task: spec.Task, noise: Tensor
) -> spec.Rollout:
    """Repeated ``predict``."""
    return model_rollout(lambda z, a, n: predict(module, z, a, task, n), state, partner, noise)


@spec.hookimpl
def loss(
    module: Ensemble, batch: spec.Batch, noise: Tensor, done: Tensor
) -> tuple[Tensor, spec.Metrics]:
    """Each member's error from the mean's rollout, decoded observations, rewards not lowered."""
    config, e = module.config, module.embed(batch.index_B)
    latents, inputs, steps = [module.encode(batch.obs_HBO[0], e)], [], []
    for action in batch.action_HBA * batch.mask_BA:
        inputs.append(join(latents[-1], e, action))
        steps.append(module.steps(latents[-1], inputs[-1]))
        latents.append(steps[-1].mean(0))
    with torch.no_grad():
        target_HBD = module.encode(batch.obs_HBO[1:], e)
    steps_KHBD, logits = torch.stack(steps, 1), module.reward(torch.stack(inputs))
    decoded = module.decoder(join(torch.stack(latents), e))
    parts = {
        "consistency": (steps_KHBD - target_HBD).square().mean(),
        "observation_loss": (decoded - two_hot.symlog(batch.obs_HBO)).square().mean(),
        "reward_loss": two_hot.cross_entropy(logits, batch.reward_HB).mean(),
    }
    weights = config.consistency_coef, config.observation_coef, config.reward_coef
    total = torch.stack([w * p for w, p in zip(weights, parts.values(), strict=True)]).sum()
    metrics = {"loss": total, **parts, "disagreement": disagreement(steps_KHBD).mean()}
    return total, {name: value.detach() for name, value in metrics.items()}


@spec.hookimpl
def freeze(module: Ensemble) -> None:
    """Stop every parameter from learning."""
    blocks.freeze(module)
