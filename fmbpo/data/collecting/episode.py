"""One recorded episode in the simulator, acted by the planner, a trained policy or noise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fmbpo.data.collecting.planner_tasks import planner_of
from fmbpo.data.collecting.recipes import Behaviour
from fmbpo.errors import UserError
from fmbpo.tasks.suite import Environment, SimulationError, TaskInfo

_ATTEMPTS = 3

Action = NDArray[np.float64]
Policy = Callable[[Environment, NDArray[np.float32]], NDArray[np.floating]]
"""From the environment and its observation [O] to an action [U], unclipped."""


class TrainedPolicies(Protocol):
    """Trained policies that replace the planner; they can be sent to a worker process."""

    @property
    def provenance(self) -> dict[str, str]:
        """Their origin, for the store's record."""

    def policy(self, task: str, episode: int) -> Policy:
        """The policy that acts in this episode."""


def collect_episode(
    task: TaskInfo,
    episode: int,
    behaviour: Behaviour,
    seed: int,
    steps: int | None = None,
    expert: Policy | None = None,
) -> dict[str, NDArray[Any]]:
    """One episode of at most ``steps`` steps (by default, a whole one), with a row more than steps.

    obs [T, obs_dim], action [T, action_dim], reward [T], float32; terminated, 0-d: whether the last
    row is a terminal state. The action is the executed one (with noise, clipped), the reward the
    environment's. If the simulation diverges, the episode is drawn again from other, equally fixed
    random streams; after three failures: UserError. ``expert`` replaces the planner.
    """
    for attempt in range(_ATTEMPTS):
        name = f"{seed}/{task.name}/{episode}" + (f"/{attempt}" if attempt else "")
        entropy = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
        try:
            sequence = np.random.SeedSequence(entropy)
            return _simulate(task, behaviour, sequence, steps or task.episode_steps, expert)
        except SimulationError as error:
            failure = error
    raise UserError(
        str(failure),
        where=f"episode {episode}, drawn {_ATTEMPTS} times",
        remedy="choose another --seed, or another --recipe",
    ) from failure


def _simulate(
    task: TaskInfo,
    behaviour: Behaviour,
    entropy: np.random.SeedSequence,
    steps: int,
    expert: Policy | None,
) -> dict[str, NDArray[Any]]:
    start, noise = entropy.spawn(2)
    env = task.make()
    policy = make_policy(behaviour, task, np.random.default_rng(noise), expert)
    obs = np.zeros((steps + 1, env.obs_dim), np.float32)
    action = np.zeros((steps + 1, env.action_dim), np.float32)
    reward = np.zeros(steps + 1, np.float32)
    obs[0] = env.reset(int(start.generate_state(1)[0]))
    t = 0
    while t < steps and env.steps_left:
        t += 1
        action[t] = np.clip(policy(env, obs[t - 1]), -1.0, 1.0)
        obs[t], reward[t] = env.step(action[t])
    rows = {"obs": obs, "action": action, "reward": reward}
    ended = {name: values[: t + 1] for name, values in rows.items()}
    return {**ended, "terminated": np.array(env.terminated)}


def make_policy(
    behaviour: Behaviour, task: TaskInfo, rng: np.random.Generator, expert: Policy | None = None
) -> Policy:
    """A policy for one episode of the task; ``expert`` replaces the planner."""
    width = task.action_dim
    if behaviour.kind == "random":
        noise = _smooth_noise if behaviour.smooth else _bursts if behaviour.bursts else _white_noise
        actions = noise(width, rng)
        return lambda _env, _obs: next(actions)

    def forget() -> None:
        """Only a planner has a plan to forget."""

    if expert is None:
        planner = planner_of(task, behaviour.effort)
        expert, forget = lambda env, _obs: planner.act(env, rng), planner.reset
    if behaviour.interrupted:
        return _interrupted(expert, forget, width, rng)
    return lambda env, obs: expert(env, obs) + behaviour.noise * rng.standard_normal(width)


def _white_noise(width: int, rng: np.random.Generator) -> Iterator[Action]:
    while True:
        yield rng.uniform(-1.0, 1.0, width)


def _smooth_noise(width: int, rng: np.random.Generator) -> Iterator[Action]:
    """Noise with a random correlation length and scale, drawn once."""
    keep = float(np.exp(-1.0 / rng.uniform(3.0, 40.0)))  # 3 to 40 agent steps
    sigma = rng.uniform(0.4, 1.5)
    noise = rng.standard_normal(width)
    while True:
        action = sigma * noise
        # Draw before yielding: the order of draws from the shared ``rng`` is part of the result.
        noise = keep * noise + np.sqrt(1 - keep**2) * rng.standard_normal(width)
        yield action


def _bursts(width: int, rng: np.random.Generator) -> Iterator[Action]:
    """A random action for 2 to 16 agent steps, then zeros for up to 40 steps, repeatedly."""
    while True:
        push = rng.uniform(-1.0, 1.0, width)
        steps = int(rng.integers(2, 17))
        rests = int(rng.integers(0, 41))
        yield from [push] * steps + [np.zeros(width)] * rests


def _interrupted(
    expert: Policy, forget: Callable[[], None], width: int, rng: np.random.Generator
) -> Policy:
    """Smooth noise and an expert in turns of 20 to 60 agent steps each, noise first."""
    noise: Iterator[Action] | None = None
    left = 0

    def act(env: Environment, obs: NDArray[np.float32]) -> NDArray[np.floating]:
        nonlocal noise, left
        if not left:
            left = int(rng.integers(20, 61))
            noise = None if noise else _smooth_noise(width, rng)
            if noise is None:
                forget()  # the old plan belongs to another state
        left -= 1
        return next(noise) if noise else expert(env, obs)

    return act
