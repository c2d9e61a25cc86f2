"""Converts a file's rows to the store's form: float32, padded, with filler and unused actions 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbpo.data.importing.files import Block
from fmbpo.data.store_format import Array, starts, worst
from fmbpo.errors import UserError
from fmbpo.tasks.mt30 import ACTION_WIDTH, MT30, OBS_WIDTH

TASKS = tuple(MT30.values())
_OBS_DIMS = np.array([task.obs_dim for task in TASKS])
_ACTION_DIMS = np.array([task.action_dim for task in TASKS])
_RESCALE = {
    "action": "the simulators take [-1, 1]: --action-scale X divides all actions by X",
    "reward": "divide all rewards by a constant",
}


def prepared(block: Block, where: str, action_scale: float = 1.0) -> Block:
    """The block's rows of MT30 tasks: obs [R, 24], action [R, 6], reward [R], float32.

    The action and reward of each episode's first row are filler (NaN in the published files) and
    become 0. So do actions beyond the task's width; observations beyond it must be 0. Actions are
    divided by ``action_scale``.

    Raises:
        UserError: naming file (``where``), array, episode and row: an array too narrow for the
            task, an unfit value (`worst`), or a nonzero observation in the padding.
    """
    block, numbers = _of_mt30(block)
    lengths, task = block.lengths, block.task
    row_task, first = np.repeat(task, lengths), starts(np.cumsum(lengths))

    def place(name: str, bad: Any) -> str:
        row = int(np.flatnonzero(bad)[0])
        episode = int(np.searchsorted(first, row, side="right")) - 1
        number = int(numbers[episode])
        return f"{where}, array {name}, episode {number}, row {row - int(first[episode])}"

    for name, values, dims in (
        ("obs", block.obs, _OBS_DIMS),
        ("action", block.action, _ACTION_DIMS),
    ):
        narrow = dims[task] > values.shape[1]
        if narrow.any():
            e = int(np.flatnonzero(narrow)[0])
            info = TASKS[int(task[e])]
            raise UserError(
                f"{values.shape[1]} wide, but {info.name} has {int(dims[info.index])}",
                where=f"{where}, array {name}, episode {int(numbers[e])}",
                remedy="give the arrays of that task, or the right task",
            )
    with np.errstate(over="ignore"):  # values too large for float32 become infinite, an error below
        obs = block.obs.astype(np.float32, copy=False)
        action = _wide(block.action, ACTION_WIDTH)
        reward = block.reward.astype(np.float32)
    outside = _outside(obs.shape[1], _OBS_DIMS)[row_task] & (obs != 0)
    if outside.any():
        bad = outside.any(1)
        info = TASKS[int(row_task[np.flatnonzero(bad)[0]])]
        raise UserError(
            f"a value other than 0 beyond the {info.obs_dim} columns of {info.name}",
            where=place("obs", bad),
            remedy="fill the padding with zeros, or give the right task",
        )
    action[_outside(ACTION_WIDTH, _ACTION_DIMS)[row_task]] = 0.0
    action[first], reward[first] = 0.0, 0.0
    action /= np.float32(action_scale)
    obs = _wide(obs, OBS_WIDTH) if obs.shape[1] != OBS_WIDTH else np.ascontiguousarray(obs)
    for name, values in (("obs", obs), ("action", action), ("reward", reward)):
        if found := worst(f"data/{name}", values):
            row, what = found
            finite = np.isfinite(values[row]).all()
            remedy = _RESCALE[name] if finite else "correct the file, or leave it out"
            raise UserError(what, where=place(name, np.arange(len(values)) == row), remedy=remedy)
    return Block(obs, action, reward, lengths, task, block.first)


def mt30_ids(ids: Array, skip_others: bool, where: str) -> NDArray[np.int16]:
    """Ids [E] as int16; an id outside MT30 is a UserError, or -1 if ``skip_others``."""
    foreign = (ids < 0) | (ids >= len(TASKS))
    refused = np.flatnonzero(ids < 0 if skip_others else foreign)
    if len(refused):
        e = int(refused[0])
        raise UserError(
            f"unknown task id {int(ids[e])}; MT30 has 0 to {len(TASKS) - 1}",
            where=f"{where}, array task, episode {e}",
            remedy="use --skip-other-tasks to leave out the episodes of tasks outside MT30",
        )
    return np.where(foreign, -1, ids).astype(np.int16)


def _of_mt30(block: Block) -> tuple[Block, Array]:
    """The block without the episodes to leave out, and the file's numbers [K] of the others."""
    kept = block.task >= 0
    numbers = block.first + np.flatnonzero(kept)
    if kept.all():
        return block, numbers
    rows = np.repeat(kept, block.lengths)
    arrays = (block.obs[rows], block.action[rows], block.reward[rows])
    return Block(*arrays, block.lengths[kept], block.task[kept], block.first), numbers


def _outside(width: int, dims: Array) -> NDArray[np.bool_]:
    """[tasks, width] whether a column is beyond the task's width."""
    return np.arange(width) >= dims[:, None]


def _wide(values: Array, width: int) -> NDArray[np.float32]:
    """A float32 copy [R, width], truncated or padded with zeros."""
    wide = np.zeros((len(values), width), np.float32)
    wide[:, : values.shape[1]] = values[:, :width]
    return wide
