"""How many cores this process may use."""

from __future__ import annotations

import contextlib
import os
import re

from fmbpo.base.control_groups import folders

_SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")


def usable_cores() -> int:
    """The cores that this process may use, at least one: the least of its affinity, of the quotas
    of its control groups (rounded down), and of its SLURM job's share."""
    found: list[float] = [len(os.sched_getaffinity(0)), *_quotas()]
    said = (os.environ.get(name, "") for name in _SLURM)
    found += [int(number) for number in said if re.fullmatch(r"\d{1,9}", number, re.ASCII)]
    return max(1, int(min(found)))


def _quotas() -> list[float]:
    """In cores; none for a group without a limit."""
    found = []
    for folder in folders("cpu"):
        for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):  # versions 2 and 1
            with contextlib.suppress(OSError, ValueError):  # a ValueError: the quota is "max"
                quota, period = map(int, " ".join((folder / f).read_text() for f in files).split())
                found += [quota / period] if quota > 0 else []
    return found
