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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

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
from fmbpo.pwm.start import Past, Start
from fmbpo.runs.summary import Gap, RealityCheck

DRAWS = 4
"""Draws of a world model's noise, if it has any."""


@attrs.frozen(eq=False)
class Visited:
    """Final episodes of T policies: the reward ``[T, E, S]`` of every step, NaN after the episode's
    end, and the real steps ``[T, W + 1, E, O]`` up to some steps, the first of which is 0."""

    reward_TES: NDArray[np.float64]
    pasts: Mapping[int, Past]

    def starts(self, horizon: int) -> list[int]:
        """The steps to imagine from that ``horizon`` further steps follow."""
        return [step for step in self.pasts if step + horizon <= self.reward_TES.shape[2]]

    def up_to(self, steps: Iterable[int]) -> list[Past]:
        """The real steps ``[T, W + 1, K * E, O]`` up to these K steps, in a part for each W."""
        each = groupby((self.pasts[step] for step in steps), lambda past: past.action_HBA.shape[1])
        return [Past(*(torch.cat(x, 2) for x in zip(*parts, strict=True))) for _, parts in each]

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
    """One policy: the real steps ``[W + 1, N, O]`` up to its starts, in parts with N rows in all;
    its actions ``[draws, H, N, A]`` from there in its own world model (on the CPU), and discounted
    returns, imagined and real: over the horizon and, from the E initial states, of the whole
    episode. N is 0 if episodes are shorter than the horizon."""

    index: int
    mask_A: Tensor
    pasts: list[Past]
    action_KHNA: Tensor
    horizon: tuple[NDArray[np.float64], NDArray[np.float64]]
    episode: tuple[NDArray[np.float64], NDArray[np.float64]]

    @property
    def count(self) -> int:
        """N."""
        return self.action_KHNA.shape[2]


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
    index_T, mask_TA = tasks
    horizon, discount = update.learning.horizon, update.learning.discount
    steps = visited.starts(horizon)
    # The initial states first, also if the episodes are shorter than the horizon.
    pasts = visited.up_to(steps or [0])
    cells, episodes, _ = visited.reward_TES.shape
    sizes = [past.obs_HBO.shape[2] for past in pasts]
    count = sum(sizes)
    actions, returns, ahead = [], [], []  # of each draw
    for noise_HNM in model_noise(update.pair.world_model, horizon, count, seed):
        noises = torch.split(noise_HNM, sizes, 1)
        both = zip(pasts, noises, strict=True)
        parts = [part for some in both for part in _imagined(update, params, tasks, *some)]
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
            _of_policy(pasts, t, torch.split(torch.from_numpy(kept), sizes)),
            action_TKHNA[t, :, :, kept],
            (ahead_mean_TN[t, kept], real_TN[t, kept]),
            (mean_TN[t, :episodes], real_TE[t]),
        )
        for t, kept in enumerate(kept_TN)
    ]


def _of_policy(pasts: list[Past], t: int, kept: Sequence[Tensor]) -> list[Past]:
    """The chosen starts of one policy."""
    both = zip(pasts, kept, strict=True)
    return [Past(*(x[t][:, rows] for x in past)) for past, rows in both]


def _imagined(
    update: PolicyUpdate,
    params: tuple[Params, Params, Params],
    tasks: tuple[Tensor, Tensor],
    past: Past,
    noise_HNM: Tensor,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Actions ``[T, H, N, A]``, and returns and discounted rewards ``[T, N]``, of parts of the
    starts ``[T, W + 1, N, O]``."""
    index_T, mask_TA = tasks
    (cells, _, count, _), device = past.obs_HBO.shape, index_T.device
    size = 4 * update.learning.batch  # without gradients: less memory than an update

    def one(
        policy: Params, critics: Params, model: Params, past: Past, start: Start
    ) -> tuple[Tensor, Tensor, Tensor]:
        begun = update.pair.behind(model, past, start.index_B, start.mask_BA)
        imagined, _ = update.imagine_from(*begun, None, policy, critics, start, model)
        rewards = (imagined.weight_HB * imagined.reward_HB).sum(0)
        return imagined.rollout.action_HBA, imagined.return_B, rewards

    for first in range(0, count, size):
        rows = slice(first, first + size)
        some = Past(*(x[:, :, rows].to(device) for x in past))
        number = some.obs_HBO.shape[2]
        policy_rows = len(noise_HNM) + update.pair.takes_actions
        still = torch.zeros(cells, policy_rows, number, update.pair.policy.noise_dim, device=device)
        noise_THNM = noise_HNM[:, rows].to(device).expand(cells, -1, -1, -1)
        index = index_T.unsqueeze(1).expand(-1, number)
        mask = mask_TA.unsqueeze(1).expand(-1, number, -1)
        done = torch.ones(cells, device=device)
        start = Start(some.obs_HBO[:, -1], index, mask, still, noise_THNM, done)
        yield vmap(one)(*params, some, start)


@torch.no_grad()
def predict(
    update: PolicyUpdate, pair: Pair, model: Params, cell: Imagination, seed: int
) -> NDArray[np.float64]:
    """``[N]``: Σ γ^t r̂_t that a world model predicts from the starts with the imagined actions.

    ``update`` gives discount and the rewards' decoding. ``pair``, ``model``: the world
    model's module, and its parameters if they are not the module's own.
    """
    horizon, sizes = cell.action_KHNA.shape[1], [past.obs_HBO.shape[1] for past in cell.pasts]
    found = []
    drawn = model_noise(pair.world_model, horizon, cell.count, seed)
    for action_HNA, noise_HNM in zip(cell.action_KHNA, drawn, strict=True):
        split = (torch.split(x, sizes, 1) for x in (action_HNA, noise_HNM))
        each = zip(cell.pasts, *split, strict=True)
        parts = [_predicted(update, pair, model, (cell.index, cell.mask_A), *some) for some in each]
        found.append(torch.cat(parts))
    result: NDArray[np.float64] = torch.stack(found).mean(0).cpu().numpy()
    return result


def _predicted(
    update: PolicyUpdate,
    pair: Pair,
    model: Params,
    task: tuple[int, Tensor],
    past: Past,
    action_HNA: Tensor,
    noise_HNM: Tensor,
) -> Tensor:
    """``[N]``: Σ γ^t r̂_t from the starts ``[W + 1, N, O]``, with actions and noise."""
    device, count = next(iter(pair.world_model.parameters())).device, past.obs_HBO.shape[1]
    index = torch.full((count,), task[0], device=device)
    mask = task[1].to(device).expand(count, -1)
    state, whole = pair.behind(model, Past(*(x.to(device) for x in past)), index, mask)
    steps = []
    for action, noise in zip(action_HNA.to(device), noise_HNM.to(device), strict=True):
        steps.append(pair.step(model, state, action, whole, noise))
        state = steps[-1].state
    reward_HN = update.decode(torch.stack([step.reward_BR for step in steps]))
    ends = CONTINUE in steps[0].extras
    continue_HN = torch.stack([step.extras[CONTINUE] for step in steps]) if ends else None
    weight_HN = weights(update.learning.discount, reward_HN, continue_HN)
    return (weight_HN * reward_HN).sum(0).double()


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
    if len(predictions) > 1 and cell.count:
        spread_N = np.std(predictions, axis=0, ddof=1)
        spread = float(np.sqrt(np.square(spread_N).mean()))
        correlation = rank_correlation(spread_N, np.abs(np.subtract(*cell.horizon)))
    ahead = _gap(*cell.horizon) if cell.count else None
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
