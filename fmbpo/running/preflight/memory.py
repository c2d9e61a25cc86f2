"""Memory that a run needs, and what this machine has left.

On the device, for the stage that needs most::

    data + FRAGMENTATION * (state + max(update, evaluation))

``state``, ``update`` and ``evaluation`` are counted on shapes (``on_shapes``), all cells of a group
stacked. On the host, beside that if the device is the CPU::

    LIBRARIES + workers * WORKER + episodes * SIMULATION + weights + 2 * training state

the last two for a checkpoint, which is read whole; ``episodes``: those that run at once. The
windows of a data set that is read from the disk come on top (``fmbpo.training.residence_choice``).
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from fmbpo.base.text import bytes_text
from fmbpo.running.preflight.on_shapes import Cost

FRAGMENTATION = 1.25
"""Freed pieces that allocators keep: glibc's takes up to 1.4 times the live bytes, of which the
count on shapes has a part; see docs/preflight.md for measurements."""
LIBRARIES = 150_000_000
"""Of libraries that a run imports late: pictures, W&B."""
WORKER = 100_000_000
"""Of one process that simulates, MuJoCo and dm_control included."""
SIMULATION = 1_000_000
"""Of one episode's simulation in it."""
TIGHT = 0.8
"""A need above this share of the free memory is a warning."""


@attrs.frozen
class Need:
    """Bytes beyond those that the process has now, its data set loaded."""

    host: int
    device: int
    """0 if the device is the CPU."""


def need(costs: Sequence[Cost], workers: int, episodes: int, on_gpu: bool) -> Need:
    """Of stages one after another: the largest counts; ``workers`` processes simulate
    ``episodes`` at once."""
    stage = int(FRAGMENTATION * max(c.state + max(c.update, c.evaluation) for c in costs))
    host = LIBRARIES + workers * WORKER + episodes * SIMULATION
    host += max(c.weights + 2 * c.training for c in costs)
    return Need(host, stage) if on_gpu else Need(host + stage, 0)


def share(place: str, needed: int, free: int | None) -> tuple[str, float]:
    """Needed and free memory, for people, and the share of it; 0 if ``free`` is not known."""
    if free is None:
        return f"{place}: {bytes_text(needed)} needed; free memory is not known here", 0.0
    return f"{place}: {bytes_text(needed)} needed, {bytes_text(free)} free", needed / max(free, 1)
