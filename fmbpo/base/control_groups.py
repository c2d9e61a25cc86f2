"""The control groups that limit this process: a container's, a batch job's."""

from __future__ import annotations

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def folders(controller: str) -> list[Path]:
    """The folders of the process's control group and of every one around it: those of version 2,
    and those of ``controller`` in version 1. They need not exist."""
    found: list[Path] = []
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controller if controllers else CGROUPS
        place = root / path.lstrip("/")
        found += [folder for folder in (place, *place.parents) if folder.is_relative_to(root)]
    return found
