"""Planning at test time in the learned world model: MPPI, warm-started by a policy.

Williams et al. 2015 (arXiv 1509.01149), as TD-MPC2 uses it (Hansen et al. 2024, arXiv 2310.16828).
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.schema import PlanningConfig, PolicyLearningConfig
from fmbpo.hookspecs import CONTINUE, State, Task
from fmbpo.pwm.acting import Actors, Memory, perceive
from fmbpo.pwm.critic import ensemble_values
from fmbpo.pwm.optim import Params
from fmbpo.pwm.pair import Pair, reward_decoder
from fmbpo.tasks.vector import Act

Tree = TypeVar("Tree")

_ROWS = 65_536
"""Largest number of candidates, of all states, imagined at once: a bound on the memory."""


class PlanNoise(NamedTuple):
    """Standard normals of one plan.

    ``policy_HPBN``: of P - 1 rollouts, since the first has no noise. ``model_IHBN``: I + 1 rows,
    for the policy's rollouts and for each iteration; all candidates of a row share them, so they
    differ only in their actions.
    """

    policy_HPBN: Tensor
    model_IHBN: Tensor
    sample_IHSBA: Tensor


class MPPI:
    """The plans of one cell, a pure function that ``torch.func.vmap`` maps over stacked cells.

    A sequence's score is ``Σ_{t<H} γ^t r̂_t + γ^H V(z_H)``, V the minimum over the critics.
    Departures from TD-MPC2:

    * V values z_H, not the mean of two Q-functions at the policy's action there;
    * the first action of the final mean is the decision, not an elite drawn by its weight;
    * the policy's sequences are added to the samples and do not replace some of them;
    * steps that the previous plan does not cover begin with the policy's deterministic actions,
      not 0;
    * a score that is not finite never wins (in TD-MPC2, it counts as 0). If no candidate of a row
      has a finite score, its plan is NaN, which the simulator rejects: better than a random action.
    """

    def __init__(
        self,
        pair: Pair,
        critic: nn.Module,
        planning: PlanningConfig,
        learning: PolicyLearningConfig,
        conventions: ConventionsConfig,
    ) -> None:
        """``learning`` and ``conventions``: those of the critics' training."""
        self.pair, self.critic = pair, critic
        self.planning, self.discount = planning, learning.discount
        self._decode = reward_decoder(pair.world_model, conventions)

    def noise(self, batch: int, width: int, generator: torch.Generator) -> PlanNoise:
        """Noise for one plan of ``batch`` rows and ``width`` action dimensions."""
        s, pair = self.planning, self.pair

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        return PlanNoise(
            normal(s.horizon, s.policy_samples - 1, batch, pair.policy.noise_dim),
            normal(s.iterations + 1, s.horizon, batch, pair.world_model.noise_dim),
            normal(s.iterations, s.horizon, s.samples, batch, width),
        )

    @torch.no_grad()
    def plan(
        self,
        policy: Params,
        critics: Params,
        model: Params,
        memory: Memory,
        obs_BO: Tensor,
        index_B: Tensor,
        mask_BA: Tensor,
        previous_HBA: Tensor,
        noise: PlanNoise,
    ) -> tuple[Tensor, Memory]:
        """The plan ``[H, B, A]`` from each observation; its first action is the decision. Also what
        the world model remembers after that.

        Args:
            policy, critics, model: parameters (critics stacked along C; empty ``model``: shared).
            memory: from the previous step; empty at the start of an episode.
            previous_HBA: the plan of the previous step; 0 rows at the start of an episode.
        """
        s = self.planning
        state, task = perceive(self.pair, model, memory, obs_BO, index_B, mask_BA)
        own_HPBA = self._policy_actions(policy, model, state, task, noise)
        shifted_HBA = previous_HBA[1:]
        mean_HBA = torch.cat([shifted_HBA, own_HPBA[len(shifted_HBA) :, 0]])
        std_HBA = torch.full_like(mean_HBA, s.max_std)
        for i in range(s.iterations):
            drawn = mean_HBA.unsqueeze(1) + std_HBA.unsqueeze(1) * noise.sample_IHSBA[i]
            actions_HNBA = torch.cat([drawn.clamp(-1.0, 1.0) * mask_BA, own_HPBA], 1)
            imagined_HBN = noise.model_IHBN[i + 1]
            params = policy, critics, model
            score_NB = self._scores(params, state, task, actions_HNBA, imagined_HBN)
            score_KB, best_KB = score_NB.topk(s.elites, 0)
            chosen = best_KB.unsqueeze(-1).expand(s.horizon, -1, -1, mask_BA.shape[-1])
            elites_HKBA = actions_HNBA.gather(1, chosen)
            weight_KB = (s.temperature * (score_KB - score_KB[0])).softmax(0)
            weight_KB1 = weight_KB.unsqueeze(-1)
            mean_HBA = (weight_KB1 * elites_HKBA).sum(1)
            variance_HBA = (weight_KB1 * (elites_HKBA - mean_HBA.unsqueeze(1)).square()).sum(1)
            std_HBA = variance_HBA.sqrt().clamp(s.min_std, s.max_std)
        plan_HBA = mean_HBA.clamp(-1.0, 1.0)  # by rounding, weights may sum to more than 1
        return plan_HBA, (state, plan_HBA[0]) if self.pair.remembers else ()

    def _policy_actions(
        self, policy: Params, model: Params, state: State, task: Task, noise: PlanNoise
    ) -> Tensor:
        """``[H, P, B, A]``: P closed loops of the policy in the model, the first deterministic."""
        drawn = noise.policy_HPBN
        noise_HPBN = torch.cat([drawn.new_zeros(len(drawn), 1, *drawn.shape[2:]), drawn], 1)
        horizon, count, rows, _ = noise_HPBN.shape
        state, task = _repeated((state, task), count)

        def choose(t: int) -> Tensor:
            z = self.pair.latent(model, state)
            action = self.pair.act(policy, z, task, noise_HPBN[t].flatten(0, 1))
            # If the model diverges, a NaN action must not become the samples' mean.
            return action.nan_to_num(0.0)

        actions = [choose(0)]
        for t in range(1, horizon):
            step_noise = _repeated(noise.model_IHBN[0, t - 1], count)
            state = self.pair.step(model, state, actions[-1], task, step_noise).state
            actions.append(choose(t))
        return torch.stack(actions).reshape(horizon, count, rows, -1)

    def _scores(
        self,
        params: tuple[Params, Params, Params],
        state: State,
        task: Task,
        actions_HNBA: Tensor,
        noise_HBN: Tensor,
    ) -> Tensor:
        """``[N, B]`` scores of N sequences per row, in one batch of N * B; -inf if not finite."""
        policy, critics, model = params
        horizon, count, rows, _ = actions_HNBA.shape
        state, task = _repeated((state, task), count)
        score = actions_HNBA.new_zeros(count * rows)
        goes_on: Tensor | float = 1.0
        for t, action in enumerate(actions_HNBA.flatten(1, 2)):
            step = self.pair.step(model, state, action, task, _repeated(noise_HBN[t], count))
            score = score + goes_on * (self.discount**t * self._decode(step.reward_BR))
            state, goes_on = step.state, goes_on * step.extras.get(CONTINUE, 1.0)
        given = [self.pair.latent(model, state)]
        if self.pair.takes_actions:
            still = given[0].new_zeros(len(score), self.pair.policy.noise_dim)
            given.append(self.pair.act(policy, given[0], task, still))
        value = ensemble_values(self.critic, critics, *given).amin(0)
        score = score + goes_on * (self.discount**horizon * value)
        return torch.where(score.isfinite(), score, -torch.inf).reshape(count, rows)


def mppi_act(mppi: MPPI, actors: Actors, critics: Params, seed: int) -> Act:
    """The planned actions of T stacked cells, as an ``Act`` for ``EpisodeRunner.run``.

    ``critics``: parameters stacked along T, then C. Step 0 discards the plans and restarts the
    noise from ``seed``. All cells get the same noise, as they get the same initial states: their
    returns can be paired, and a cell's actions do not depend on the other cells.
    """
    generator = torch.Generator()
    mask_TA, device = actors.mask_TA, actors.index_T.device
    plans_THEA = torch.empty(0)
    memory: Memory = ()
    candidates = mppi.planning.samples + mppi.planning.policy_samples

    def act(obs_TEO: NDArray[np.float32], step: int) -> NDArray[np.float32]:
        nonlocal plans_THEA, memory
        cells, episodes = obs_TEO.shape[:2]
        if step == 0:
            generator.manual_seed(seed)
            plans_THEA, memory = mask_TA.new_empty(cells, 0, episodes, mask_TA.shape[1]), ()
        drawn = mppi.noise(episodes, mask_TA.shape[1], generator)
        noise = PlanNoise(*(x.to(device) for x in drawn))
        obs = torch.from_numpy(obs_TEO).to(device)
        at_once = max(1, _ROWS // (candidates * episodes))
        plan = vmap(mppi.plan, in_dims=(*[0] * 8, None), chunk_size=at_once)
        params, seen = (actors.policy, critics, actors.model), (obs, *actors.rows(episodes))
        plans_THEA, memory = plan(*params, memory, *seen, plans_THEA, noise)
        actions: NDArray[np.float32] = plans_THEA[:, 0].cpu().numpy()
        return actions

    return act


def _repeated(tree: Tree, count: int) -> Tree:
    """Tensors ``[B, ...]`` -> ``[count * B, ...]``, the whole batch ``count`` times."""
    repeated: Tree = tree_map(lambda x: x.expand(count, *x.shape).flatten(0, 1), tree)
    return repeated
