"""The scheduler's state beside ours, for ``fmbpo status``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from fmbpo.cluster import slurm
from fmbpo.cluster.record import Submitted, read_jobs
from fmbpo.cluster.slurm import Scheduled
from fmbpo.cluster.submitting import is_active
from fmbpo.errors import UserError
from fmbpo.runs.status import Entry


@attrs.frozen
class Watched:
    """``entries`` with jobs; ``reports``: a line per report that is queued or running; ``warning``
    if SLURM does not answer."""

    entries: Sequence[Entry]
    reports: Sequence[str] = ()
    warning: str = ""


def watch(root: Path, entries: Sequence[Entry]) -> Watched:
    """Add the job of each run that was submitted, and SLURM's state of it.

    Without submitted jobs, SLURM is not asked. Raises ``UserError`` for a damaged list of jobs.
    """
    jobs = read_jobs(root)
    if not jobs:
        return Watched(entries)
    seen: Mapping[str, Scheduled] | None = None
    warning = ""
    if shutil.which("squeue"):
        try:
            seen = slurm.squeue()
            gone = [one.job for one in jobs.values() if one.job not in seen]
            seen = {**(slurm.sacct(gone) if gone else {}), **seen}
        except UserError as error:
            warning = f"SLURM's states are not known: {error.what}"
    states = {Path(entry.folder).name: entry for entry in entries}
    found = [_with_job(entry, jobs, seen, states) for entry in entries]
    reports = [
        f"report of {run}: job {one.job}, {seen[one.job]}"
        for run, one in jobs.items()
        if seen is not None and run in one.of and is_active(one, seen)
    ]
    return Watched(found, reports, warning)


def _with_job(
    entry: Entry,
    jobs: Mapping[str, Submitted],
    seen: Mapping[str, Scheduled] | None,
    states: Mapping[str, Entry],
) -> Entry:
    """The entry with its job, SLURM's state if known, and the reason why it cannot begin."""
    one = jobs.get(Path(entry.folder).name)
    if one is None:
        return entry
    job = entry.job or one.job
    if seen is None or job != one.job:  # begun by hand later
        return attrs.evolve(entry, job=job)
    found = seen.get(one.job)
    found = found if found is not None and found.name == one.name else None
    state = str(found) if found else "" if entry.state == "completed" else "not queued"
    reason = entry.reason
    if entry.state == "queued" and not is_active(one, seen):
        reason = next(filter(None, (_blocked(states.get(run)) for run in one.behind)), reason)
    return attrs.evolve(entry, job=job, scheduler=state, reason=reason)


def _blocked(needed: Entry | None) -> str:
    """Why a run cannot begin that needs this one; empty if it can."""
    if needed is None or needed.state not in ("failed", "stale", "stopped"):
        return ""
    name = Path(needed.folder).name
    return f"its world model {name} {needed.state}: {needed.reason}".removesuffix(": ")
