"""The processes of a run and their messages."""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import attrs
import torch
import torch.distributed as dist
from torch import Tensor

from fmbpo.base.text import one_line, said
from fmbpo.distributed.shares import shares
from fmbpo.errors import UserError

TIMEOUT = timedelta(minutes=10)
"""The longest wait for a process that makes the same step; then the run ends."""
_ANSWERS = timedelta(hours=12)
"""The same in evaluations, which take longer on some tasks than on others."""
_ORDERS = timedelta(days=30)
"""Followers wait for orders as long as the leader needs, and for each other's whole trainings."""
_END = "end"


class Lost(UserError):
    """Another process of the run has ended, or does not answer."""


@attrs.frozen(eq=False)
class Failed:
    """An answer that is an exception."""

    error: Exception


class Group:
    """The processes of a run. ``rank``: 0 for the leader; ``size``: their number.

    A group of one process talks to nobody. All methods raise ``Lost`` if another process has ended
    or does not answer.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_size: int = 1) -> None:
        """``local_size``: the number of processes on this machine."""
        self.rank, self.size, self.local_size = rank, size, local_size
        self._orders: dist.ProcessGroup | None = None
        self._answers: dist.ProcessGroup | None = None
        self._trainings: dist.ProcessGroup | None = None

    @staticmethod
    def joined() -> Group:
        """The group that torchrun's environment describes."""
        names = "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"
        rank, size, local_size = (int(os.environ[name]) for name in names)
        group = Group(rank, size, local_size)
        if size > 1:
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            with group._talking():
                dist.init_process_group(backend, timeout=TIMEOUT)
                group._orders = dist.new_group(backend="gloo", timeout=_ORDERS)
                group._answers = dist.new_group(backend="gloo", timeout=_ANSWERS)
                group._trainings = dist.new_group(backend="gloo", timeout=_ORDERS)
        return group

    def leave(self) -> None:
        """Leave the group; the leader first orders the others to end."""
        with contextlib.suppress(Lost):  # all that it was needed for is done
            self.order(_END)
        if self.size > 1:
            dist.destroy_process_group()

    @property
    def _leads(self) -> bool:
        """Whether others follow this process."""
        return self.size > 1 and self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of ``count`` things."""
        return shares(count, self.size)[self.rank]

    def order(self, name: str, *arguments: object) -> None:
        """Leader: tell all followers to do something. Others: nothing."""
        if self._leads:
            self._broadcast(pickle.dumps((name, arguments)), 0)

    def order_step(self, iteration: int) -> None:
        """Leader: tell all followers to make a step, in one small message. Others: nothing."""
        if self._leads:
            self._broadcast(b"", iteration)

    def orders(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Follower: all orders to the end of the group; a step is ``"step", (iteration,)``."""
        while True:
            with self._talking():
                header = torch.empty(2, dtype=torch.int64)
                dist.broadcast(header, 0, self._orders)
                length, iteration = header.tolist()
                content = torch.empty(length, dtype=torch.uint8)
                if length:
                    dist.broadcast(content, 0, self._orders)
            if not length:
                yield "step", (iteration,)
                continue
            name, arguments = pickle.loads(content.numpy().tobytes())
            if name == _END:
                return
            yield name, arguments

    def _broadcast(self, content: bytes, iteration: int) -> None:
        with self._talking():
            dist.broadcast(torch.tensor([len(content), iteration]), 0, self._orders)
            if content:
                message = torch.frombuffer(bytearray(content), dtype=torch.uint8)
                dist.broadcast(message, 0, self._orders)

    def answer(self, value: object, *, training: bool = False) -> None:
        """Follower: the answer to an order; ``Failed`` raises its error in the leader.
        ``training``: to a whole training, which may take days."""
        group = self._trainings if training else self._answers
        with self._talking():
            _all_ready(group)
            dist.gather_object(value, None, 0, group)

    def answers(self, own: object, *, training: bool = False) -> list[Any]:
        """Leader: all answers by rank, of which ``own`` is the first; ``training`` as there."""
        group = self._trainings if training else self._answers
        found: list[Any] = [None] * self.size
        with self._talking():
            _all_ready(group)
            dist.gather_object(None, found, 0, group)
        found[0] = own  # not a copy: an error keeps its traceback
        for one in found:
            if isinstance(one, Failed):
                raise one.error
        return found

    def send(self, part: Tensor) -> None:
        """Follower: send the leader a tensor of a shape that it knows."""
        with self._talking():
            dist.send(part.contiguous(), 0)

    def received(self, like: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """Leader: the tensors ``[..., count]`` that followers send, by rank: like ``like`` but for
        the last dimension. A process with a count of 0 sends nothing."""
        parts = [like.new_empty((*like.shape[:-1], count)) for count in counts]
        with self._talking():
            waiting = [dist.irecv(p, 1 + i) for i, p in enumerate(parts) if p.numel()]
            for work in waiting:
                assert work is not None  # which it is only outside the group
                work.wait()
        return parts

    def mean(self, vector: Tensor, weight: float) -> Tensor:
        """Every process: the sum over the processes of ``weight`` times the vector."""
        weighted = vector * weight
        with self._talking():
            dist.all_reduce(weighted)
        return weighted

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, EOFError, OSError) as error:
            others = "the leader" if self.rank else "another process"
            raise Lost(
                f"{others} of the run's {self.size} processes ended or does not answer",
                where=f"process {self.rank} ({one_line(said(error))[:100]})",
                remedy="see its own message, if there is one; the last checkpoint is kept, and the "
                "same command continues",
            ) from error


def _all_ready(group: dist.ProcessGroup | None) -> None:
    """Wait until every process has its answer; signals are heard meanwhile."""
    ready = dist.barrier(group, async_op=True)
    assert ready is not None  # which it is only outside the group
    while not ready.is_completed():
        time.sleep(0.001)
    ready.wait()


ALONE = Group()
"""The group of a run in one process."""
