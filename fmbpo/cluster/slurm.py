"""SLURM's commands: ``sbatch``, ``squeue``, ``sacct``, ``scancel``, ``sinfo``."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress

import attrs

from fmbpo.base.text import duration, one_line
from fmbpo.errors import UserError

PATIENCE = 60
"""Seconds after which a command of SLURM's counts as failed."""
_ACTIVE = (
    *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING"),
    *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD", "STAGE_OUT"),
    "COMPLETING",  # also one that is about to be queued again
)
_HERE = ("SLURM_CONF",)
"""Variables of SLURM's that do not describe a job."""


@attrs.frozen
class Scheduled:
    """A job as SLURM knows it. ``state`` in SLURM's words; ``reason`` why it waits."""

    name: str
    state: str
    reason: str = ""

    @property
    def active(self) -> bool:
        """Whether it is queued or running, and can still begin."""
        return self.state in _ACTIVE and self.reason != "DependencyNeverSatisfied"

    def __str__(self) -> str:
        waits = self.state == "PENDING" and self.reason not in ("", "None")
        return f"{self.state} ({self.reason})" if waits else self.state


def check_installed() -> None:
    """Raise ``UserError`` if this machine cannot submit jobs."""
    if shutil.which("sbatch") is None:
        what = "SLURM's sbatch is not on this machine"
        remedy = "log in to a node of the cluster; `fmbpo run` needs no SLURM"
        raise UserError(what, where="PATH", remedy=remedy)


def sbatch(words: Sequence[str]) -> str:
    """Submit a job; returns its id. Raises ``UserError`` with sbatch's words."""
    return _said(*words).strip().split(";")[0]  # ID;CLUSTER in a federation


def squeue() -> dict[str, Scheduled]:
    """The user's jobs that SLURM still knows, ``JOB`` or ``ARRAY_TASK``. Raises ``UserError`` if
    SLURM does not answer."""
    form = "--format=%i|%j|%T|%r"
    lines = _said("squeue", "--me", "--array", "--noheader", "--states=all", form)
    return _jobs(lines)


def sacct(jobs: Sequence[str]) -> dict[str, Scheduled]:
    """Past jobs, if the site records them; else none."""
    what = ["--noheader", "--parsable2", "--allocations", "--format=JobID,JobName,State"]
    try:
        return _jobs(_said("sacct", *what, f"--jobs={','.join(jobs)}"))
    except UserError:
        return {}


def scancel(jobs: Sequence[str]) -> None:
    """Cancel jobs; those that have ended are ignored. Raises ``UserError`` as ``squeue``."""
    if jobs:
        _said("scancel", "--quiet", *jobs)


def longest(partition: str) -> float:
    """Seconds of the longest job in these partitions (``a,b``; empty: the default), infinite if
    none has a limit. Of several, the shortest counts, since SLURM chooses one."""
    partition = partition or os.environ.get("SBATCH_PARTITION", "")
    wanted = partition.split(",") if partition else []
    limits = [math.inf]
    for line in _said("sinfo", "--noheader", "--format=%P|%l").splitlines():
        name, limit = line.split("|")
        mine = name.removesuffix("*") in wanted if wanted else name.endswith("*")
        if mine:
            with suppress(ValueError):  # infinite, or more than a year
                limits.append(duration(limit))
    return min(limits)


def _jobs(lines: str) -> dict[str, Scheduled]:
    rows = (line.split("|") for line in lines.splitlines() if line)
    # sacct says "CANCELLED by 1000".
    return {job: Scheduled(name, state.split(" ")[0], *why) for job, name, state, *why in rows}


def _said(*words: str) -> str:
    """What the command prints, without the job that this process may be part of: its variables
    would be options of the new one."""
    mine = ("SLURM_", "SBATCH_") if "SLURM_JOB_ID" in os.environ else ()
    env = {k: v for k, v in os.environ.items() if k in _HERE or not k.startswith(mine)}
    try:
        done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{words[0]} does not answer within {PATIENCE} s",
            where="SLURM",
            remedy="try again later; `sinfo` shows whether SLURM works",
        ) from error
    except OSError as error:
        what = f"{words[0]} cannot be started ({error.strerror})"
        raise UserError(what, where="SLURM", remedy="log in to a node of the cluster") from error
    if done.returncode:
        said = one_line(done.stderr) or f"exit status {done.returncode}"
        remedy = f"mend the cause, then repeat the command; it called: {shlex.join(words)}"
        raise UserError(said.removeprefix(f"{words[0]}: "), where=words[0], remedy=remedy)
    return done.stdout
