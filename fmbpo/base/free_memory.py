"""The memory that the host and a GPU have for this process, as the system reports it."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import torch

from fmbpo.base.control_groups import folders
from fmbpo.base.text import text_of

MEMINFO = Path("/proc/meminfo")
SMALLER = (
    "lower the batch, the horizon, the networks' widths, policy_learning.stack (policies trained "
    "at once), the samples of the planner, or the episodes or workers of the evaluation"
)
"""The remedy if memory is short."""
_SAID = ("alloc_cpu", "out of memory", "ALLOC_FAILED", "tion overflow")
"""What torch says of tensors too large for the memory, or for the number of their bytes."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory is short."""
    if isinstance(error, RuntimeError):
        return any(words in text_of(error) for words in _SAID)
    return isinstance(error, MemoryError)


def host_free() -> int | None:
    """Bytes that this process can still allocate: ``MemAvailable``, or less if its control group
    (a container, a batch job) has less left; None if unknown."""
    left = [max(limit - used, 0) for limit, used in _groups()]
    return min([*_meminfo("MemAvailable"), *left], default=None)


def host_total() -> int | None:
    """Bytes of this machine's memory, or the control group's limit if lower; None if unknown."""
    return min([*_meminfo("MemTotal"), *(limit for limit, _ in _groups())], default=None)


def resident() -> int:
    """Bytes of this process in memory; 0 if unknown."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def device_free(device: torch.device) -> int:
    """Free bytes of a GPU, including those that torch has reserved and does not use."""
    free, _ = torch.cuda.mem_get_info(device)
    reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    return int(free + reserved - used)


def total(device: torch.device) -> int | None:
    """Bytes of all the memory that tensors on a device can have; None if unknown."""
    return device_total(device) if device.type == "cuda" else host_total()


def device_total(device: torch.device) -> int:
    """Bytes of a GPU's memory."""
    return int(torch.cuda.get_device_properties(device).total_memory)


def _meminfo(key: str) -> list[int]:
    """The bytes in this row of the file; an empty list if there is no such row."""
    with contextlib.suppress(OSError):
        rows = (line.split() for line in MEMINFO.read_text().splitlines())
        return [int(row[1]) * 1024 for row in rows if row[:1] == [f"{key}:"]]
    return []


def _groups() -> list[tuple[int, int]]:
    """Limit and use in bytes of the process's control groups (version 2) that have a limit."""
    found = []
    for folder in folders("memory"):
        try:
            limit = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
            stat = (folder / "memory.stat").read_text().split()
        except (OSError, ValueError):
            continue
        if limit != "max":
            # ``memory.current`` counts cached file pages, which the kernel can free at any time.
            cached = int(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else 0
            found.append((int(limit), used - cached))
    return found
