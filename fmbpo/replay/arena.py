"""Places in one piece of memory for things that come and go, planned in advance."""

from __future__ import annotations

from bisect import bisect_left, insort

ALIGNED = 64
"""Bytes at whose multiples torch's memory on the CPU begins, and so do blocks."""


class Arena:
    """The smallest free block that is large enough takes the next thing; neighbours that are free
    become one. ``size``: bytes in all."""

    def __init__(self) -> None:
        self.size = 0
        self._by_place: list[tuple[int, int]] = []  # (begin, bytes) of the free blocks
        self._by_size: list[tuple[int, int]] = []

    def take(self, count: int) -> int:
        """The begin of a new block of ``count`` bytes."""
        count = _rounded(count)
        at = bisect_left(self._by_size, (count, 0))
        if at < len(self._by_size):
            free, begin = self._by_size[at]
        elif self._by_place and sum(self._by_place[-1]) == self.size:
            begin, free = self._by_place[-1]  # the last one grows
            self._remove(begin, free)
            self.size = begin + count
            return begin
        else:
            begin, self.size = self.size, self.size + count
            return begin
        self._remove(begin, free)
        if free > count:
            self._add(begin + count, free - count)
        return begin

    def give(self, begin: int, count: int) -> None:
        """Free a block that was taken."""
        count = _rounded(count)
        at = bisect_left(self._by_place, (begin, 0))
        if at < len(self._by_place) and self._by_place[at][0] == begin + count:
            _, more = self._by_place[at]
            self._remove(begin + count, more)
            count += more
        if at and sum(self._by_place[at - 1]) == begin:
            before, more = self._by_place[at - 1]
            self._remove(before, more)
            begin, count = before, count + more
        self._add(begin, count)

    def _add(self, begin: int, count: int) -> None:
        insort(self._by_place, (begin, count))
        insort(self._by_size, (count, begin))

    def _remove(self, begin: int, count: int) -> None:
        self._by_place.remove((begin, count))
        self._by_size.remove((count, begin))


def _rounded(count: int) -> int:
    return max(-(-count // ALIGNED), 1) * ALIGNED
