"""Converts a file's rows to the store's form: float32, padded, with filler and unused actions 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmbpo.data.importing.files import Block
from fmbpo.data.store_format import Array, Layout, starts, worst
from fmbpo.errors import UserError
from fmbpo.tasks.suite import Suite

_RESCALE = "the simulators take [-1, 1]: --action-scale X divides all actions by X"


def prepared(
    block: Block, where: str, suite: Suite, layout: Layout, action_scale: float = 1.0
) -> Block:
    """The block's rows of the suite's tasks, float32 and as wide as the store's.

    The action and reward of each episode's first row are filler (NaN in the published files) and
    become 0. So do actions beyond the task's width; observations beyond it must be 0. Actions are
    divided by ``action_scale``.

    Raises:
        UserError: naming file (``where``), array, episode and row: an array too narrow for the
            task, an unfit value (`worst`), or a nonzero observation in the padding.
    """
    block, numbers = _taken(block)
    obs_dims = np.array([info.obs_dim for info in suite])
    action_dims = np.array([info.action_dim for info in suite])
    lengths, task = block.lengths, block.task
    row_task, first = np.repeat(task, lengths), starts(np.cumsum(lengths))

    def place(name: str, bad: Any) -> str:
        row = int(np.flatnonzero(bad)[0])
        episode = int(np.searchsorted(first, row, side="right")) - 1
        number = int(numbers[episode])
        return f"{where}, array {name}, episode {number}, row {row - int(first[episode])}"

    for name, values, dims in (
        ("obs", block.obs, obs_dims),
        ("action", block.action, action_dims),
    ):
        narrow = dims[task] > values.shape[1]
        if narrow.any():
            e = int(np.flatnonzero(narrow)[0])
            number = int(task[e])
            raise UserError(
                f"{values.shape[1]} wide, but {suite.names[number]} has {int(dims[number])}",
                where=f"{where}, array {name}, episode {int(numbers[e])}",
                remedy="give the arrays of that task, or the right task",
            )
    with np.errstate(over="ignore"):  # values too large for float32 become infinite, an error below
        obs = block.obs.astype(np.float32, copy=False)
        action = _wide(block.action, layout.action_width)
        reward = block.reward.astype(np.float32)
    outside = _outside(obs.shape[1], obs_dims)[row_task] & (obs != 0)
    if outside.any():
        bad = outside.any(1)
        info = suite.tasks[int(row_task[np.flatnonzero(bad)[0]])]
        raise UserError(
            f"a value other than 0 beyond the {info.obs_dim} columns of {info.name}",
            where=place("obs", bad),
            remedy="fill the padding with zeros, or give the right task (for TD-MPC2's files, "
            "--suites in the order of their task ids)",
        )
    action[_outside(layout.action_width, action_dims)[row_task]] = 0.0
    action[first], reward[first] = 0.0, 0.0
    action /= np.float32(action_scale)
    width = layout.obs_width
    obs = _wide(obs, width) if obs.shape[1] != width else np.ascontiguousarray(obs)
    for name, values in (("obs", obs), ("action", action), ("reward", reward)):
        if found := worst(f"data/{name}", values):
            row, what = found
            finite = np.isfinite(values[row]).all()
            remedy = _RESCALE if finite else "correct the file, or leave it out"
            raise UserError(what, where=place(name, np.arange(len(values)) == row), remedy=remedy)
    return Block(obs, action, reward, lengths, task, block.terminated, block.first)


def known_ids(ids: Array, suite: Suite, skip_others: bool, where: str) -> NDArray[np.int16]:
    """Ids [E] as int16; an id outside the suite is a UserError, or -1 if ``skip_others``."""
    foreign = (ids < 0) | (ids >= len(suite))
    refused = np.flatnonzero(ids < 0 if skip_others else foreign)
    if len(refused):
        e = int(refused[0])
        raise UserError(
            f"unknown task id {int(ids[e])}; {suite.name} has 0 to {len(suite) - 1}",
            where=f"{where}, array task, episode {e}",
            remedy="use --skip-other-tasks to leave out the episodes of other tasks, or --suites "
            "to name further suites",
        )
    return np.where(foreign, -1, ids).astype(np.int16)


def _taken(block: Block) -> tuple[Block, Array]:
    """The block without the episodes to leave out, and the file's numbers [K] of the others."""
    kept = block.task >= 0
    numbers = block.first + np.flatnonzero(kept)
    if kept.all():
        return block, numbers
    rows = np.repeat(kept, block.lengths)
    arrays = (block.obs[rows], block.action[rows], block.reward[rows])
    of_episodes = (block.lengths[kept], block.task[kept], block.terminated[kept])
    return Block(*arrays, *of_episodes, block.first), numbers


def _outside(width: int, dims: Array) -> NDArray[np.bool_]:
    """[tasks, width] whether a column is beyond the task's width."""
    return np.arange(width) >= dims[:, None]


def _wide(values: Array, width: int) -> NDArray[np.float32]:
    """A float32 copy [R, width], truncated or padded with zeros."""
    wide = np.zeros((len(values), width), np.float32)
    wide[:, : values.shape[1]] = values[:, :width]
    return wide
