"""Trained policies as actors: T of them stacked, each in its own task."""

from __future__ import annotations

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap

from fmbpo.pwm.optim import Params
from fmbpo.pwm.pair import Pair


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

    @torch.no_grad()
    def act(self, obs_TEO: NDArray[np.float32], _step: int = 0) -> NDArray[np.float32]:
        """Deterministic actions ``[T, E, A]``: an ``Act`` of ``fmbpo.tasks.vector``."""
        obs = torch.from_numpy(obs_TEO).to(self.index_T.device)
        action = vmap(self._one)(self.policy, self.model, obs, *self.rows(obs_TEO.shape[1]))
        result: NDArray[np.float32] = action.cpu().numpy()
        return result

    def rows(self, count: int) -> tuple[Tensor, Tensor]:
        """Indices ``[T, E]`` and masks ``[T, E, A]``, for E = ``count`` episodes of each policy."""
        index, mask = self.index_T.unsqueeze(1), self.mask_TA.unsqueeze(1)
        return index.expand(-1, count), mask.expand(-1, count, -1)

    def _one(
        self, policy: Params, model: Params, obs_EO: Tensor, index_E: Tensor, mask_EA: Tensor
    ) -> Tensor:
        z, task = self.pair.begin(model, obs_EO, index_E, mask_EA)
        return self.pair.act(policy, z, task, z.new_zeros(len(z), self.pair.policy.noise_dim))
