"""The script of an experiment's jobs, and the line of ``sbatch`` that submits each."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import attrs

from fmbpo.cluster.graph import Job
from fmbpo.cluster.record import FAILURES
from fmbpo.cluster.site import Site

_TEMPLATE = Path(__file__).with_name("job.sh")
_MEMBER = (
    "export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS "
    "LOCAL_WORLD_SIZE={processes} MASTER_ADDR=$SLURM_LAUNCH_NODE_IPADDR "
    "MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000)) TORCHELASTIC_RUN_ID=$SLURM_JOB_ID; "
    'exec "$@"'
)
"""A process of several nodes, which srun starts in place of torchrun: its environment is the same,
and fmbpo's exit status arrives."""


@attrs.frozen(kw_only=True)
class Lines:
    """The command lines of an experiment's jobs.

    ``name``: the experiment's; ``command``: ``run FILE ...``, the words that do all its runs;
    ``report``: those that write its report, each a command; ``folder``: of the jobs.
    """

    name: str
    command: Sequence[str]
    report: Sequence[Sequence[str]]
    site: Site
    folder: Path
    here: Path
    cores: int

    @property
    def job_name(self) -> str:
        """SLURM's name of the jobs."""
        return f"fmbpo-{self.name}"

    @property
    def script_file(self) -> Path:
        """The script of the jobs."""
        return self.folder / f"{self.name}.sh"

    @property
    def script(self) -> str:
        """Its text."""
        run = [*self._fmbpo(), *self.command]
        several = self.site.nodes_per_job > 1
        if several:
            member = _MEMBER.format(processes=self.site.members)
            run = ["srun", "bash", "-c", member, "fmbpo", *run]
        elif self.site.members > 1:
            run += ["--processes", str(self.site.members)]
        report = " &&\n  ".join(shlex.join([*self._fmbpo(), *words]) for words in self.report)
        return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
            name=self.name,
            script=shlex.quote(str(self.script_file)),
            jobs=shlex.quote(str(self.folder)),
            setup="".join(f"\n{line}" for line in self.site.setup),
            report=report or "true",
            run=shlex.join(run),
            failures=FAILURES,
        )

    def _fmbpo(self) -> list[str]:
        """This installation, or that of the container."""
        if self.site.container:
            return [*shlex.split(self.site.container), "fmbpo"]
        return [sys.executable, "-P", "-m", "fmbpo"]

    def sbatch(self, job: Job, runs: Path | None, ids: Mapping[str, str]) -> list[str]:
        """The words that submit a job. ``runs``: the file of its runs; ``ids``: the job of each run
        that is queued or running."""
        site = self.site
        log = "%x-%A_%a.txt" if runs else "%x-report-%j.txt"
        options = {
            "job-name": self.job_name,
            "chdir": self.here,
            "output": self.folder / "logs" / log,
            "open-mode": "append",
            "partition": site.partition,
            "account": site.account,
            "qos": site.qos,
            "time": _time(job.seconds),
            "mem": job.memory,
            "exclude": ",".join(job.avoided),
            "gres": f"gpu:{site.gpus_per_job}" if site.gpus_per_job else "",
        }
        behind = list(dict.fromkeys(ids[run] for run in job.behind if run in ids))
        words = ["sbatch", "--parsable", *(f"--{k}={v}" for k, v in options.items() if v)]
        if runs:
            words += [f"--array=1-{len(job.runs)}", "--requeue", *self._tasks()]
            words.append(f"--signal=B:USR1@{job.warning}")
            words += ["--kill-on-invalid-dep=yes"] if behind else []
        if behind:
            words.append(f"--dependency={'afterok' if runs else 'afterany'}:{':'.join(behind)}")
        return [*words, *site.options, str(self.script_file), *([str(runs)] if runs else [])]

    def _tasks(self) -> list[str]:
        """The options for the nodes, processes and cores of a run."""
        site = self.site
        if site.nodes_per_job == 1:
            return [f"--cpus-per-task={self.cores}"]
        each = max(self.cores // site.members, 1)
        nodes = [f"--nodes={site.nodes_per_job}", f"--ntasks-per-node={site.members}"]
        return [*nodes, f"--cpus-per-task={each}"]


def _time(seconds: float) -> str:
    """In SLURM's format ``D-HH:MM:SS``."""
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"{day}-{hour:02}:{minute:02}:{second:02}"
