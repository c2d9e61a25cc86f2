"""The reality check: what policies imagined, what the simulator gave, and how models disagree.

In the deterministic final episodes, for each policy in its own world model::

    episode   Σ_{t<H} γ^t r̂_t + γ^H V(z_H)  minus  Σ_t γ^t r_t to the end, from the initial states
    horizon   Σ_{t<H} γ^t r̂_t  minus  Σ_{t<H} γ^t r_t, from states spread over the episodes

The first is what the policy maximises, critic included; the second leaves the critic out. Real
episodes end and imagined returns do not: with 500 steps and γ = 0.99, γ^500, 0.7 %, is left out.

Disagreement: each replicate's world model predicts Σ_{t<H} γ^t r̂_t from the same state, with the
actions that the policy imagined in its own model; the standard deviation over the models. A world
model with noise is asked ``DRAWS`` times with the same noise for all; the means count.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap

from fmbpo.hookspecs import CONTINUE, WorldModel
from fmbpo.nn.returns import weights
from fmbpo.pwm.optim import Params
from fmbpo.pwm.pair import Pair
from fmbpo.pwm.policy import PolicyUpdate
from fmbpo.pwm.start import Start
from fmbpo.runs.summary import Gap, RealityCheck

DRAWS = 4
"""Draws of a world model's noise, if it has any."""


@attrs.frozen(eq=False)
class Visited:
    """Final episodes of T policies: the reward ``[T, E, S]`` of every step, NaN after the episode's
    end, and the observations ``[T, E, O]`` at some steps, the first of which is 0."""

    reward_TES: NDArray[np.float64]
    obs_TEO: Mapping[int, NDArray[np.float32]]

    def starts(self, horizon: int) -> list[int]:
        """The steps with observations that ``horizon`` further steps follow."""
        return [step for step in self.obs_TEO if step + horizon <= self.reward_TES.shape[2]]

    def obs(self, steps: list[int]) -> Tensor:
        """``[T, K * E, O]`` observations at these K steps."""
        return torch.from_numpy(np.concatenate([self.obs_TEO[step] for step in steps], 1))

    def ahead(self, steps: list[int], horizon: int, discount: float) -> NDArray[np.float64]:
        """``[T, K * E]`` discounted real rewards of ``horizon`` steps from these K steps, or of
        those to the episode's end."""
        weight, reward_TES = discount ** np.arange(horizon), np.nan_to_num(self.reward_TES)
        found = [reward_TES[:, :, step : step + horizon] @ weight for step in steps]
        return np.concatenate(found, 1)

    def followed(self, steps: list[int], horizon: int) -> NDArray[np.bool_]:
        """``[T, K * E]`` whether the episode has ``horizon`` further steps from these K steps."""
        last = [self.reward_TES[:, :, step + horizon - 1] for step in steps]
        return ~np.isnan(np.concatenate(last, 1))


@attrs.frozen(eq=False)
class Imagination:
    """One policy: N starts, its actions ``[draws, H, N, A]`` from there in its own world model (on
    the CPU), and discounted returns, imagined and real: over the horizon and, from the E initial
    states, of the whole episode. N is 0 if episodes are shorter than the horizon."""

    index: int
    mask_A: Tensor
    obs_NO: Tensor
    action_KHNA: Tensor
    horizon: tuple[NDArray[np.float64], NDArray[np.float64]]
    episode: tuple[NDArray[np.float64], NDArray[np.float64]]


@torch.no_grad()
def imagine(
    update: PolicyUpdate,
    params: tuple[Params, Params, Params],
    tasks: tuple[Tensor, Tensor],
    visited: Visited,
    seed: int,
) -> list[Imagination]:
    """What T stacked policies imagine from the states that they visited, without their noise.

    ``params``: of policies, critics and their own world models; ``tasks``: ``index_T, mask_TA``;
    ``seed``: of the world models' noise.
    """
    policy, critics, models = params
    index_T, mask_TA = tasks
    horizon, discount = update.learning.horizon, update.learning.discount
    steps = visited.starts(horizon)
    # The initial states first, also if the episodes are shorter than the horizon.
    obs_TNO = visited.obs(steps or [0])
    cells, count, _ = obs_TNO.shape
    episodes = visited.reward_TES.shape[1]
    drawn = model_noise(update.pair.world_model, horizon, count, seed)
    size = 4 * update.learning.batch  # without gradients: less memory than an update
    actions, returns, ahead = [], [], []  # of each draw

    def one(
        policy: Params, critics: Params, model: Params, start: Start
    ) -> tuple[Tensor, Tensor, Tensor]:
        imagined, _ = update.imagine(policy, critics, start, model)
        rewards = (imagined.weight_HB * imagined.reward_HB).sum(0)
        return imagined.rollout.action_HBA, imagined.return_B, rewards

    for noise_HNM in drawn:
        parts = []
        for first in range(0, count, size):
            rows = slice(first, first + size)
            obs = obs_TNO[:, rows].to(index_T.device)
            number = obs.shape[1]
            policy_rows = horizon + update.pair.takes_actions
            still = torch.zeros(
                cells, policy_rows, number, update.pair.policy.noise_dim, device=obs.device
            )
            model_noise_THNM = noise_HNM[:, rows].to(obs.device).expand(cells, -1, -1, -1)
            index = index_T.unsqueeze(1).expand(-1, number)
            mask = mask_TA.unsqueeze(1).expand(-1, number, -1)
            done = torch.ones(cells, device=obs.device)
            start = Start(obs, index, mask, still, model_noise_THNM, done)
            parts.append(vmap(one)(policy, critics, models, start))
        action_THNA, return_TN, ahead_TN = (
            torch.cat([part[i].cpu() for part in parts], dim) for i, dim in enumerate((2, 1, 1))
        )
        actions.append(action_THNA)
        returns.append(return_TN.double())
        ahead.append(ahead_TN.double())
    action_TKHNA = torch.stack(actions, 1)
    mean_TN, ahead_mean_TN = (torch.stack(x).mean(0).numpy() for x in (returns, ahead))
    real_TE = visited.ahead([0], visited.reward_TES.shape[2], discount)
    real_TN, kept_TN = np.zeros((cells, count)), np.zeros((cells, count), bool)
    if steps:
        real_TN = visited.ahead(steps, horizon, discount)
        kept_TN = visited.followed(steps, horizon)
    return [
        Imagination(
            int(index_T[t]),
            mask_TA[t].cpu(),
            obs_TNO[t, kept],
            action_TKHNA[t, :, :, kept],
            (ahead_mean_TN[t, kept], real_TN[t, kept]),
            (mean_TN[t, :episodes], real_TE[t]),
        )
        for t, kept in enumerate(kept_TN)
    ]


@torch.no_grad()
def predict(
    update: PolicyUpdate, pair: Pair, model: Params, cell: Imagination, seed: int
) -> NDArray[np.float64]:
    """``[N]``: Σ γ^t r̂_t that a world model predicts from the starts with the imagined actions.

    ``update`` gives discount and the rewards' decoding. ``pair``, ``model``: the world
    model's module, and its parameters if they are not the module's own.
    """
    device = next(iter(pair.world_model.parameters())).device
    obs = cell.obs_NO.to(device)
    index = torch.full((len(obs),), cell.index, device=device)
    mask = cell.mask_A.to(device).expand(len(obs), -1)
    horizon = cell.action_KHNA.shape[1]
    found = []
    drawn = model_noise(pair.world_model, horizon, len(obs), seed)
    for action_HNA, noise_HNM in zip(cell.action_KHNA, drawn, strict=True):
        state, task = pair.begin(model, obs, index, mask)
        steps = []
        for action, noise in zip(action_HNA.to(device), noise_HNM.to(device), strict=True):
            steps.append(pair.step(model, state, action, task, noise))
            state = steps[-1].state
        reward_HN = update.decode(torch.stack([step.reward_BR for step in steps]))
        ends = CONTINUE in steps[0].extras
        continue_HN = torch.stack([step.extras[CONTINUE] for step in steps]) if ends else None
        weight_HN = weights(update.learning.discount, reward_HN, continue_HN)
        found.append((weight_HN * reward_HN).sum(0).double())
    result: NDArray[np.float64] = torch.stack(found).mean(0).cpu().numpy()
    return result


def model_noise(model: WorldModel, horizon: int, count: int, seed: int) -> Tensor:
    """``[draws, H, N, noise_dim]``; one draw for a world model without noise."""
    generator = torch.Generator().manual_seed(seed)
    draws = DRAWS if model.noise_dim else 1
    return torch.randn(draws, horizon, count, model.noise_dim, generator=generator)


def check(cell: Imagination, predictions: list[NDArray[np.float64]]) -> RealityCheck | None:
    """The numbers of one policy; None if something imagined is not finite.

    ``predictions``: of each replicate's world model; with fewer than two there is no disagreement.
    """
    if not all(np.isfinite(x).all() for x in (*cell.episode, *cell.horizon, *predictions)):
        return None
    spread = correlation = None
    if len(predictions) > 1 and len(cell.obs_NO):
        spread_N = np.std(predictions, axis=0, ddof=1)
        spread = float(np.sqrt(np.square(spread_N).mean()))
        correlation = rank_correlation(spread_N, np.abs(np.subtract(*cell.horizon)))
    ahead = _gap(*cell.horizon) if len(cell.obs_NO) else None
    return RealityCheck(_gap(*cell.episode), ahead, spread, correlation)


def _gap(imagined: NDArray[np.float64], real: NDArray[np.float64]) -> Gap:
    rms = float(np.sqrt(np.square(imagined - real).mean()))
    return Gap(float(imagined.mean()), float(real.mean()), rms, len(real))


def rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Spearman's rank correlation; None if one of them is constant."""
    from scipy.stats import spearmanr  # not for every start: it takes half a second to load

    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)
