"""Trained policies as actors: T of them stacked, each in its own task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap

from fmbpo.data.sending import send
from fmbpo.hookspecs import State, Task
from fmbpo.pwm.optim import Params
from fmbpo.pwm.pair import Pair
from fmbpo.pwm.start import Past
from fmbpo.tasks.vector import Act

Memory: TypeAlias = tuple[State, Tensor] | tuple[()]
"""A world model's state at the last observation, and the action there; empty at the start of an
episode, and for a model that does not remember."""

Forward: TypeAlias = Callable[
    [Params, Params, Memory, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Memory]
]

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

    def deterministic(self) -> Act:
        """An ``Act`` of ``fmbpo.tasks.vector`` without noise; step 0 begins episodes."""
        return self._acting(lambda obs, _: torch.zeros(obs.shape[1], self.pair.policy.noise_dim))

    def stochastic(self, seed: int) -> Act:
        """An ``Act`` with drawn noise.

        Step 0 restarts the noise from ``seed``. All T policies get the same noise, as they get the
        same initial states: their returns can be paired, and do not depend on each other.
        """
        generator = torch.Generator()

        def drawn(obs_TEO: NDArray[np.float32], step: int) -> Tensor:
            if step == 0:
                generator.manual_seed(seed)
            return self._drawn(obs_TEO.shape[1], generator)

        return self._acting(drawn)

    def action_noise(self, pasts: Sequence[Past], real_TA: Tensor, seed: int) -> Tensor:
        """``[T]`` standard deviations of the actions over ``DRAWS`` draws of the policy's noise:
        root mean squares over the states behind real steps ``[T, W + 1, B, O]`` and the task's
        action dimensions, in which ``real_TA`` is 1, else 0."""
        generator = torch.Generator().manual_seed(seed)
        each = [self._behind(past) for past in pasts]
        sizes = [obs_TBO.shape[1] for _, obs_TBO in each]
        actions = []
        for _ in range(DRAWS):
            noises = torch.split(self._drawn(sum(sizes), generator), sizes)
            found = [self._step(*at, noise)[0] for at, noise in zip(each, noises, strict=True)]
            actions.append(torch.cat(found, 1))
        variance_TA = torch.stack(actions).var(0).mean(1)
        return ((variance_TA * real_TA).sum(1) / real_TA.sum(1)).sqrt()

    def rows(self, count: int) -> tuple[Tensor, Tensor]:
        """Indices ``[T, E]`` and masks ``[T, E, A]``, for E = ``count`` episodes of each policy."""
        index, mask = self.index_T.unsqueeze(1), self.mask_TA.unsqueeze(1)
        return index.expand(-1, count), mask.expand(-1, count, -1)

    def _drawn(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.pair.policy.noise_dim, generator=generator)

    def _behind(self, past: Past) -> tuple[Memory, Tensor]:
        """What the world model remembers before the last of these observations, and that one."""
        memory: Memory = ()
        obs_WTBO, action_WTBA = (x.to(self.index_T.device).transpose(0, 1) for x in past)
        still = torch.zeros(obs_WTBO.shape[2], self.pair.policy.noise_dim)
        for obs_TBO, action_TBA in zip(obs_WTBO, action_WTBA, strict=False):
            memory = self._step(memory, obs_TBO, still)[1]
            memory = (memory[0], action_TBA) if memory else ()
        return memory, obs_WTBO[-1]

    def _acting(self, noise: Callable[[NDArray[np.float32], int], Tensor]) -> Act:
        """An ``Act`` with this noise ``[E, N]``, which keeps what the world model remembers."""
        memory: Memory = ()

        def act(obs_TEO: NDArray[np.float32], step: int) -> NDArray[np.float32]:
            nonlocal memory
            given = [torch.from_numpy(obs_TEO), noise(obs_TEO, step)]
            action, memory = self._step(memory if step else (), *send(given, self.index_T.device))
            result: NDArray[np.float32] = action.cpu().numpy()
            return result

        return act

    @torch.no_grad()
    def _step(self, memory: Memory, obs_TEO: Tensor, noise_EN: Tensor) -> tuple[Tensor, Memory]:
        """``[T, E, A]``; all policies get the same noise."""
        rows, noise = self.rows(obs_TEO.shape[1]), noise_EN.to(obs_TEO.device)
        return self.forward(self.policy, self.model, memory, obs_TEO, *rows, noise)


def acting(pair: Pair) -> Forward:
    """``(policy, model, memory, obs_TEO, index_TE, mask_TEA, noise_EN) -> action_TEA, memory``, a
    pure function; all policies get the same noise."""

    def one(
        policy: Params,
        model: Params,
        memory: Memory,
        obs: Tensor,
        index: Tensor,
        mask: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Memory]:
        state, task = perceive(pair, model, memory, obs, index, mask)
        action = pair.act(policy, pair.latent(model, state), task, noise)
        return action, (state, action) if pair.remembers else ()

    return vmap(one, in_dims=(0, 0, 0, 0, 0, 0, None))


def perceive(
    pair: Pair, model: Params, memory: Memory, obs: Tensor, index: Tensor, mask: Tensor
) -> tuple[State, Task]:
    """The states at observations ``[B, O]``, and the rows' task."""
    if not memory:
        return pair.begin(model, obs, index, mask)
    task = pair.task(model, index, mask)
    return pair.observe(model, *memory, obs, task), task
