"""Held-out measures that compare different kinds of world models.

Open-loop rollouts with recorded actions on episodes never trained on. Rewards are in the
environment's units. A ridge regression per task, fitted on training latents, reads observations out
of the latent; errors are in units of each observation entry's standard deviation, so that they do
not depend on a model's latent scale.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from fmbpo.base import metrics
from fmbpo.data.sampler import Rows, SliceSampler
from fmbpo.hookspecs import Batch, Curved, OnSimplex, Rollout, Task, WorldModel
from fmbpo.nn import two_hot
from fmbpo.tasks.mt30 import OBS_WIDTH

HORIZONS = (1, 2, 4, 8, 16)
SLICES, SLICES_PER_TASK = 512, 64
"""Held-out slices in all, the same number of each task, but at least the second number of each."""
FIT_SLICES = 1024
"""Slices of two rows per task that fit the read-out."""
RIDGE = 1e-4
"""In units of the mean square of a latent entry."""


class Validator:
    """Fixed held-out and training slices, and the measures of a model on them."""

    def __init__(self, train: Rows, held_out: Rows) -> None:
        longest = int((held_out.end_E - held_out.start_E).min()) - 1
        self.horizons = [h for h in HORIZONS if h <= longest]
        each = max(SLICES_PER_TASK, -(-SLICES // len(torch.unique(held_out.task_E))))
        self.batch = _slices(held_out, self.horizons[-1], each, seed=0)
        self.fit = _slices(train, 1, FIT_SLICES, seed=1)

    @torch.no_grad()
    def __call__(
        self, module: WorldModel, rollout_hook: Callable[..., Rollout]
    ) -> dict[str, float]:
        """Measures by name; ``score`` (lower is better) chooses the best checkpoint.

        ``reward_r2``: share of the held-out reward's variance explained by the decoded rewards of
        the rollout; ``reward_std`` and ``real_reward_std``: the spread of both;
        ``reward_cross_entropy`` of the two-hot bins; ``reward_action_gradient``: root mean square
        over rows of ``|∂r̂/∂a|`` at the first step; ``reward_rmse_hN``, ``obs_error_hN``: root mean
        squared error N steps ahead; ``copy_error_hN``: the same for predicting no change;
        ``constant_error_hN`` and ``constant_reward_rmse_hN``: for predicting each task's mean;
        ``effective_rank`` of the latents; ``curvature`` of a learned flow (if ``Curved``), 0 if
        paths are straight; ``simplex_error`` (if ``OnSimplex``): largest distance of a latent
        group's sum from 1 over the rollout; ``score``: mean over horizons of the observation error,
        plus 1 - ``reward_r2``.
        """
        batch, scale, (mean_BO, mean_B) = self.batch, self._scale, self._means
        task, rollout = self._rollout(module, rollout_hook)
        readout = self._readout(module)
        logits, real = rollout.reward_logits_HBR, batch.reward_HB
        reward = two_hot.decode(logits)
        error, slope = reward - real, self._action_gradient(module, rollout_hook, task, rollout)
        r2 = float(1 - error.square().mean() / real.var().clamp(min=1e-6))
        measures = {
            metrics.REWARD_R2: r2,
            metrics.REWARD_STD: float(reward.std()),
            metrics.REAL_REWARD_STD: float(real.std()),
            metrics.REWARD_CROSS_ENTROPY: float(two_hot.cross_entropy(logits, real).mean()),
            metrics.REWARD_ACTION_GRADIENT: slope,
        }
        obs_errors = []
        for h in self.horizons:
            obs = batch.obs_HBO[h]
            obs_errors.append(_rmse(readout(rollout.z_HBD[h]), obs, scale))
            at_h = {
                metrics.REWARD_RMSE: _rms(error[h - 1]),
                metrics.CONSTANT_REWARD_RMSE: _rms(mean_B - real[h - 1]),
                metrics.CONSTANT_ERROR: _rmse(mean_BO, obs, scale),
                metrics.OBS_ERROR: obs_errors[-1],
                metrics.COPY_ERROR: _rmse(batch.obs_HBO[0], obs, scale),
            }
            measures |= {metrics.at_horizon(name, h): value for name, value in at_h.items()}
        latents = module.encode(batch.obs_HBO, task.embedding_BE).flatten(0, 1)
        measures[metrics.EFFECTIVE_RANK] = _effective_rank(latents)
        if isinstance(module, Curved):
            z = rollout.z_HBD[0]
            noise = _noise(1, len(z), module.noise_dim).to(z)[0]
            curvature = module.curvature(z, batch.action_HBA[0], task, noise)
            measures[metrics.CURVATURE] = float(curvature)
        if isinstance(module, OnSimplex):
            shape = (*rollout.z_HBD.shape[:-1], -1, module.simplex_dim)
            sums = rollout.z_HBD.reshape(shape).sum(-1)
            measures[metrics.SIMPLEX_ERROR] = float((sums - 1).abs().max())
        measures[metrics.SCORE] = sum(obs_errors) / len(obs_errors) + 1 - r2
        return measures

    def _rollout(self, module: WorldModel, hook: Callable[..., Rollout]) -> tuple[Task, Rollout]:
        batch = self.batch
        task = Task(batch.index_B, batch.mask_BA, module.embed(batch.index_B))
        z = module.encode(batch.obs_HBO[0], task.embedding_BE)
        noise = _noise(len(batch.action_HBA), len(z), module.noise_dim).to(z)
        return task, hook(module, z, lambda t, _: batch.action_HBA[t], task, noise)

    def _action_gradient(
        self, module: WorldModel, hook: Callable[..., Rollout], task: Task, rollout: Rollout
    ) -> float:
        z = rollout.z_HBD[0]
        noise = _noise(1, len(z), module.noise_dim).to(z)
        with torch.enable_grad():
            action = self.batch.action_HBA[0].clone().requires_grad_()
            first = hook(module, z, lambda *_: action, task, noise)
            total = two_hot.decode(first.reward_logits_HBR).sum()
            if not total.requires_grad:  # it does not depend on the action
                return 0.0
            (slope,) = torch.autograd.grad(total, action, allow_unused=True)
        return 0.0 if slope is None else float(slope.square().sum(-1).mean().sqrt())

    def _readout(self, module: WorldModel) -> Callable[[Tensor], Tensor]:
        """``[B, D]`` latents of the held-out slices -> observations ``[B, O]``: a ridge regression
        (with a constant) per task, fitted on training latents."""
        z_NBD = module.encode(self.fit.obs_HBO, module.embed(self.fit.index_B))
        weight = z_NBD.new_zeros(len(self.batch.index_B), z_NBD.shape[-1] + 1, OBS_WIDTH)
        for task in torch.unique(self.batch.index_B):
            mine = self.fit.index_B == task
            x = _with_one(z_NBD[:, mine].flatten(0, 1)).double()
            y = self.fit.obs_HBO[:, mine].flatten(0, 1).double()
            gram = x.T @ x / len(x)
            gram.diagonal().add_(RIDGE * gram.diagonal().mean())
            solution = torch.linalg.solve(gram, x.T @ y / len(x))
            weight[self.batch.index_B == task] = solution.to(z_NBD)
        return lambda z: (_with_one(z).unsqueeze(1) @ weight).squeeze(1)

    @cached_property
    def _means(self) -> tuple[Tensor, Tensor]:
        """Mean observation ``[B, O]`` and reward ``[B]`` in training, of each row's task."""
        obs = self._of_own_task(self.fit.obs_HBO, lambda x: x.mean((0, 1)))
        return obs, self._of_own_task(self.fit.reward_HB, torch.mean)

    @cached_property
    def _scale(self) -> Tensor:
        """Standard deviation per observation entry ``[B, O]`` of each row's task, 0 for padding and
        constants."""
        return self._of_own_task(self.fit.obs_HBO[:1], lambda x: x[0].std(0))

    def _of_own_task(self, fit_HN: Tensor, statistic: Callable[[Tensor], Tensor]) -> Tensor:
        """``statistic`` of the training slices of each held-out row's task, ``[B, ...]``."""
        index = self.batch.index_B
        found = torch.zeros((len(index), *fit_HN.shape[2:]), device=fit_HN.device)
        for task in torch.unique(index):
            found[index == task] = statistic(fit_HN[:, self.fit.index_B == task])
        return found


def _slices(rows: Rows, horizon: int, each: int, seed: int) -> Batch:
    """``each`` slices of every task, from its episodes in turn."""
    drawn = []
    for task in torch.unique(rows.task_E):
        (mine,) = torch.nonzero(rows.task_E == task, as_tuple=True)
        row, episode = SliceSampler(rows.select(mine), horizon, each, seed).draw()
        drawn.append((row, mine[episode]))
    row, episode = (torch.cat(x) for x in zip(*drawn, strict=True))
    batch = rows.batch(row, episode, horizon)  # one pass over the rows, which may be on the disk
    return Batch(*(part.contiguous() for part in batch))


def _rmse(predicted: Tensor, real: Tensor, scale: Tensor) -> float:
    """Root mean squared error in units of ``scale``, over the entries that vary."""
    varies = scale > 1e-6
    return _rms((predicted - real)[varies] / scale[varies])


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def _noise(*shape: int) -> Tensor:
    """The same standard normals at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _effective_rank(z: Tensor) -> float:
    """Exponential of the entropy of the normalised singular values (Roy & Vetterli 2007); 1 for a
    constant latent."""
    s = torch.linalg.svdvals((z - z.mean(0)).double())
    if s.sum() < 1e-9:
        return 1.0
    p = s / s.sum()
    return float(torch.exp(-(p * (p + 1e-12).log()).sum()))


def _with_one(z: Tensor) -> Tensor:
    return torch.cat([z, torch.ones_like(z[..., :1])], -1)
