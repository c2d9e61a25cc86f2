"""Small files as TD-MPC2 publishes them, and what a store of them holds."""

import numpy as np
import torch

from fmbpo.tasks.mt30 import MT30

TASKS = list(MT30.values())


def arrays(episodes=6, length=5, seed=0, tasks=(0, 7, 16, 29), width=24):
    """obs, action, reward and task of episodes whose tasks take turns; NaN in row 0."""
    rng = np.random.default_rng(seed)
    task = np.resize(np.array(tasks), episodes)
    obs = rng.standard_normal((episodes, length, width)).astype(np.float32)
    for e, i in enumerate(task):
        obs[e, :, TASKS[i].obs_dim if i < len(TASKS) else width :] = 0
    action = rng.uniform(-1, 1, (episodes, length, 6)).astype(np.float32)
    reward = rng.uniform(0, 2, (episodes, length)).astype(np.float32)
    action[:, 0], reward[:, 0] = np.nan, np.nan
    return {"obs": obs, "action": action, "reward": reward,
            "task": np.repeat(task[:, None], length, 1)}  # fmt: skip


def tensors(given):
    return {name: torch.from_numpy(np.array(values)) for name, values in given.items()}


def save(path, given):
    """As a plain dictionary, which is read in the same way as a TensorDict."""
    torch.save(tensors(given), path)
    return path


def stored(given):
    """(obs, action, reward) of each episode as the store holds it, by numpy one at a time."""
    episodes = []
    for e, task in enumerate(given["task"][:, 0]):
        info, length = TASKS[task], given["reward"].shape[1]
        obs, action = np.zeros((length, 24)), np.zeros((length, 6))
        obs[:, : info.obs_dim] = given["obs"][e, :, : info.obs_dim]
        action[1:, : info.action_dim] = given["action"][e, 1:, : info.action_dim]
        reward = np.array([0, *given["reward"][e, 1:]])
        episodes.append([values.astype(np.float32) for values in (obs, action, reward)])
    return episodes
