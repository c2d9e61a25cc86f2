"""The jobs that were submitted, in ``RUNS/jobs``.

============= =====================================================================================
``jobs.json`` the job of each run; only ``fmbpo submit`` and ``fmbpo cancel`` write it
``NAME.sh``   the script of an experiment's jobs, as it was last submitted
``NAME-N.txt`` the runs of an array, one per line
``attempts/`` a file per run, which its jobs write: the node of each attempt, and its end
``logs/``     what the jobs print
============= =====================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from fmbpo.base.files import DAMAGED, write_json
from fmbpo.base.structure import plain, read_as
from fmbpo.errors import UserError

FOLDER, FILE, ATTEMPTS = "jobs", "jobs.json", "attempts"
FAILURES = 2
"""Attempts that ended with their node, after which a job avoids that node."""


@attrs.frozen
class Submitted:
    """A run's job. ``job``: ``JOB`` or ``ARRAY_TASK``; ``name``: SLURM's for it; ``of``: the
    experiments that need it; ``behind``: the runs that it waits for."""

    job: str
    name: str
    of: Sequence[str]
    behind: Sequence[str]


def read_jobs(root: Path) -> dict[str, Submitted]:
    """The jobs by run. Raises ``UserError`` for a damaged file."""
    file = root / FOLDER / FILE
    if not file.exists():
        return {}
    found = read_as(file, Mapping[str, Submitted])  # type: ignore[type-abstract]
    if found is None:
        raise UserError("it does not list jobs", where=str(file), remedy=DAMAGED)
    return dict(found)


def write_jobs(root: Path, jobs: Mapping[str, Submitted]) -> None:
    """Replace the list."""
    write_json(root / FOLDER / FILE, plain(jobs))


def failed_nodes(root: Path, run: str) -> list[str]:
    """The nodes that ``FAILURES`` attempts at a run did not survive."""
    try:
        lines = (root / FOLDER / ATTEMPTS / f"{run}.txt").read_text().splitlines()
    except OSError:
        return []
    failed, node = Counter[str](), ""
    for word, *rest in filter(None, map(str.split, lines)):
        failed[node] += word == "begin"
        node = rest[0] if word == "begin" and rest else ""
    failed[node] += 1
    return sorted(name for name, times in failed.items() if name and times >= FAILURES)
