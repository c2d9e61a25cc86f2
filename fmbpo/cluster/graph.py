"""The jobs of an experiment or a study: its runs in arrays, each array behind the runs it needs.

::

    time   = TIMES * the preflight's estimate + START, in steps of STEP; at most the partition's
    memory = memory of the process that made it + TIMES_MEMORY * the preflight's need, in steps

Jobs that are alike, in resources and in the runs that they wait for, are one array.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from fmbpo.base.text import clock, counted, duration, listed
from fmbpo.cluster.site import Site
from fmbpo.errors import UserError, UserErrors

TIMES, START, STEP = 1.5, 600.0, 300
"""Factor, and seconds for the start of a job (imports, data, preflight); seconds of a step."""
TIMES_MEMORY, STEP_MEMORY = 1.25, 2**28
"""Factor, and bytes of a step."""
REPORT_TIME, REPORT_MEMORY = 3600.0, 2 * 2**30
"""The most seconds of the report's job, and its bytes beyond those of the process."""
EARLIEST, SHARE = 300.0, 0.25
"""Seconds before the time limit at which SLURM warns a job; at most this share of the limit."""


@attrs.frozen
class Work:
    """A run that is to be done: the runs that it ``needs``, its expected seconds and bytes (None if
    not known), and the nodes that it avoids."""

    run: str
    needs: Sequence[str] = ()
    seconds: float | None = None
    memory: int | None = None
    avoided: Sequence[str] = ()


@attrs.frozen
class Job:
    """A job to submit. ``key``: its name in the graph; ``runs``: an array, or the report if there
    are none; ``behind``: the runs, or all jobs if it is the report, that it waits for; ``seconds``
    and ``memory`` (as for ``sbatch --mem``) are its limits."""

    key: str
    runs: Sequence[str]
    behind: Sequence[str]
    seconds: float
    memory: str
    avoided: Sequence[str] = ()

    @property
    def warning(self) -> int:
        """Seconds before the time limit at which SLURM warns the job."""
        return int(min(EARLIEST, SHARE * self.seconds))

    def describe(self, site: Site, keys: Mapping[str, str]) -> Iterable[str]:
        """Lines for people. ``keys``: the job of each run that is not complete."""
        jobs = list(dict.fromkeys(keys[run] for run in self.behind if run in keys))
        if self.runs:
            behind = f" behind {listed(jobs, 'and')}" if jobs else ""
            what = f"{counted(len(self.runs), 'run')}{behind}"
        else:
            what = "the report, behind all"
        gpus = f", {counted(site.gpus_per_job, 'GPU')}" if site.gpus_per_job else ""
        nodes = f", {site.nodes_per_job} nodes" if self.runs and site.nodes_per_job > 1 else ""
        each = " each" if len(self.runs) > 1 else ""
        yield f"{self.key}  {what}: {clock(self.seconds)}, {self.memory}{gpus}{nodes}{each}"
        yield from (f"    {run}" for run in self.runs)


def jobs_of(
    works: Sequence[Work],
    waiting: Collection[str],
    site: Site,
    *,
    base: int,
    report: bool,
    longest: float = math.inf,
) -> list[Job]:
    """The jobs for ``works``, those that others wait for first.

    Args:
        works: the runs to submit.
        waiting: these and the runs whose jobs are queued or running already.
        site: its time and memory win over the estimates.
        base: bytes of this process, which has what a job loads.
        report: whether a report ends the graph.
        longest: seconds that the site allows; a run that needs more continues in the same job,
            which is queued again.

    Raises:
        UserErrors: the time or the memory of a run is not known, and the site does not give it.
    """
    found: dict[tuple[object, ...], list[str]] = {}
    wrong: list[UserError] = []
    for work in works:
        try:
            limits = _seconds(work, site, longest), _memory(work, site, base)
        except UserError as error:
            wrong.append(error)
            continue
        behind = tuple(run for run in work.needs if run in waiting)
        found.setdefault((behind, *limits, tuple(work.avoided)), []).append(work.run)
    if wrong:
        raise UserErrors(wrong)
    jobs = [
        Job(f"J{number}", runs, *alike)  # type: ignore[arg-type]
        for number, (alike, runs) in enumerate(
            sorted(found.items(), key=lambda one: bool(one[0][0])), 1
        )
    ]
    if report:
        everything = list(waiting)
        memory = site.memory or _rounded(base + REPORT_MEMORY)
        seconds = min(REPORT_TIME, duration(site.time) if site.time else longest)
        jobs.append(Job(f"J{len(jobs) + 1}", [], everything, seconds, memory))
    return jobs


def _seconds(work: Work, site: Site, longest: float) -> float:
    if site.time:
        return duration(site.time)
    if work.seconds is None:
        what = "the preflight does not know how long it takes"
        raise UserError(what, where=work.run, remedy="give --time")
    return min(math.ceil((TIMES * work.seconds + START) / STEP) * STEP, longest)


def _memory(work: Work, site: Site, base: int) -> str:
    if site.memory:
        return site.memory
    if work.memory is None:
        what = "the preflight does not know how much memory it needs"
        raise UserError(what, where=work.run, remedy="give --mem")
    return _rounded(base + TIMES_MEMORY * work.memory)


def _rounded(count: float) -> str:
    """Bytes in whole steps, in SLURM's MB."""
    return f"{math.ceil(count / STEP_MEMORY) * STEP_MEMORY // 2**20}M"
