"""Submits the jobs of an experiment or a study, and cancels them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from fmbpo.base.files import disk_errors, write_text
from fmbpo.base.lock import RunLock
from fmbpo.base.text import clock, counted
from fmbpo.cluster import slurm
from fmbpo.cluster.graph import Job, Work, jobs_of
from fmbpo.cluster.lines import Lines
from fmbpo.cluster.record import (
    ATTEMPTS,
    FOLDER,
    Submitted,
    failed_nodes,
    read_jobs,
    take_from_plan,
    write_jobs,
)
from fmbpo.cluster.slurm import Scheduled
from fmbpo.errors import UserError

Say = Callable[[str], None]


def submit(
    root: Path,
    lines: Lines,
    works: Sequence[Work],
    *,
    base: int,
    begin: Callable[[], object],
    say: Say,
    dry: bool = False,
) -> None:
    """Submit the runs that are neither queued nor running, and a report behind all.

    Args:
        root: the folder of all runs.
        lines: the command lines of the jobs.
        works: the runs that are not complete, each behind those that it needs.
        base: bytes of a process that has loaded the data.
        begin: called when all jobs are queued. (Each of them does the same before it trains.)
        say: takes the graph and the lines.
        dry: only print them, and write nothing.

    Raises:
        UserError: a limit is not known, or SLURM refuses a job; then none of these is queued.
        Taken: another process submits or cancels here.
    """
    slurm.check_installed()
    with _alone(root, dry):
        known, seen = read_jobs(root), slurm.squeue()
        active = {run: one for run, one in known.items() if is_active(one, seen)}
        new = [
            attrs.evolve(work, avoided=failed_nodes(root, work.run))
            for work in works
            if work.run not in active
        ]
        shared = {work.run: active[work.run] for work in works if work.run in active}
        for run, one in shared.items():
            say(f"{run}: job {one.job} is {seen[one.job]}")
        if not new:
            say("nothing to submit: all runs are queued or running" if shared else DONE)
            return
        waiting = [work.run for work in works]
        elsewhere = any(o.startswith(("-p", "--partition")) for o in lines.site.options)
        longest = math.inf if elsewhere else slurm.longest(lines.site.partition)
        jobs = jobs_of(
            new, waiting, lines.site, base=base, report=bool(lines.report), longest=longest
        )
        ids = {run: one.job for run, one in shared.items()}
        keys = ids | {run: one for job in jobs for run, one in _ids(job, job.key).items()}
        for job in jobs:
            for line in job.describe(lines.site, keys):
                say(line)
        if not lines.site.time and any(job.runs and job.seconds == longest for job in jobs):
            say(f"no job is longer than {clock(longest)}, the partition's limit: a run that needs "
                "more is queued again, and continues")  # fmt: skip
        if dry:
            for job, file in zip(jobs, _files(lines, jobs), strict=True):
                say(shlex.join(lines.sbatch(job, file, ids)))
                ids |= _ids(job, job.key)
            return
        report = active.get(lines.name)
        known |= {run: _also_of(one, lines.name) for run, one in shared.items()}
        _queue(root, lines, jobs, {work.run: work for work in new}, known, ids)
        if report is not None:  # the new one waits for more
            slurm.scancel([report.job])
        begin()
    say(f"{counted(len(jobs), 'job')} submitted; follow them with `fmbpo status --runs {root}`")


DONE = "nothing to submit: everything is complete"


def _queue(
    root: Path,
    lines: Lines,
    jobs: Sequence[Job],
    works: Mapping[str, Work],
    known: Mapping[str, Submitted],
    ids: dict[str, str],
) -> None:
    """Submit the jobs and record each at once; if one is refused, cancel those before it."""
    folder, before, queued = root / FOLDER, read_jobs(root), list[str]()
    files = list(_files(lines, jobs))
    for inner in (folder / ATTEMPTS, folder / "logs"):
        with disk_errors(inner):
            inner.mkdir(parents=True, exist_ok=True)
    write_text(lines.script_file, lines.script)
    try:
        for job, file in zip(jobs, files, strict=True):
            if file:
                write_text(file, "".join(f"{run}\n" for run in job.runs))
            number = slurm.sbatch(lines.sbatch(job, file, ids))
            queued.append(number)
            ids |= _ids(job, number)
            mine = dict(_recorded(job, number, lines, works))
            known = {**known, **mine}
            write_jobs(root, known)
    except BaseException as error:
        slurm.scancel(queued)
        write_jobs(root, before)
        for written in filter(None, files):
            written.unlink(missing_ok=True)
        if not isinstance(error, UserError):
            raise
        what = f"{error.what}; nothing is queued"
        raise UserError(what, where=error.where, remedy=error.remedy) from error


def _files(lines: Lines, jobs: Sequence[Job]) -> Iterator[Path | None]:
    """The file of each array's runs, which no earlier array has; None for the report."""
    number = 0
    for job in jobs:
        number += 1
        while (file := lines.folder / f"{lines.name}-{number}.txt").exists():
            number += 1
        yield file if job.runs else None


def _ids(job: Job, number: str) -> dict[str, str]:
    return {run: f"{number}_{task}" for task, run in enumerate(job.runs, 1)}


def _recorded(
    job: Job, number: str, lines: Lines, works: Mapping[str, Work]
) -> Iterator[tuple[str, Submitted]]:
    for run, one in _ids(job, number).items():
        yield run, Submitted(one, lines.job_name, [lines.name], works[run].needs)
    if not job.runs:
        yield lines.name, Submitted(number, lines.job_name, [lines.name], job.behind)


def _also_of(one: Submitted, name: str) -> Submitted:
    return attrs.evolve(one, of=list(dict.fromkeys([*one.of, name])))


def is_active(one: Submitted, seen: Mapping[str, Scheduled]) -> bool:
    """Whether the job is queued or running. A job of another name has only the same id."""
    found = seen.get(one.job)
    return found is not None and found.name == one.name and found.active


def cancel(root: Path, name: str, say: Say) -> None:
    """Cancel the jobs that were submitted for an experiment or a study, and no longer needed.

    Raises ``UserError`` if none was submitted, and if SLURM does not answer; ``Taken`` as
    ``submit``.
    """
    slurm.check_installed()
    known = read_jobs(root)
    if not any(name in one.of for one in known.values()):
        there = sorted({other for one in known.values() for other in one.of})
        what = f"no job of {name} was submitted"
        remedy = f"submitted: {', '.join(there)}" if there else "give its --runs"
        raise UserError(what, where=str(root / FOLDER), remedy=remedy)
    with _alone(root):
        seen = slurm.squeue()
        mine = {run: one for run, one in known.items() if name in one.of and is_active(one, seen)}
        kept = {run: [o for o in one.of if o != name] for run, one in mine.items()}
        kept = {run: others for run, others in kept.items() if others}
        cancelled = [run for run in mine if run not in kept]
        slurm.scancel([mine[run].job for run in cancelled])
        take_from_plan(root, cancelled)
        known |= {run: attrs.evolve(known[run], of=others) for run, others in kept.items()}
        write_jobs(root, known)
    for run, one in mine.items():
        others = f", which {' and '.join(kept[run])} needs" if run in kept else ""
        what = "the report" if run == name else run
        say(f"{'kept' if others else 'cancelled'}: {what}, job {one.job}{others}")
    if not mine:
        say("nothing to cancel: no job is queued or running")
    say("everything saved is kept; `fmbpo submit` continues")


@contextmanager
def _alone(root: Path, dry: bool = False) -> Iterator[None]:
    """Nobody else submits or cancels inside the block."""
    if dry:
        yield
        return
    folder = root / FOLDER
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = RunLock(folder / "jobs.lock", folder)
    try:
        yield
    finally:
        lock.release()
