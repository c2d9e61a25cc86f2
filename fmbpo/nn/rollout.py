"""Rollouts as repeated prediction, for the ``rollout`` hooks of most plugins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from fmbpo.hookspecs import AnswerAction, ChooseAction, Extras, Prediction, Rollout, State

Step: TypeAlias = Callable[[State, Tensor, Tensor], Prediction]
"""``(state, action_BA, noise_BN) -> Prediction``."""

Act: TypeAlias = Callable[[Tensor, Tensor], Tensor | tuple[Tensor, Extras]]
"""``(z_BD, noise_BN) -> action_BA``, alone or with the policy's quantities of the step."""


def model_rollout(
    step: Step,
    state: State,
    partner: ChooseAction,
    noise: Tensor,
    latent: Callable[[State], Tensor] | None = None,
) -> Rollout:
    """A world model's rollout: ``partner(t, z)`` chooses, ``step`` answers; H = len(noise).

    ``latent``: that of a state, for a model that remembers.
    """
    states = [state]

    def seen(state: State) -> Tensor:
        z: Tensor = latent(state) if latent else state
        return z

    def answer(t: int, _: Tensor, action: Tensor) -> Prediction:
        predicted = step(states[-1], action, noise[t])
        states.append(predicted.state)
        return predicted._replace(state=seen(predicted.state))

    return _unroll(seen(state), partner, answer, len(noise))


def policy_rollout(
    act: Act, z: Tensor, partner: AnswerAction, noise: Tensor, *, detach: bool = True
) -> Rollout:
    """A policy's rollout: ``act`` sees latents (detached if ``detach``), ``partner`` answers."""

    def choose(t: int, z: Tensor) -> Tensor | tuple[Tensor, Extras]:
        return act(z.detach() if detach else z, noise[t])

    return _unroll(z, choose, partner, len(noise))


def _unroll(
    z: Tensor,
    choose: Callable[[int, Tensor], Tensor | tuple[Tensor, Extras]],
    answer: AnswerAction,
    horizon: int,
) -> Rollout:
    latents, actions, rewards, extras = [z], [], [], []
    for t in range(horizon):
        chosen = choose(t, latents[-1])
        action, own = (chosen, {}) if isinstance(chosen, Tensor) else chosen
        prediction = answer(t, latents[-1], action)
        actions.append(action)
        latents.append(prediction.state)
        rewards.append(prediction.reward_BR)
        extras.append({**own, **prediction.extras})
    return Rollout(
        torch.stack(latents), torch.stack(actions), torch.stack(rewards), _stacked(extras)
    )


def _stacked(extras: Sequence[Extras]) -> Extras:
    return {name: torch.stack([step[name] for step in extras]) for name in extras[0]}
