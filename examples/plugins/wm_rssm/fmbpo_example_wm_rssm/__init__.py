"""A recurrent state-space model (RSSM: PlaNet, arXiv 1811.04551), which remembers its episode.

A gated cell moves h; s comes from the prior p(s | h), or after an observation from q(s | h, o).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import attrs
import torch
from attrs.validators import and_, deep_iterable, ge, gt, instance_of, min_len
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from fmbpo import hookspecs as spec
from fmbpo.nn import blocks, two_hot
from fmbpo.nn.blocks import EmbedsTasks, join, network
from fmbpo.nn.rollout import model_rollout

_widths: Any = deep_iterable(and_(instance_of(int), gt(0)), min_len(1))


@attrs.frozen(kw_only=True)
class Config:
    """Settings of the model."""

    encoder_units: list[int] = attrs.field(factory=lambda: [256], validator=_widths)
    """Hidden widths of the encoder, and of the decoder."""
    units: list[int] = attrs.field(factory=lambda: [256, 256], validator=_widths)
    """Hidden widths of the other networks."""
    latent_dim: int = attrs.field(default=128, validator=ge(4))
    """Width of h and s together, of which s has a quarter."""
    task_dim: int = attrs.field(default=16, validator=gt(0))
    """Width of the task embedding."""
    kl_coef: float = attrs.field(default=0.1, validator=ge(0.0))
    """Weight of the posterior's divergence from the prior."""


class State(NamedTuple):
    """``h[B, D - S]`` and ``s_BS``."""

    h: Tensor
    s: Tensor


class RSSM(EmbedsTasks):
    """Encoder, gated cell, prior, posterior, decoder, reward head."""

    evaluations, warm_up = 1, 4

    def __init__(self, config: Config, dims: spec.WorldModelDims) -> None:
        super().__init__(dims.tasks, config.task_dim)
        d, e, units = config.latent_dim, config.task_dim, config.units
        self.config, self.latent_dim = config, d
        self.noise_dim = self.loss_noise_dim = s = d // 4
        self.encoder = network(dims.obs + e, config.encoder_units, d)
        self.cell = network(d + e + dims.action, units, 2 * (d - s))
        self.prior, self.posterior = network(d - s, units, 2 * s), network(2 * d - s, units, 2 * s)
        self.decoder = network(d + e, config.encoder_units, dims.obs)
        self.reward = network(d + e + dims.action, units, two_hot.BINS)

    def latent(self, state: State) -> Tensor:
        """``[..., B, D]``."""
        return torch.cat([state.h, state.s], -1)

    def inputs(self, z: Tensor, action: Tensor, task: spec.Task) -> Tensor:
        """``[z, e, a]``."""
        return join(z, task.embedding_BE, action * task.mask_BA)

    def advance(self, state: State, action: Tensor, task: spec.Task) -> Tensor:
        """The next h: between the present one and a candidate, both in [-1, 1]."""
        candidate, gate = self.cell(self.inputs(self.latent(state), action, task)).chunk(2, -1)
        h: Tensor = state.h + gate.sigmoid() * (candidate.tanh() - state.h)
        return h

    def seen(self, h: Tensor, obs: Tensor, task: spec.Task) -> Normal:
        """``q(s | h, o)``."""
        encoded = self.encoder(join(two_hot.symlog(obs), task.embedding_BE))
        return normal(self.posterior(torch.cat([h, encoded], -1)))

    def begin(self, obs: Tensor, task: spec.Task) -> State:
        """h = 0, and the posterior's mean."""
        h = obs.new_zeros(len(obs), self.latent_dim - self.noise_dim)
        return State(h, self.seen(h, obs, task).mean)

    def observe(self, state: State, action: Tensor, obs: Tensor, task: spec.Task) -> State:
        """The next h, and the posterior's mean."""
        h = self.advance(state, action, task)
        return State(h, self.seen(h, obs, task).mean)


def normal(out: Tensor) -> Normal:
    """A network's output -> mean, and standard deviations in [0.1, 2]."""
    mean, raw = out.chunk(2, -1)
    return Normal(mean, 0.1 + 1.9 * (raw + 0.5).sigmoid(), validate_args=False)


spec_version = 2
small: dict[str, Any] = {"encoder_units": [16], "units": [16, 16], "latent_dim": 16, "task_dim": 4}
build = RSSM


@spec.hookimpl
def predict(
    module: RSSM, state: State, action: Tensor, task: spec.Task, noise: Tensor
) -> spec.Prediction:
    """The next h, and s drawn from the prior."""
    h = module.advance(state, action, task)
    prior = normal(module.prior(h))
    reward = module.reward(module.inputs(module.latent(state), action, task))
    return spec.Prediction(State(h, prior.mean + prior.stddev * noise), reward)


@spec.hookimpl
def rollout(
    module: RSSM, state: State, partner: spec.ChooseAction, task: spec.Task, noise: Tensor
) -> spec.Rollout:
    """Repeated ``predict``."""
    step = lambda state, a, n: predict(module, state, a, task, n)  # noqa: E731
    return model_rollout(step, state, partner, noise, module.latent)


@spec.hookimpl
def loss(
    module: RSSM, batch: spec.Batch, noise: Tensor, done: Tensor
) -> tuple[Tensor, spec.Metrics]:
    """The negative evidence bound: decoded observations, rewards, KL(posterior || prior)."""
    task = spec.Task(batch.index_B, batch.mask_BA, module.embed(batch.index_B))
    states, apart = [module.begin(batch.obs_HBO[0], task)], []
    for action, obs, n in zip(batch.action_HBA, batch.obs_HBO[1:], noise, strict=True):
        h = module.advance(states[-1], action, task)
        q = module.seen(h, obs, task)
        apart.append(kl_divergence(q, normal(module.prior(h))).sum(-1))
        states.append(State(h, q.mean + q.stddev * n))
    z_HBD = torch.stack([module.latent(state) for state in states])
    decoded = module.decoder(join(z_HBD, task.embedding_BE))
    logits = module.reward(module.inputs(z_HBD[:-1], batch.action_HBA, task))
    seen = (decoded - two_hot.symlog(batch.obs_HBO)).square().sum(-1).mean()
    reward, kl = two_hot.cross_entropy(logits, batch.reward_HB).mean(), torch.stack(apart).mean()
    total = seen + reward + module.config.kl_coef * kl
    metrics = {"loss": total, "observation_loss": seen, "reward_loss": reward, "kl": kl}
    return total, {name: value.detach() for name, value in metrics.items()}


@spec.hookimpl
def freeze(module: RSSM) -> None:
    """Stop every parameter from learning."""
    blocks.freeze(module)
