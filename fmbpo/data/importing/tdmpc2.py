"""TD-MPC2's data files: a TensorDict [n, T] saved by torch, which is mapped, never executed.

Keys ``obs`` [n, T, O], ``action`` [n, T, A], ``reward`` [n, T] and ``task`` [n, T] (an index into
the suite). MT30's files have T = 501; those of MT80, whose first 30 tasks are MT30's, 101.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fmbpo.data.importing.files import AGAIN, Block, EpisodeFile, check_names
from fmbpo.data.importing.rows import known_ids
from fmbpo.data.importing.torch_file import REFUSED, load_mapped
from fmbpo.data.store_format import Array
from fmbpo.errors import UserError
from fmbpo.tasks.suite import Suite

KEYS = {"obs": 3, "action": 3, "reward": 2, "task": 2}
"""Numbers of dimensions of the arrays."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
_TASK_ROWS = 2**23


class TdmpcFile(EpisodeFile):
    """An opened file; its structure is checked, but its values are not read yet.

    Numbers may be float16, bfloat16, float32 or float64; task ids must be integers. Keys other than
    the four are ignored. The file may also hold a plain dictionary of tensors.

    Raises:
        UserError: as `load_mapped`, or if a key is missing or an array has the wrong type or shape.
    """

    equal_lengths = True

    def __init__(self, path: Path, suite: Suite) -> None:
        self.path, self.suite = path, suite
        self.ignored = tuple(sorted(str(key) for key in load_mapped(path) if key not in KEYS))
        arrays = _arrays(path)
        episodes, self._length = (int(n) for n in arrays["reward"].shape)
        self.lengths = np.full(episodes, self._length)
        self.row_bytes = sum(t[0, 0].numel() * t.element_size() for t in arrays.values())

    def scan(self, skip_others: bool, progress: Callable[[int], None]) -> None:
        """See `EpisodeFile`; UserError also if an episode has two tasks."""
        super().scan(skip_others, progress)
        ids = np.zeros(len(self.lengths), np.int64)
        step = max(1, _TASK_ROWS // self._length)
        for first in range(0, len(ids), step):
            task = _arrays(self.path)["task"][first : first + step].numpy()
            mixed = np.flatnonzero((task != task[:, :1]).any(1))
            if len(mixed):
                row = int(np.flatnonzero(task[mixed[0]] != task[mixed[0], 0])[0])
                raise UserError(
                    "the task changes within the episode",
                    where=f"{self.path}, array task, episode {first + int(mixed[0])}, row {row}",
                    remedy=AGAIN,
                )
            ids[first : first + step] = task[:, 0]
        self.ids = known_ids(ids, self.suite, skip_others, str(self.path))

    def blocks(self, first: int, rows: int) -> Iterator[Block]:
        """See `EpisodeFile`."""
        step = max(1, rows // self._length)
        for at in range(first, len(self.ids), step):
            some = slice(at, at + step)
            # A new mapping for each block: pages that were read stay in memory while it exists.
            arrays = _arrays(self.path)
            obs, action, reward = (
                _numpy(arrays[name][some].flatten(0, 1)) for name in ("obs", "action", "reward")
            )
            lengths, ids = self.lengths[some], self.ids[some]
            yield Block(obs, action, reward, lengths, ids, np.zeros(len(ids), bool), at)
            del arrays, obs, action, reward


def _numpy(values: Tensor) -> Array:
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _arrays(path: Path) -> dict[str, Tensor]:
    """The four arrays, mapped and checked against each other."""
    content = load_mapped(path)
    check_names(KEYS, [str(key) for key in content], path, REFUSED)
    arrays = {}
    for name, rank in KEYS.items():
        value, where = content[name], f"{path}, array {name}"
        if type(value) is not Tensor or value.layout != torch.strided or value.device.type != "cpu":
            raise UserError(f"a {type(value).__name__}, not a plain tensor", where=where)
        if value.ndim != rank:
            shape = "[n, T]" if rank == 2 else "[n, T, width]"
            raise UserError(f"shape {list(value.shape)}, not {shape}", where=where)
        if value.dtype not in (_INTEGERS if name == "task" else _FLOATS):
            wanted = "an integer" if name == "task" else "a float of 16, 32 or 64 bits"
            raise UserError(f"type {value.dtype}, not {wanted}", where=where)
        arrays[name] = value.detach()
    episodes, length = arrays["reward"].shape
    for name, value in arrays.items():
        if tuple(value.shape[:2]) != (episodes, length):
            what = f"{value.shape[0]} episodes of {value.shape[1]} rows, but reward has {episodes}"
            raise UserError(f"{what} of {length}", where=f"{path}, array {name}", remedy=AGAIN)
    if episodes < 1 or length < 2:
        raise UserError(
            f"{episodes} episodes of {length} rows are too few to learn from",
            where=str(path),
            remedy="give files with at least one episode of at least two rows",
        )
    return arrays
