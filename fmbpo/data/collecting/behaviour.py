"""Who acts in collected episodes: the planner, a trained policy, noise, and turns of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fmbpo.data.collecting.planner import Planner
from fmbpo.data.collecting.recipes import Behaviour
from fmbpo.tasks.env import TaskEnv

Action = NDArray[np.float64]
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
    behaviour: Behaviour, env: TaskEnv, rng: np.random.Generator, expert: Policy | None = None
) -> Policy:
    """A policy for one episode in ``env``; ``expert`` acts in the planner's place."""
    width = env.action_dim
    if behaviour.kind == "random":
        actions = _white_noise(width, rng)
        if behaviour.smooth:
            actions = _smooth_noise(width, rng)
        elif behaviour.bursts:
            actions = _bursts(width, rng)
        return lambda _env, _obs: next(actions)

    def forget() -> None:
        """Only a planner has a plan to forget."""

    if expert is None:
        planner = Planner(env.name, behaviour.effort)
        expert, forget = lambda env, _obs: planner.act(env.env, rng), planner.reset
    if behaviour.interrupted:
        return _interrupted(expert, forget, width, rng)
    return lambda env, obs: expert(env, obs) + behaviour.noise * rng.standard_normal(width)


def _white_noise(width: int, rng: np.random.Generator) -> Iterator[Action]:
    while True:
        yield rng.uniform(-1.0, 1.0, width)


def _smooth_noise(width: int, rng: np.random.Generator) -> Iterator[Action]:
    """Noise of a correlation length and size drawn anew for every episode."""
    keep = float(np.exp(-1.0 / rng.uniform(3.0, 40.0)))  # 3 to 40 agent steps
    sigma = rng.uniform(0.4, 1.5)
    noise = rng.standard_normal(width)
    while True:
        action = sigma * noise
        # Before the action is handed out: whoever draws from ``rng`` next finds it so.
        noise = keep * noise + np.sqrt(1 - keep**2) * rng.standard_normal(width)
        yield action


def _bursts(width: int, rng: np.random.Generator) -> Iterator[Action]:
    """A random action held for 2 to 16 agent steps, then none for up to 40, and again."""
    while True:
        push = rng.uniform(-1.0, 1.0, width)
        steps = int(rng.integers(2, 17))
        rests = int(rng.integers(0, 41))
        yield from [push] * steps + [np.zeros(width)] * rests


def _interrupted(
    expert: Policy, forget: Callable[[], None], width: int, rng: np.random.Generator
) -> Policy:
    """An expert and smooth noise in turns of 20 to 60 agent steps each, noise first."""
    noise: Iterator[Action] | None = None
    left = 0

    def act(env: TaskEnv, obs: NDArray[np.float32]) -> NDArray[np.floating]:
        nonlocal noise, left
        if not left:
            left = int(rng.integers(20, 61))
            noise = None if noise else _smooth_noise(width, rng)
            if noise is None:
                forget()  # the plan starts from another state
        left -= 1
        return next(noise) if noise else expert(env, obs)

    return act
