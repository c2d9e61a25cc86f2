"""One recorded episode in the simulator; its random streams are its own."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fmbpo.data.collecting.behaviour import Policy, make_policy
from fmbpo.data.collecting.recipes import Behaviour
from fmbpo.errors import UserError
from fmbpo.tasks.env import EPISODE_STEPS, SimulationError, TaskEnv
from fmbpo.tasks.mt30 import ACTION_WIDTH, OBS_WIDTH

_ATTEMPTS = 3


def collect_episode(
    task: str,
    episode: int,
    behaviour: Behaviour,
    seed: int,
    steps: int = EPISODE_STEPS,
    expert: Policy | None = None,
) -> dict[str, NDArray[np.float32]]:
    """One episode of ``steps`` + 1 rows: obs [T, 24], action [T, 6], reward [T], float32.

    The action is the executed one (with noise, clipped), the reward the environment's. If the
    simulation diverges, the episode is drawn anew from equally fixed streams. ``expert`` acts in
    the planner's place.

    Raises:
        UserError: the simulation diverged three times.
    """
    for attempt in range(_ATTEMPTS):
        name = f"{seed}/{task}/{episode}" + (f"/{attempt}" if attempt else "")
        entropy = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
        try:
            return _simulate(task, behaviour, np.random.SeedSequence(entropy), steps, expert)
        except SimulationError as error:
            failure = error
    raise UserError(
        str(failure),
        where=f"episode {episode}, drawn {_ATTEMPTS} times",
        remedy="choose another --seed, or another --recipe",
    ) from failure


def _simulate(
    task: str,
    behaviour: Behaviour,
    entropy: np.random.SeedSequence,
    steps: int,
    expert: Policy | None,
) -> dict[str, NDArray[np.float32]]:
    start, noise = entropy.spawn(2)
    env = TaskEnv(task)
    policy = make_policy(behaviour, env, np.random.default_rng(noise), expert)
    obs = np.zeros((steps + 1, OBS_WIDTH), np.float32)
    action = np.zeros((steps + 1, ACTION_WIDTH), np.float32)
    reward = np.zeros(steps + 1, np.float32)
    obs[0, : env.obs_dim] = env.reset(int(start.generate_state(1)[0]))
    for t in range(1, steps + 1):
        chosen = policy(env, obs[t - 1, : env.obs_dim])
        action[t, : env.action_dim] = np.clip(chosen, -1.0, 1.0)
        obs[t, : env.obs_dim], reward[t] = env.step(action[t])
    return {"obs": obs, "action": action, "reward": reward}
