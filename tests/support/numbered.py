"""A store whose rows say where they are."""

import numpy as np
import torch

from fmbpo.data.store_writer import StoreWriter
from fmbpo.tasks.mt30 import MT30

TASKS = ("reacher-easy", "pendulum-swingup", "walker-walk")
CPU = torch.device("cpu")


def write_store(out, episodes=60, compress=False, chunk_rows=32, spoil=None):
    """Episodes of 9 to 12 rows, so that they lie across chunks; the first observation of row r is
    r, the reward t / 100 of the t-th row of an episode."""
    row = 0
    writer = StoreWriter(out, TASKS, ["x"], compress=compress, chunk_rows=chunk_rows)
    for e in range(episodes):
        task = TASKS[e % 2 if e % 6 else 2]
        info, length = MT30[task], 9 + e % 4
        obs = np.full((length, info.obs_dim), e, np.float32)
        obs[:, 0] = np.arange(row, row + length)
        action = np.full((length, info.action_dim), e / episodes, np.float32)
        reward = np.arange(length, dtype=np.float32) / 100
        writer.append(obs=obs, action=action, reward=reward, task=task, behaviour="x")
        row += length
    return writer.finish()
