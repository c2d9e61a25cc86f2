"""The states of a world model, with or without memory, along real observations."""

from __future__ import annotations

import torch
from torch import Tensor

from fmbpo.hookspecs import Encodes, State, Task, WorldModel
from fmbpo.protocols import Remembers


def begin(model: WorldModel, obs: Tensor, task: Task) -> State:
    """The state at the first observation ``[B, O]``."""
    if isinstance(model, Remembers):
        return model.begin(obs, task)
    assert isinstance(model, Encodes)
    return model.encode(obs, task.embedding_BE)


def observe(model: WorldModel, state: State, action: Tensor, obs: Tensor, task: Task) -> State:
    """The state after ``action_BA`` led from ``state`` to the observation ``[B, O]``."""
    if isinstance(model, Remembers):
        return model.observe(state, action, obs, task)
    return begin(model, obs, task)


def latent(model: WorldModel, state: State) -> Tensor:
    """The latent ``[B, D]`` of a state."""
    z: Tensor = model.latent(state) if isinstance(model, Remembers) else state
    return z


def behind(model: WorldModel, obs: Tensor, action: Tensor, task: Task) -> State:
    """The state at the last of the real observations ``[H + 1, B, O]``."""
    if not isinstance(model, Remembers):
        return begin(model, obs[-1], task)
    return along(model, obs, action, task)[-1]


def along(model: WorldModel, obs: Tensor, action: Tensor, task: Task) -> list[State]:
    """The states at each of the real observations ``[H + 1, B, O]``, with ``[H, B, A]`` between."""
    if not isinstance(model, Remembers):
        return list(begin(model, obs, task))
    states = [model.begin(obs[0], task)]
    for t, taken in enumerate(action):
        states.append(model.observe(states[-1], taken, obs[t + 1], task))
    return states


def latents(model: WorldModel, obs: Tensor, action: Tensor, task: Task) -> Tensor:
    """``[H + 1, B, D]`` along real observations ``[H + 1, B, O]`` and actions ``[H, B, A]``."""
    if not isinstance(model, Remembers):
        z: Tensor = begin(model, obs, task)
        return z
    return torch.stack([model.latent(state) for state in along(model, obs, action, task)])


def warm_up(model: object) -> int:
    """Real steps that a state takes in before imagination begins."""
    return model.warm_up if isinstance(model, Remembers) else 0
