"""The jobs that were submitted, in ``RUNS/jobs``.

============= =====================================================================================
``jobs.json`` the job of each run; only ``fmbpo submit`` and ``fmbpo cancel`` write it
``NAME.sh``   the script of an experiment's jobs, as it was last submitted
``NAME-N.txt`` the runs of an array, one per line
``plan.json`` the runs of experiments alone, which ``fmbpo status`` lists as a study's
``attempts/`` a file per run, which its jobs write: the node of each attempt, and its end
``logs/``     what the jobs print
============= =====================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import attrs

from fmbpo.base.files import DAMAGED, write_json
from fmbpo.base.structure import plain, read_as
from fmbpo.errors import UserError
from fmbpo.runs.plan import PlannedRun, read_plan, write_plan

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


def add_to_plan(root: Path, runs: Sequence[PlannedRun]) -> None:
    """Let ``fmbpo status`` list the runs of an experiment alone before they begin."""
    names, folder = {run.run for run in runs}, root / FOLDER
    write_plan(folder, "", [*(r for r in read_plan(folder) if r.run not in names), *runs])


def take_from_plan(root: Path, names: Collection[str]) -> None:
    """The opposite, for runs that will not begin."""
    folder = root / FOLDER
    if plan := read_plan(folder):
        write_plan(folder, "", [run for run in plan if run.run not in names])


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
