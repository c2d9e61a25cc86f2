"""Trained policies as actors: T of them stacked, each in its own task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap

from fmbpo.pwm.optim import Params
from fmbpo.pwm.pair import Pair
from fmbpo.tasks.vector import Act

Forward: TypeAlias = Callable[[Params, Params, Tensor, Tensor, Tensor, Tensor], Tensor]

DRAWS = 16
"""Draws of noise per observation, for the actions' standard deviation."""


@attrs.frozen(eq=False)
class Actors:
    """T policies on the latents of their world models; parameters are stacked along T.

    If ``model`` is empty, all policies share the module's parameters.
    """

    pair: Pair
    policy: Params
    model: Params
    index_T: Tensor
    mask_TA: Tensor
    forward: Forward = attrs.field(
        default=attrs.Factory(lambda self: acting(self.pair), takes_self=True)
    )
    """``acting`` of the pair, perhaps replayed."""

    def act(self, obs_TEO: NDArray[np.float32], _step: int = 0) -> NDArray[np.float32]:
        """Deterministic actions ``[T, E, A]``: an ``Act`` of ``fmbpo.tasks.vector``."""
        return self._act(obs_TEO, torch.zeros(obs_TEO.shape[1], self.pair.policy.noise_dim))

    def stochastic(self, seed: int) -> Act:
        """An ``Act`` with drawn noise.

        Step 0 restarts the noise from ``seed``. All T policies get the same noise, as they get the
        same initial states: their returns can be paired, and do not depend on each other.
        """
        generator = torch.Generator()

        def act(obs_TEO: NDArray[np.float32], step: int) -> NDArray[np.float32]:
            if step == 0:
                generator.manual_seed(seed)
            return self._act(obs_TEO, self._drawn(obs_TEO.shape[1], generator))

        return act

    def action_noise(self, obs_TBO: Tensor, real_TA: Tensor, seed: int) -> Tensor:
        """``[T]`` standard deviations of the actions over ``DRAWS`` draws of the policy's noise:
        root mean squares over the observations and the task's action dimensions, in which
        ``real_TA`` is 1, else 0."""
        generator = torch.Generator().manual_seed(seed)
        drawn = (self._drawn(obs_TBO.shape[1], generator) for _ in range(DRAWS))
        action_STBA = torch.stack([self._actions(obs_TBO, noise) for noise in drawn])
        variance_TA = action_STBA.var(0).mean(1)
        return ((variance_TA * real_TA).sum(1) / real_TA.sum(1)).sqrt()

    def rows(self, count: int) -> tuple[Tensor, Tensor]:
        """Indices ``[T, E]`` and masks ``[T, E, A]``, for E = ``count`` episodes of each policy."""
        index, mask = self.index_T.unsqueeze(1), self.mask_TA.unsqueeze(1)
        return index.expand(-1, count), mask.expand(-1, count, -1)

    def _drawn(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.pair.policy.noise_dim, generator=generator)

    def _act(self, obs_TEO: NDArray[np.float32], noise_EN: Tensor) -> NDArray[np.float32]:
        obs = torch.from_numpy(obs_TEO).to(self.index_T.device)
        result: NDArray[np.float32] = self._actions(obs, noise_EN).cpu().numpy()
        return result

    @torch.no_grad()
    def _actions(self, obs_TEO: Tensor, noise_EN: Tensor) -> Tensor:
        """``[T, E, A]``; all policies get the same noise."""
        rows, noise = self.rows(obs_TEO.shape[1]), noise_EN.to(obs_TEO.device)
        return self.forward(self.policy, self.model, obs_TEO, *rows, noise)


def acting(pair: Pair) -> Forward:
    """``(policy, model, obs_TEO, index_TE, mask_TEA, noise_EN) -> action_TEA``, a pure function;
    all policies get the same noise."""

    def one(
        policy: Params, model: Params, obs: Tensor, index: Tensor, mask: Tensor, noise: Tensor
    ) -> Tensor:
        z, task = pair.begin(model, obs, index, mask)
        return pair.act(policy, z, task, noise)

    return vmap(one, in_dims=(0, 0, 0, 0, 0, None))
