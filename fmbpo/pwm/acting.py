"""Trained policies that act: T of them stacked, each in its own task."""

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
    """T policies behind the encoders of their world models; parameters are stacked along T.

    An empty ``model`` stands for the module's own parameters, which all of them share.
    """

    pair: Pair
    policy: Params
    model: Params
    index_T: Tensor
    mask_TA: Tensor

    @torch.no_grad()
    def act(self, obs_TEO: NDArray[np.float32], _step: int = 0) -> NDArray[np.float32]:
        """Deterministic actions ``[T, E, A]`` for observations of E episodes each (an ``Act`` of
        ``fmbpo.tasks.vector``)."""
        obs = torch.from_numpy(obs_TEO).to(self.index_T.device)
        action = vmap(self._one)(self.policy, self.model, obs, self.index_T, self.mask_TA)
        result: NDArray[np.float32] = action.cpu().numpy()
        return result

    def _one(
        self, policy: Params, model: Params, obs_EO: Tensor, index: Tensor, mask_A: Tensor
    ) -> Tensor:
        rows = len(obs_EO)
        z, task = self.pair.begin(model, obs_EO, index.expand(rows), mask_A.expand(rows, -1))
        return self.pair.act(policy, z, task, obs_EO.new_zeros(rows, self.pair.policy.noise_dim))
