"""Memory that a run needs, and what this machine has left.

On the device, for the stage that needs most::

    data + FRAGMENTATION * (state + max(update, evaluation))

``state``, ``update`` and ``evaluation`` are counted on shapes (``fmbpo.engine.preflight.dry``), all
cells of a group stacked. On the host, beside that where the device is the CPU::

    LIBRARIES + workers * WORKER + episodes * SIMULATION + weights + 2 * training state

the last two for a checkpoint, which is read whole; ``episodes``: those that run at once. Loading a
data set takes twice its rows for a moment: the arrays, and the rows packed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import torch

from fmbpo.engine.preflight.dry import Cost
from fmbpo.errors import UserError
from fmbpo.runs.progress import bytes_text
from fmbpo.tasks.mt30 import ACTION_WIDTH, OBS_WIDTH

FRAGMENTATION = 1.25
"""What allocators keep of freed pieces: glibc's takes up to 1.4 times the live bytes, of which the
count on shapes has a part; see docs/preflight.md for measurements."""
LIBRARIES = 150_000_000
"""Of what a run imports late: pictures, W&B."""
WORKER = 100_000_000
"""Of one process that simulates, MuJoCo and dm_control included."""
SIMULATION = 1_000_000
"""Of one episode's simulation in it."""
ROW = 4 * (OBS_WIDTH + ACTION_WIDTH + 1)
"""Bytes of a row of data: observation, action, reward, float32."""
TIGHT = 0.8
"""A need of more than this share of what is free is a warning."""
MEMINFO = Path("/proc/meminfo")
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


@attrs.frozen
class Need:
    """Bytes beyond those that the process has now, its data set loaded."""

    host: int
    device: int
    """0 where the device is the CPU."""


def need(costs: Sequence[Cost], workers: int, episodes: int, on_gpu: bool) -> Need:
    """Of stages one after another, of which the largest counts; ``workers`` processes simulate
    ``episodes`` at once."""
    stage = int(FRAGMENTATION * max(c.state + max(c.update, c.evaluation) for c in costs))
    host = LIBRARIES + workers * WORKER + episodes * SIMULATION
    host += max(c.weights + 2 * c.training for c in costs)
    return Need(host, stage) if on_gpu else Need(host + stage, 0)


def check_loading(rows: int, path: str) -> None:
    """``UserError`` where the data set cannot be loaded into the host's memory."""
    free = host_free()
    if free is not None and 2 * rows * ROW > free:
        raise UserError(
            f"{rows:,} rows need {bytes_text(2 * rows * ROW)} of memory while they are loaded, "
            f"{bytes_text(free)} are free",
            where=path,
            remedy="choose fewer tasks' data, or a machine with more memory",
        )


def share(place: str, needed: int, free: int | None) -> tuple[str, float]:
    """What is needed and free, for people, and the share of it; 0 where ``free`` is not known."""
    if free is None:
        return f"{place}: {bytes_text(needed)} needed; what is free is not known here", 0.0
    return f"{place}: {bytes_text(needed)} needed, {bytes_text(free)} free", needed / max(free, 1)


def host_free() -> int | None:
    """Bytes that this process can still take: ``MemAvailable``, and less where its control group
    (a container, a batch job) may not have as much. None where the system does not say."""
    found = [_available(), *_groups()]
    known = [free for free in found if free is not None]
    return min(known) if known else None


def device_free(device: torch.device) -> int:
    """Free bytes of a GPU, what torch has reserved and does not use included."""
    free, _ = torch.cuda.mem_get_info(device)
    reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    return int(free + reserved - used)


def _available() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


def _groups() -> list[int]:
    """Of the process's control group and of every one around it (version 2) that has a limit."""
    try:
        entry = next(x for x in OWN_CGROUP.read_text().splitlines() if x.startswith("0::"))
    except (OSError, StopIteration):
        return []
    place, found = CGROUPS / entry[3:].lstrip("/"), []
    for folder in (place, *place.parents):
        if not folder.is_relative_to(CGROUPS):
            break
        try:
            limit = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
            stat = (folder / "memory.stat").read_text().split()
        except (OSError, ValueError):
            continue
        if limit != "max":
            # Pages of files that can be given back at any time count as used there.
            cached = int(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else 0
            found.append(max(int(limit) - used + cached, 0))
    return found
