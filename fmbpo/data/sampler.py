"""Batches from recorded episodes; every random choice comes from a saved generator."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbpo.data.residence import Stored
from fmbpo.data.sending import send
from fmbpo.hookspecs import Batch
from fmbpo.tasks.suite import Suite

WHOLE = slice(None)
"""All of a batch."""
START_ROWS = 65_536
"""Observations per task in the pool of start states, if rows are on the disk."""


class Rows:
    """Episodes of a data set, and the residence of its rows.

    ``ends_E``: exclusive end row of each episode; the first begins at row 0. ``task_E``: indices
    into the ``suite`` (not the store's list). ``mask_KA``: a row of 0/1 for each task of the suite.
    ``terminated_E``: whether the last row of each episode is a terminal state; None: no episode's.
    """

    def __init__(
        self,
        ends_E: NDArray[np.int64],
        residence: Stored,
        task_E: Tensor,
        suite: Suite,
        terminated_E: Tensor | None = None,
    ) -> None:
        self.residence, self.device = residence, residence.device
        self.end_E = torch.from_numpy(ends_E)
        self.start_E = torch.cat([self.end_E.new_zeros(1), self.end_E[:-1]])
        self.task_E, self.suite = task_E, suite
        self.terminated_E = torch.zeros_like(task_E, dtype=torch.bool)
        if terminated_E is not None:
            self.terminated_E = terminated_E
        self.mask_KA = action_masks(suite).to(self.device)

    def select(self, chosen_E: Tensor) -> Rows:
        """The episodes chosen by a mask or by indices ``chosen_E``; the rows are shared."""
        some = copy.copy(self)
        some.start_E, some.end_E = self.start_E[chosen_E], self.end_E[chosen_E]
        some.task_E, some.terminated_E = self.task_E[chosen_E], self.terminated_E[chosen_E]
        return some

    def unmasked(self) -> Rows:
        """The same episodes with a mask of ones, so that all action dimensions count."""
        same = copy.copy(self)
        same.mask_KA = torch.ones_like(self.mask_KA)
        return same

    def redrawn(self, generator: torch.Generator) -> Rows:
        """The same number of episodes of each task, drawn with replacement."""
        drawn = []
        for task in torch.unique(self.task_E):
            (mine,) = torch.nonzero(self.task_E == task, as_tuple=True)
            drawn.append(mine[torch.randint(len(mine), (len(mine),), generator=generator)])
        return self.select(torch.cat(drawn))

    def of_task(self, task: int) -> Rows:
        """The episodes of one task."""
        return self.select(self.task_E == task)

    def observations(self, row_B: Tensor) -> Tensor:
        """The observations of the given rows, ``[B, O]``."""
        return self.observed(self.residence.gather(row_B, 0))

    def observed(self, packed: Tensor) -> Tensor:
        """The observations ``[B, O]`` of single packed rows ``[1, B, row_width]``."""
        return packed[0, :, : self.suite.obs_width]

    def drawn(self, row_B: Tensor, episode_B: Tensor, horizon: int) -> Drawn:
        """Slices of ``horizon`` + 1 rows from the given first rows, in the given episodes."""
        slices = self.residence.on_host(row_B, horizon)
        return Drawn(slices, *self.labels(row_B, episode_B, horizon))

    def labels(self, row_B: Tensor, episode_B: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Of slices of ``horizon`` + 1 rows: their tasks, and whether they end in a terminal state
        (0/1), ``[B]`` each."""
        last_B = self.end_E[episode_B] - 1
        ends_B = self.terminated_E[episode_B] & (row_B + horizon == last_B)
        return self.task_E[episode_B], ends_B.float()

    def batch(self, drawn: Drawn, horizon: int) -> Batch:
        """Views of slices that were drawn and then sent to the device.

        The action and reward of row t led to row t, so those of row 0 are left out.
        """
        packed, index = self.residence.on_device(drawn.slices, horizon), drawn.index_B
        width = self.suite.obs_width
        action, reward = packed[1:, :, width:-1], packed[1:, :, -1]
        terminated = torch.cat([torch.zeros_like(reward[1:]), drawn.terminal_B.unsqueeze(0)])
        mask = self.mask_KA[index]
        return Batch(packed[..., :width], action, reward, index, mask, terminated)


class Drawn(NamedTuple):
    """Slices that were drawn, and their ``Rows.labels``."""

    slices: Tensor
    """``Stored.on_host``, or the same after it was sent to the device."""
    index_B: Tensor
    terminal_B: Tensor

    def sent(self, device: torch.device) -> Drawn:
        """The same on the device, by a copy of its own."""
        return Drawn(*send(self, device))


class Sampler(ABC):
    """An endless sequence of batches."""

    rows: Rows
    horizon: int

    @abstractmethod
    def next(self) -> Drawn:
        """The next batch, in the host's memory."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything that the next batches depend on."""

    @abstractmethod
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state``."""

    def batch(self, drawn: Drawn) -> Batch:
        """A batch that was drawn and then sent to the device."""
        return self.rows.batch(drawn, self.horizon)


class SliceSampler(Sampler):
    """One slice per epoch from each episode, in random order, at a uniformly random offset.

    ``weight_K``: mean slices per epoch from an episode of each task (see `turns`); None: one.
    ``part``: this process's part of each batch; every process draws the whole batch.
    """

    _saved: tuple[str, ...] = ("order",)

    def __init__(
        self,
        rows: Rows,
        horizon: int,
        batch: int,
        seed: int,
        weight_K: Tensor | None = None,
        part: slice = WHOLE,
    ) -> None:
        self.rows, self.horizon, self.count, self.part = rows, horizon, batch, part
        self.weight_E = None if weight_K is None else weight_K[rows.task_E]
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)

    def next(self) -> Drawn:
        """See `Sampler`."""
        row_B, episode_B = self.draw()
        return self.rows.drawn(row_B[self.part], episode_B[self.part], self.horizon)

    def draw(self) -> tuple[Tensor, Tensor]:
        """First rows and episodes of the next batch, ``[B]`` each."""
        every = torch.arange(len(self.rows.start_E))
        epochs, count = [self.order], len(self.order)
        while count < self.count:
            epochs.append(turns(every, self.weight_E, self.generator))
            count += len(epochs[-1])
        order = torch.cat(epochs) if epochs[1:] else self.order
        episode_B, self.order = order[: self.count], order[self.count :]
        return first_rows(self.rows, episode_B, self.horizon, self.generator), episode_B

    def state(self) -> dict[str, Tensor]:
        """See `Sampler`."""
        saved = {name: getattr(self, name) for name in self._saved}
        return {"generator": self.generator.get_state(), **saved}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Sampler`."""
        self.generator.set_state(state["generator"])
        for name in self._saved:
            setattr(self, name, state[name])


class Ahead(Sampler):
    """Another sampler's batches; a thread draws the next one while the current one is used.

    ``state`` is the state after the last batch returned, not after the one drawn in advance.
    """

    def __init__(self, sampler: SliceSampler, worker: Executor) -> None:
        self.sampler, self.worker = sampler, worker
        self.rows, self.horizon = sampler.rows, sampler.horizon
        self._state = sampler.state()
        self._next: Future[tuple[Drawn, dict[str, Tensor]]] | None = None

    def next(self) -> Drawn:
        """See `Sampler`."""
        ready = self._next or self.worker.submit(self._draw)
        self._next = None  # a failed batch is drawn again
        drawn, self._state = ready.result()
        self._next = self.worker.submit(self._draw)
        return drawn

    def state(self) -> dict[str, Tensor]:
        """See `Sampler`."""
        return self._state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `Sampler`; drops the batch drawn in advance."""
        if self._next is not None:
            self._next.exception()  # wait for the thread
            self._next = None
        self.sampler.load_state(state)
        self._state = state

    def _draw(self) -> tuple[Drawn, dict[str, Tensor]]:
        drawn = self.sampler.next()
        return drawn, self.sampler.state()


def ahead(sampler: SliceSampler) -> Sampler:
    """The sampler, with batches drawn in advance by the residence's thread if it has one."""
    worker = sampler.rows.residence.worker
    return Ahead(sampler, worker) if worker else sampler


class Starts(ABC):
    """Observations of one task."""

    @abstractmethod
    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """The next observations, as they have to be sent to the device."""

    @abstractmethod
    def observations(self, sent: Tensor) -> Tensor:
        """``[B, O]``, from the result of ``draw`` after ``send``."""


class Uniform:
    """Draws uniformly among the rows of a task's episodes behind which ``steps`` rows follow."""

    def __init__(self, rows: Rows, task: int, steps: int) -> None:
        self.rows, self.steps = rows.of_task(task), steps
        lengths = self.rows.end_E - self.rows.start_E - steps
        self.behind_E = torch.cumsum(lengths.clamp(min=0), 0)

    def drawn(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows of the store and episodes, ``[B]`` each."""
        number = torch.randint(int(self.behind_E[-1]), (batch,), generator=generator)
        episode = torch.searchsorted(self.behind_E, number, right=True)
        last = self.rows.end_E[episode] - self.steps
        return last - (self.behind_E[episode] - number), episode


class StartSampler(Starts):
    """Uniform over the rows of a task's episodes."""

    def __init__(self, rows: Rows, task: int) -> None:
        self.uniform = Uniform(rows, task, 0)
        self.rows = self.uniform.rows

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """See `Starts`."""
        return self.rows.residence.on_host(self.row(batch, generator), 0)

    def observations(self, sent: Tensor) -> Tensor:
        """See `Starts`."""
        return self.rows.observed(self.rows.residence.on_device(sent, 0))

    def row(self, batch: int, generator: torch.Generator) -> Tensor:
        """Rows of the store ``[B]``."""
        return self.uniform.drawn(batch, generator)[0]


class PooledStarts(Starts):
    """Uniform over a pool ``[M, O]``."""

    def __init__(self, pool: Tensor) -> None:
        self.pool = pool

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """See `Starts`."""
        return torch.randint(len(self.pool), (batch,), generator=generator)

    def observations(self, sent: Tensor) -> Tensor:
        """See `Starts`."""
        return self.pool[sent]


class SliceStarts:
    """Sub-trajectories of a task, of ``steps`` steps, uniform over the rows that leave room.

    Rows on the disk are read once: ``START_ROWS`` sub-trajectories, drawn with replacement.
    """

    def __init__(self, rows: Rows, task: int, steps: int) -> None:
        self.uniform, self.steps = Uniform(rows, task, steps), steps
        self.rows = self.uniform.rows
        self.pool: Drawn | None = None
        if rows.residence.kind == "stream":
            self.pool = self._from_rows(START_ROWS, torch.Generator().manual_seed(0))

    def draw(self, batch: int, generator: torch.Generator) -> Drawn:
        """The next sub-trajectories, as they have to be sent to the device."""
        if self.pool is None:
            return self._from_rows(batch, generator)
        row = torch.randint(START_ROWS, (batch,), generator=generator)
        slices, *labels = self.pool
        return Drawn(slices[:, row], *(x[row] for x in labels))

    def real(self, sent: Drawn) -> Batch:
        """Views of sub-trajectories that were drawn and then sent to the device."""
        return self.rows.batch(sent, self.steps)

    def _from_rows(self, batch: int, generator: torch.Generator) -> Drawn:
        return self.rows.drawn(*self.uniform.drawn(batch, generator), self.steps)


def start_samplers(rows: Rows, tasks: Sequence[int]) -> dict[int, Starts]:
    """Samplers of the observations that policies start from, by task.

    Single rows cannot be read from the disk as fast as policies learn. For rows on the disk,
    ``START_ROWS`` per task are drawn uniformly, with replacement, and read once, in one pass.
    """
    samplers = {task: StartSampler(rows, task) for task in tasks}
    if rows.residence.kind != "stream":
        return dict(samplers)
    generator = torch.Generator().manual_seed(0)
    row = torch.cat([samplers[task].row(START_ROWS, generator) for task in samplers])
    pools = torch.split(rows.observations(row), START_ROWS)
    return {task: PooledStarts(pool) for task, pool in zip(samplers, pools, strict=True)}


def turns(episode_E: Tensor, weight_E: Tensor | None, generator: torch.Generator) -> Tensor:
    """The given episodes in random order, repeated by weight; without weights, once each.

    An episode of weight w occurs floor(w) times and, with probability w - floor(w), once more.
    """
    if weight_E is not None:
        u = torch.rand(len(episode_E), generator=generator, dtype=torch.float64)
        episode_E = episode_E.repeat_interleave((weight_E[episode_E] + u).floor().long())
    return episode_E[torch.randperm(len(episode_E), generator=generator)]


def first_rows(rows: Rows, episode_B: Tensor, horizon: int, generator: torch.Generator) -> Tensor:
    """First rows ``[B]`` of slices in the episodes, uniform over the rows that leave room."""
    start, end = rows.start_E[episode_B], rows.end_E[episode_B]
    u = torch.rand(len(episode_B), generator=generator, dtype=torch.float64)
    return start + (u * (end - start - horizon)).floor().long()


def action_masks(suite: Suite) -> Tensor:
    """``[K, A]``: for each task, 1 in the dimensions of its action and 0 elsewhere."""
    widths = torch.tensor([task.action_dim for task in suite])
    return (torch.arange(suite.action_width) < widths.unsqueeze(1)).float()
