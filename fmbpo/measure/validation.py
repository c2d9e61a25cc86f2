"""Held-out measures that compare different kinds of world models.

Open-loop rollouts with recorded actions on episodes never trained on. Rewards are in the
environment's units. A ridge regression per task, fitted on training latents, reads observations out
of the latent; errors are in units of each observation entry's standard deviation, so that they do
not depend on a model's latent scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from statistics import fmean
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor

from fmbpo.base import metrics
from fmbpo.data.sampler import Rows, SliceSampler
from fmbpo.hookspecs import Batch, Rollout, State, Task, WorldModel
from fmbpo.nn import two_hot
from fmbpo.nn.state import along, latents
from fmbpo.protocols import Curved, DecodesRewards, OnSimplex
from fmbpo.pwm.pair import bound, reward_decoder

HORIZONS = (1, 2, 4, 8, 16)
SLICES, SLICES_PER_TASK = 512, 64
"""Held-out slices in all, the same number of each task, but at least the second number of each."""
FIT_SLICES = 1024
"""Slices of two rows per task that fit the read-out."""
RIDGE = 1e-4
"""In units of the mean square of a latent entry."""
DRAWS = 8
"""Draws of noise for the rollouts of a stochastic model."""
VARIES = 1e-3
"""A reward with a smaller standard deviation on a task's slices counts as constant."""
SMALLEST = 1e-6
"""An observation entry with a smaller standard deviation is padding, or constant."""
OVERALL = ""
"""The place of the measures of all tasks."""
BY_TASK = "by_task"
"""The key of some measures by task among those of all tasks in a summary."""

Measures: TypeAlias = dict[str, dict[str, float]]
"""Measures by task and name; ``OVERALL``: those of all tasks."""


@attrs.frozen
class _Draws:
    """Predictions with M draws of noise, at X horizons for observations."""

    reward_MHKN: Tensor
    obs_MXKNO: Tensor
    entropy_K: Tensor | None
    """The reward's cross-entropy; None if it has no bins."""
    off_simplex: float


class Validator:
    """Fixed held-out and training slices, and the measures of a model on them.

    K tasks have episodes to train on and held-out ones. Slices are grouped by task: rows
    ``[K, N]`` of a batch, in the order of ``tasks``.
    """

    def __init__(self, train: Rows, held_out: Rows, warm_up: int = 0) -> None:
        """``warm_up``: real steps that models take in before their rollouts begin."""
        longest = int((held_out.end_E - held_out.start_E).min()) - 1 - warm_up
        self.horizons = [h for h in HORIZONS if h <= longest]
        index_K = torch.unique(held_out.task_E)
        self.tasks = [held_out.suite.names[index] for index in index_K.tolist()]
        each = max(SLICES_PER_TASK, -(-SLICES // len(self.tasks)))
        known = train.select(torch.isin(train.task_E, index_K))
        self.warm_up = warm_up
        self._led_to_batch = _slices(held_out, warm_up + self.horizons[-1], each, seed=0)
        self._led_to_fit = _slices(known, warm_up + 1, FIT_SLICES, seed=1)
        self.batch, self.fit = (_behind(x, warm_up) for x in (self._led_to_batch, self._led_to_fit))

    @torch.no_grad()
    def __call__(self, module: WorldModel, rollout_hook: Callable[..., Rollout]) -> Measures:
        """Measures by task and name; those of ``OVERALL`` are means over tasks.

        ``reward_r2``: share of the held-out reward's variance in this task that the decoded rewards
        of the rollout explain; left out if the reward does not vary (``VARIES``). ``reward_std``
        and ``real_reward_std``: the spread of both; ``reward_cross_entropy`` of the two-hot
        bins, if the model has them;
        ``reward_action_gradient``: root mean square over rows of ``|∂r̂/∂a|`` at the first step;
        ``reward_rmse_hN``, ``obs_error_hN``: root mean squared error N steps ahead, of the mean
        prediction; ``reward_crps_hN``, ``obs_crps_hN``: the CRPS; ``copy_error_hN``: the root mean
        squared error of predicting no change; ``constant_error_hN`` and
        ``constant_reward_rmse_hN``: of predicting the task's mean.

        ``score`` (lower is better) chooses the best checkpoint: the mean over horizons of
        ``obs_crps_hN``, plus 1 - ``reward_r2`` if there is one. A return adds up expected rewards,
        so of rewards the mean prediction counts. The states that follow, and the actions in them,
        depend on a state in a nonlinear way, so of states the whole distribution counts.

        Of all tasks together: ``effective_rank`` of the latents; ``curvature`` of a learned flow
        (if ``Curved``), 0 if paths are straight; ``simplex_error`` (if ``OnSimplex``): largest
        distance of a latent group's sum from 1 over the rollout.
        """
        batch, (mean_KO, mean_K) = self.batch, self._means
        task = _task(module, batch)
        state = self._begun(module, task)
        drawn = self._predicted(module, rollout_hook, task, state)
        real, obs = self._by_task(batch.reward_HB), self._by_task(batch.obs_HBO)
        reward = drawn.reward_MHKN.mean(0)
        square_HKN = _squared_error(drawn.reward_MHKN, real)
        reward_crps_HKN = crps(drawn.reward_MHKN, real)
        variance_K = real.var((0, 2), correction=0)  # a head that knows the mean has R² = 0
        varies_K = variance_K > VARIES**2
        unexplained_K = square_HKN.mean((0, 2)) / variance_K.clamp(min=VARIES**2)
        slope = self._action_gradient(module, rollout_hook, task, state)
        found = {
            metrics.REWARD_R2: 1 - unexplained_K,
            metrics.REWARD_STD: reward.std((0, 2)),
            metrics.REAL_REWARD_STD: real.std((0, 2)),
            metrics.REWARD_ACTION_GRADIENT: self._by_task(slope, 0).square().mean(1).sqrt(),
        }
        if drawn.entropy_K is not None:
            found[metrics.REWARD_CROSS_ENTROPY] = drawn.entropy_K
        scores = []
        for at, h in enumerate(self.horizons):
            obs_MKNO = drawn.obs_MXKNO[:, at]
            scores.append(self._over_entries(crps(self._scaled(obs_MKNO), self._scaled(obs[h]))))
            constant, copied = (self._scaled(x)[None] for x in (mean_KO.unsqueeze(1), obs[0]))
            at_h = {
                metrics.REWARD_RMSE: _root(square_HKN[h - 1].mean(1)),
                metrics.REWARD_CRPS: reward_crps_HKN[h - 1].mean(1),
                metrics.CONSTANT_REWARD_RMSE: _root(
                    (mean_K[:, None] - real[h - 1]).square().mean(1)
                ),
                metrics.CONSTANT_ERROR: self._obs_error(constant, obs[h]),
                metrics.OBS_ERROR: self._obs_error(self._scaled(obs_MKNO), obs[h]),
                metrics.OBS_CRPS: scores[-1],
                metrics.COPY_ERROR: self._obs_error(copied, obs[h]),
            }
            found |= {metrics.at_horizon(name, h): value for name, value in at_h.items()}
        found[metrics.SCORE] = torch.stack(scores).mean(0) + varies_K * unexplained_K
        values = torch.stack(list(found.values()), 1).tolist()  # one transfer from the device
        by_task = {
            name: dict(zip(found, row, strict=True))
            for name, row in zip(self.tasks, values, strict=True)
        }
        for measures, varies in zip(by_task.values(), varies_K.tolist(), strict=True):
            if not varies:
                del measures[metrics.REWARD_R2]
        whole = self._whole(module, task, drawn)
        return {OVERALL: {**_means_over(by_task.values()), **whole}, **by_task}

    def _predicted(
        self, module: WorldModel, hook: Callable[..., Rollout], task: Task, state: State
    ) -> _Draws:
        """Rollouts with recorded actions: one, or ``DRAWS`` of a stochastic model."""
        batch, readout, decode = self.batch, self._readout(module), reward_decoder(module)
        rewards, observations, entropies, off = [], [], [], 0.0
        for seed in range(DRAWS if module.noise_dim else 1):
            noise = _noise(seed, *batch.reward_HB.shape, module.noise_dim).to(batch.obs_HBO)
            rollout = hook(module, state, lambda t, _: batch.action_HBA[t], task, noise)
            rewards.append(self._by_task(decode(rollout.reward_HBR)))
            if not isinstance(module, DecodesRewards):
                entropy_HB = two_hot.cross_entropy(
                    rollout.reward_HBR, batch.reward_HB, bound(module)
                )
                entropies.append(self._by_task(entropy_HB).mean((0, 2)))
            observations.append(torch.stack([readout(rollout.z_HBD[h]) for h in self.horizons]))
            if isinstance(module, OnSimplex):
                groups = rollout.z_HBD.reshape(*rollout.z_HBD.shape[:-1], -1, module.simplex_dim)
                off = max(off, float((groups.sum(-1) - 1).abs().max()))
        entropy_K = torch.stack(entropies).mean(0) if entropies else None
        return _Draws(torch.stack(rewards), torch.stack(observations), entropy_K, off)

    def _whole(self, module: WorldModel, task: Task, drawn: _Draws) -> dict[str, float]:
        """The measures of all tasks together."""
        batch = self.batch
        z_HBD = self._latents(module, self._led_to_batch)
        measures = {metrics.EFFECTIVE_RANK: _effective_rank(z_HBD.flatten(0, 1))}
        if isinstance(module, Curved):
            noise = _noise(0, 1, z_HBD.shape[1], module.noise_dim).to(z_HBD)[0]
            curvature = module.curvature(z_HBD[0], batch.action_HBA[0], task, noise)
            measures[metrics.CURVATURE] = float(curvature)
        if isinstance(module, OnSimplex):
            measures[metrics.SIMPLEX_ERROR] = drawn.off_simplex
        return measures

    def _begun(self, module: WorldModel, task: Task) -> State:
        """The states from which rollouts begin."""
        led, steps = self._led_to_batch, self.warm_up
        return along(module, led.obs_HBO[: steps + 1], led.action_HBA[:steps], task)[-1]

    def _latents(self, module: WorldModel, led: Batch) -> Tensor:
        """Behind the warm-up, ``[H + 1, B, D]``."""
        return latents(module, led.obs_HBO, led.action_HBA, _task(module, led))[self.warm_up :]

    def _by_task(self, rows: Tensor, dim: int = 1) -> Tensor:
        """``[..., B, ...]`` -> ``[..., K, N, ...]``."""
        return rows.reshape(*rows.shape[:dim], len(self.tasks), -1, *rows.shape[dim + 1 :])

    def _scaled(self, obs: Tensor) -> Tensor:
        """``[..., K, N, O]`` in standard deviations; entries that do not vary are 0."""
        varies_KO = self._scale > SMALLEST
        return obs / torch.where(varies_KO, self._scale, torch.inf).unsqueeze(1)

    def _over_entries(self, error_KNO: Tensor) -> Tensor:
        """The mean over rows and over the entries that vary, ``[K]``."""
        entries_K = (self._scale > SMALLEST).sum(1).clamp(min=1)
        return error_KNO.mean(1).sum(1) / entries_K

    def _obs_error(self, scaled_MKNO: Tensor, real_KNO: Tensor) -> Tensor:
        """``[K]`` root mean squared errors of the mean of M draws, in standard deviations."""
        return _root(self._over_entries(_squared_error(scaled_MKNO, self._scaled(real_KNO))))

    def _action_gradient(
        self, module: WorldModel, hook: Callable[..., Rollout], task: Task, state: State
    ) -> Tensor:
        """``|∂r̂/∂a|`` at the first step, ``[B]``."""
        action = self.batch.action_HBA[0]
        noise = _noise(0, 1, len(action), module.noise_dim).to(action)
        with torch.enable_grad():
            action = action.clone().requires_grad_()
            first = hook(module, state, lambda *_: action, task, noise)
            total = reward_decoder(module)(first.reward_HBR).sum()
            slope = None
            if total.requires_grad:  # else it does not depend on the action
                (slope,) = torch.autograd.grad(total, action, allow_unused=True)
        return torch.zeros_like(action[:, 0]) if slope is None else slope.norm(dim=-1)

    def _readout(self, module: WorldModel) -> Callable[[Tensor], Tensor]:
        """Latents of the held-out slices ``[B, D]`` -> observations ``[K, N, O]``: a ridge
        regression (with a constant) per task, fitted on training latents."""
        z = self._latents(module, self._led_to_fit)
        weights = []
        for latent, obs in zip(
            self._by_task(z).unbind(1), self._by_task(self.fit.obs_HBO).unbind(1), strict=True
        ):
            x, y = _with_one(latent.flatten(0, 1)).double(), obs.flatten(0, 1).double()
            gram = x.T @ x / len(x)
            gram.diagonal().add_(RIDGE * gram.diagonal().mean())
            weights.append(torch.linalg.solve(gram, x.T @ y / len(x)).to(z))
        weight_KDO = torch.stack(weights)
        return lambda z: self._by_task(_with_one(z), 0) @ weight_KDO

    @cached_property
    def _means(self) -> tuple[Tensor, Tensor]:
        """Each task's mean observation ``[K, O]`` and reward ``[K]`` in training."""
        obs, reward = self._by_task(self.fit.obs_HBO), self._by_task(self.fit.reward_HB)
        return obs.mean((0, 2)), reward.mean((0, 2))

    @cached_property
    def _scale(self) -> Tensor:
        """Each task's standard deviation per observation entry ``[K, O]``, 0 for padding and
        constants."""
        return self._by_task(self.fit.obs_HBO)[0].std(1)


def _behind(batch: Batch, steps: int) -> Batch:
    """The sub-trajectories without their first steps."""
    parts = (batch.obs_HBO, batch.action_HBA, batch.reward_HB, batch.terminated_HB)
    obs, action, reward, ends = (x[steps:] for x in parts)
    return Batch(obs, action, reward, batch.index_B, batch.mask_BA, ends)


def _task(module: WorldModel, batch: Batch) -> Task:
    return Task(batch.index_B, batch.mask_BA, module.embed(batch.index_B))


def summarised(measures: Measures) -> dict[str, Any]:
    """Measures as a summary records them: all of ``OVERALL``, and R² and score ``BY_TASK``."""
    kept = (metrics.REWARD_R2, metrics.SCORE)
    by_task = {
        task: {name: own[name] for name in kept if name in own}
        for task, own in measures.items()
        if task != OVERALL
    }
    return {**measures[OVERALL], BY_TASK: by_task}


def mean_summarised(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each measure, also by task, over all that have it."""
    by_task: dict[str, list[Mapping[str, float]]] = {}
    for each in found:
        for task, own in each.get(BY_TASK, {}).items():
            by_task.setdefault(task, []).append(own)
    whole = [{name: x for name, x in each.items() if name != BY_TASK} for each in found]
    tasks = {task: _means_over(own) for task, own in by_task.items()}
    return {**_means_over(whole), **({BY_TASK: tasks} if tasks else {})}


def _slices(rows: Rows, horizon: int, each: int, seed: int) -> Batch:
    """``each`` slices of every task, from its episodes in turn."""
    picked = []
    for task in torch.unique(rows.task_E):
        (mine,) = torch.nonzero(rows.task_E == task, as_tuple=True)
        row, episode = SliceSampler(rows.select(mine), horizon, each, seed).draw()
        picked.append((row, mine[episode]))
    row, episode = (torch.cat(x) for x in zip(*picked, strict=True))
    drawn = rows.drawn(row, episode, horizon)  # one pass over the rows, which may be on the disk
    batch = rows.batch(drawn.sent(rows.device), horizon)
    # Copies, since views would keep all that was sent in one buffer.
    return Batch(*(part.clone(memory_format=torch.contiguous_format) for part in batch))


def _means_over(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure over those that have it."""
    found: dict[str, list[float]] = {}
    for measures in several:
        for name, value in measures.items():
            found.setdefault(name, []).append(value)
    return {name: fmean(values) for name, values in found.items()}


def crps(draws_M: Tensor, real: Tensor) -> Tensor:
    """The continuous ranked probability score of M draws ``[M, ...]``, for each entry of ``real``.

    ``mean_i |x_i - y| - Σ_{i,j} |x_i - x_j| / (2 M (M - 1))``: Gneiting & Raftery 2007
    (doi:10.1198/016214506000001437), equation 21, in the fair form of Ferro 2014
    (doi:10.1002/qj.2270), which is that of infinitely many draws on average. Of one draw, as of a
    deterministic model: the absolute error.
    """
    error, count = (draws_M - real).abs().mean(0), len(draws_M)
    if count == 1:
        return error
    # Sorted, the sum of all |x_i - x_j| is 2 Σ_i (2 i - M + 1) x_i, with i from 0.
    weight_M = 2 * torch.arange(count, device=draws_M.device) - count + 1
    spread = torch.einsum("m,m...->...", weight_M.to(draws_M), draws_M.sort(0).values)
    return error - spread / (count * (count - 1))


def _squared_error(draws_M: Tensor, real: Tensor) -> Tensor:
    """The squared error of the mean prediction, for each entry of ``real``; unbiased: the mean of M
    draws still has an M-th of their variance."""
    square, count = (draws_M.mean(0) - real).square(), len(draws_M)
    return square if count == 1 else square - draws_M.var(0) / count


def _root(x: Tensor) -> Tensor:
    """The square root, 0 of an unbiased estimate below 0."""
    return x.clamp(min=0.0).sqrt()


def _noise(seed: int, *shape: int) -> Tensor:
    """The same standard normals at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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
