"""Rollouts as repeated prediction, for the ``rollout`` hooks of most plugins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from fmbpo.hookspecs import AnswerAction, ChooseAction, Prediction, Rollout

Step: TypeAlias = Callable[[Tensor, Tensor, Tensor], Prediction]
"""``(z_BD, action_BA, noise_BN) -> Prediction``."""

Act: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``(z_BD, noise_BN) -> action_BA``."""


def model_rollout(step: Step, z: Tensor, partner: ChooseAction, noise: Tensor) -> Rollout:
    """A world model's rollout: ``partner(t, z)`` chooses, ``step`` answers; H = len(noise)."""
    return _unroll(z, partner, lambda t, z, a: step(z, a, noise[t]), len(noise))


def policy_rollout(
    act: Act, z: Tensor, partner: AnswerAction, noise: Tensor, *, detach: bool = True
) -> Rollout:
    """A policy's rollout: ``act`` sees latents (detached if ``detach``), ``partner`` answers."""

    def choose(t: int, z: Tensor) -> Tensor:
        return act(z.detach() if detach else z, noise[t])

    return _unroll(z, choose, partner, len(noise))


def _unroll(z: Tensor, choose: ChooseAction, answer: AnswerAction, horizon: int) -> Rollout:
    latents, actions, logits = [z], [], []
    for t in range(horizon):
        action = choose(t, latents[-1])
        prediction = answer(t, latents[-1], action)
        actions.append(action)
        latents.append(prediction.z_BD)
        logits.append(prediction.reward_logits_BR)
    return Rollout(torch.stack(latents), torch.stack(actions), torch.stack(logits))
