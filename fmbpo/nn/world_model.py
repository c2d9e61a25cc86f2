"""Shared by the world models of the study: embedding, encoder, reward head, and the loss.

The world models differ in their dynamics only, so a comparison compares dynamics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
import torch
import torch.nn.functional as F
from attrs.validators import and_, deep_iterable, ge, gt, in_, instance_of, le, min_len
from torch import Tensor, nn

from fmbpo.base.metrics import CONSISTENCY, CONTINUATION_LOSS, LOSS, REWARD_LOSS
from fmbpo.hookspecs import CONTINUE, Batch, Metrics, Prediction, Task, WorldModelDims
from fmbpo.nn import two_hot
from fmbpo.nn.blocks import (
    SIMPLEX_DIM,
    EmbedsTasks,
    NormedLinear,
    SimNorm,
    join,
    linear,
    network,
    normed_mlp,
)
from fmbpo.nn.layers import Linear
from fmbpo.nn.precise import precise

_widths: Any = deep_iterable(and_(instance_of(int), gt(0)), min_len(1))


def _whole_groups(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value <= 0 or value % SIMPLEX_DIM:
        raise ValueError(f"{attribute.name} must be a positive multiple of {SIMPLEX_DIM}: {value}")


@attrs.frozen(kw_only=True)
class WorldModelConfig:
    """Settings that the world models share. Defaults: TD-MPC2's 48M model."""

    encoder_units: list[int] = attrs.field(factory=lambda: [1792, 1792, 1792], validator=_widths)
    """Hidden widths of the encoder."""
    units: list[int] = attrs.field(factory=lambda: [1792, 1792], validator=_widths)
    """Hidden widths of the dynamics and of the reward head."""
    latent_dim: int = attrs.field(default=768, validator=_whole_groups)
    """Width of the latent, a multiple of 8 (SimNorm's group)."""
    task_dim: int = attrs.field(default=64, validator=gt(0))
    """Width of the task embedding."""
    consistency_coef: float = attrs.field(default=20.0, validator=ge(0.0))
    """c_z, weight of the latent error."""
    reward_coef: float = attrs.field(default=0.1, validator=ge(0.0))
    """c_r, weight of the reward's cross-entropy."""
    reward_loss: Literal["two_hot", "logit_mse"] = attrs.field(
        default="two_hot", validator=in_(["two_hot", "logit_mse"])
    )
    """Two-hot cross-entropy, or PWM's released loss: each logit's squared error from the reward."""
    reward_bound: float = attrs.field(default=two_hot.BOUND, validator=and_(gt(0.0), le(80.0)))
    """The outer bins of rewards, in symlog: 10 reaches rewards of ±22,025. The distance of
    neighbouring bins is a fiftieth of it; lower it for rewards that are all much smaller than 1."""
    rho: float = attrs.field(default=0.99, validator=and_(gt(0.0), le(1.0)))
    """Weight of step t of a sub-trajectory is ρ^t."""
    continuation_coef: float = attrs.field(default=0.0, validator=ge(0.0))
    """c_c, weight of the cross-entropy of whether the episode goes on, for tasks whose episodes
    terminate; 0: the model has no such head, and imagined episodes never end."""


GOES_ON = 4.0
"""Initial bias of the continuation's logit: episodes go on, σ(4) = 0.98."""

SMALL: dict[str, Any] = {"encoder_units": [16], "units": [16, 16], "latent_dim": 16, "task_dim": 4}
"""Settings of a small model, for contract checks."""


class LatentWorldModel(EmbedsTasks):
    """Embedding, encoder ``E(o, e)``, dynamics ``D``, reward head ``R(z, e, a)``.

    The input orders are those of TD-MPC2's checkpoints: encoder ``[o, e]``, dynamics and reward
    ``[z, e, a]``. In the dynamics, ``extra_inputs`` columns follow. The dynamics end in SimNorm or,
    if ``linear_dynamics``, in a plain Linear.
    """

    simplex_dim = SIMPLEX_DIM
    noise_dim = 0
    loss_noise_dim = 0
    evaluations = 1

    def __init__(
        self,
        config: WorldModelConfig,
        dims: WorldModelDims,
        extra_inputs: int = 0,
        linear_dynamics: bool = False,
    ) -> None:
        super().__init__(dims.tasks, config.task_dim)
        self.config, self.latent_dim = config, config.latent_dim
        self.reward_bound = config.reward_bound
        step_inputs = config.latent_dim + config.task_dim + dims.action
        last: nn.Module = NormedLinear(config.encoder_units[-1], config.latent_dim, SimNorm())
        self.encoder = normed_mlp(dims.obs + config.task_dim, config.encoder_units, last)
        ends = config.units[-1], config.latent_dim
        last = linear(*ends) if linear_dynamics else NormedLinear(*ends, SimNorm())
        self.dynamics = normed_mlp(step_inputs + extra_inputs, config.units, last)
        head = Linear(config.units[-1], two_hot.BINS)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.reward = normed_mlp(step_inputs, config.units, head)
        if config.continuation_coef:
            self.continuation = network(step_inputs, config.units, 1)
            bias = self.continuation[-1].bias
            assert isinstance(bias, Tensor)
            nn.init.constant_(bias, GOES_ON)

    def adopt(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This model's parameters from those of an MLP world model of the same sizes.

        The extra input columns of the dynamics are 0, so the first network evaluation equals the
        MLP model's. Raises ``ValueError`` if names or shapes do not fit.
        """
        own = {name: list(p.shape) for name, p in self.named_parameters()}
        adopted, first = dict(weights), "dynamics.0.linear.weight"
        if first in own and first in adopted:
            missing = own[first][1] - adopted[first].shape[1]
            adopted[first] = F.pad(adopted[first], (0, max(missing, 0)))
        given = {name: list(value.shape) for name, value in adopted.items()}
        for name in sorted(own.keys() | given.keys()):
            if (mine := own.get(name)) != (theirs := given.get(name)):
                what = f"{name} has shape {theirs} in the checkpoint, {mine} in the model"
                raise ValueError(what)
        return adopted

    def encode(self, obs: Tensor, embedding: Tensor) -> Tensor:
        """``[..., B, O]`` and ``[B, E]`` -> ``[..., B, D]``."""
        z: Tensor = self.encoder(join(obs, embedding))
        return z

    def step_input(self, z: Tensor, action: Tensor, task: Task) -> Tensor:
        """``[z, e, a]`` with the masked action dimensions set to 0: ``[..., B, D + E + A]``."""
        return join(z, task.embedding_BE, action * task.mask_BA)

    def reward_logits(self, z: Tensor, action: Tensor, task: Task) -> Tensor:
        """``[..., B, D]``, ``[..., B, A]`` -> ``[..., B, 101]``."""
        logits: Tensor = self.reward(self.step_input(z, action, task))
        return logits


def prediction(
    module: LatentWorldModel, z: Tensor, z_next: Tensor, action: Tensor, task: Task
) -> Prediction:
    """The step from ``z_BD`` to ``z_next``, with its reward and, if the model has the head, the
    probability that the episode goes on."""
    x = module.step_input(z, action, task)
    ends = bool(module.config.continuation_coef)
    extras = {CONTINUE: continuing(module, x).sigmoid()} if ends else {}
    return Prediction(z_next, module.reward(x), extras)


def continuing(module: LatentWorldModel, x: Tensor) -> Tensor:
    """Logits ``[..., B]`` that the episode goes on after the step with this ``step_input``."""
    logit: Tensor = module.continuation(x).squeeze(-1)
    return precise(logit)


def sub_trajectory_loss(
    module: LatentWorldModel,
    batch: Batch,
    advance: Callable[[int, Tensor, Task], Tensor],
    errors: Callable[[Tensor, Tensor, Tensor, Task], Tensor | tuple[Tensor, Metrics]],
) -> tuple[Tensor, Metrics]:
    """TD-MPC2's model loss over a sub-trajectory, with the plugin's error of the dynamics.

    ``advance(t, z_BD, task)`` gives the next latent ``[B, D]`` for the actions
    ``batch.action_HBA[t]``. ``errors(source_HBD, predicted_HBD, target_HBD, task)`` is called once:
    row t has the latent before step t, the one that ``advance`` made of it, and the real next
    latent, without gradient. It gives ``error_H``, a mean over the batch for each step, or a pair
    of it and metrics of its parts (0-d), which join those of the loss.

    ``L = c_z mean_t ρ^t error_t + c_r mean_t ρ^t CE(R(z_t, a_t), two_hot(symlog r_t))`` (and, if
    the model has that head, ``c_c mean_t ρ^t BCE`` of whether the episode goes on) with
    ``z_0 = E(o_0)``, ``z_{t+1} = advance(t, z_t, task)`` and targets ``sg E(o_{t+1})``.
    """
    config = module.config
    task = Task(batch.index_B, batch.mask_BA, module.embed(batch.index_B))
    with torch.no_grad():
        target_HBD = module.encode(batch.obs_HBO[1:], task.embedding_BE)
    latents = [module.encode(batch.obs_HBO[0], task.embedding_BE)]
    for t in range(len(batch.action_HBA)):
        latents.append(advance(t, latents[-1], task))
    source_HBD, predicted_HBD = torch.stack(latents[:-1]), torch.stack(latents[1:])
    found = errors(source_HBD, predicted_HBD, target_HBD, task)
    error_H, parts = found if isinstance(found, tuple) else (found, {})
    x = module.step_input(source_HBD, batch.action_HBA, task)
    logits = module.reward(x)
    weight_H = config.rho ** torch.arange(len(error_H), device=error_H.device, dtype=error_H.dtype)
    consistency = (weight_H * error_H).mean()
    if config.reward_loss == "two_hot":
        error_HB = two_hot.cross_entropy(logits, batch.reward_HB, config.reward_bound)
    else:
        error_HB = (logits - batch.reward_HB.unsqueeze(-1)).square().mean(-1)
    reward = (weight_H * error_HB.mean(-1)).mean()
    loss = config.consistency_coef * consistency + config.reward_coef * reward
    if config.continuation_coef:
        entropy_HB = F.binary_cross_entropy_with_logits(
            continuing(module, x), 1 - batch.terminated_HB, reduction="none"
        )
        parts = {**parts, CONTINUATION_LOSS: (weight_H * entropy_HB.mean(-1)).mean()}
        loss = loss + config.continuation_coef * parts[CONTINUATION_LOSS]
    metrics = {**parts, LOSS: loss, CONSISTENCY: consistency, REWARD_LOSS: reward}
    return loss, {name: value.detach() for name, value in metrics.items()}


def mean_squared(difference_HBD: Tensor) -> Tensor:
    """``[H, B, D]`` -> ``[H]``."""
    return difference_HBD.square().mean((1, 2))
