"""Who acts in collected episodes: the planner, a trained policy, noise, and turns of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fmbpo.data.collecting.planner import Planner
from fmbpo.data.collecting.recipes import Behaviour
from fmbpo.tasks.env import TaskEnv

Policy = Callable[[TaskEnv, NDArray[np.float32]], NDArray[np.floating]]
"""From the environment and its observation [O] to an action [U], unclipped."""


class TrainedPolicies(Protocol):
    """Trained policies that take the planner's place; they can be sent to a worker process."""

    @property
    def provenance(self) -> dict[str, str]:
        """Their origin, for the store's record."""

    def policy(self, task: str, episode: int) -> Policy:
        """The policy that acts in this episode."""


def make_policy(
    behaviour: Behaviour,
    env: TaskEnv,
    rng: np.random.Generator,
    expert: Policy | None = None,
) -> Policy:
    """A policy for one episode in ``env``; ``expert`` acts in the planner's place."""
    if behaviour.kind == "planner":
        if expert is None:
            expert = _Planning(env.name, behaviour.effort, rng)
        if behaviour.interrupted:
            return _Interrupted(expert, env.action_dim, rng)
        return _Noisy(expert, behaviour.noise, rng)
    if behaviour.smooth:
        return _SmoothNoise(env.action_dim, rng)
    if behaviour.bursts:
        return _Bursts(env.action_dim, rng)
    return lambda env, _obs: rng.uniform(-1.0, 1.0, env.action_dim)


class _Planning:
    """The planner, in the state of the simulation."""

    def __init__(self, task: str, effort: float, rng: np.random.Generator) -> None:
        self._planner, self._rng = Planner(task, effort), rng

    def __call__(self, env: TaskEnv, _obs: NDArray[np.float32]) -> NDArray[np.floating]:
        return self._planner.act(env.env, self._rng)

    def reset(self) -> None:
        self._planner.reset()


class _Noisy:
    """Gaussian noise on another's actions."""

    def __init__(self, policy: Policy, noise: float, rng: np.random.Generator) -> None:
        self._policy, self._noise, self._rng = policy, noise, rng

    def __call__(self, env: TaskEnv, obs: NDArray[np.float32]) -> NDArray[np.floating]:
        action = self._policy(env, obs)
        return action + self._noise * self._rng.standard_normal(len(action))


class _SmoothNoise:
    """Noise of a correlation length and size drawn anew for every episode."""

    def __init__(self, action_dim: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._keep = float(np.exp(-1.0 / rng.uniform(3.0, 40.0)))  # 3 to 40 agent steps
        self._sigma = rng.uniform(0.4, 1.5)
        self._noise = rng.standard_normal(action_dim)

    def __call__(self, _env: TaskEnv, _obs: NDArray[np.float32]) -> NDArray[np.floating]:
        action = self._sigma * self._noise
        fresh = self._rng.standard_normal(len(self._noise))
        self._noise = self._keep * self._noise + np.sqrt(1 - self._keep**2) * fresh
        return action


class _Bursts:
    """A random action held for 2 to 16 agent steps, then none for up to 40, and again."""

    def __init__(self, action_dim: int, rng: np.random.Generator) -> None:
        self._rng, self._width = rng, action_dim
        self._plan: list[NDArray[np.float64]] = []

    def __call__(self, _env: TaskEnv, _obs: NDArray[np.float32]) -> NDArray[np.floating]:
        if not self._plan:
            push = self._rng.uniform(-1.0, 1.0, self._width)
            rest = np.zeros(self._width)
            self._plan = [push] * int(self._rng.integers(2, 17))
            self._plan += [rest] * int(self._rng.integers(0, 41))
        return self._plan.pop(0)


class _Interrupted:
    """An expert and smooth noise in turns of 20 to 60 agent steps each, noise first."""

    def __init__(self, expert: Policy, action_dim: int, rng: np.random.Generator) -> None:
        self._expert, self._rng, self._width = expert, rng, action_dim
        self._noise: _SmoothNoise | None = None
        self._left = 0

    def __call__(self, env: TaskEnv, obs: NDArray[np.float32]) -> NDArray[np.floating]:
        if not self._left:
            self._left = int(self._rng.integers(20, 61))
            if self._noise is None:
                self._noise = _SmoothNoise(self._width, self._rng)
            else:
                self._noise = None
                if isinstance(self._expert, _Planning):
                    self._expert.reset()  # its plan is of another place
        self._left -= 1
        return (self._noise or self._expert)(env, obs)
