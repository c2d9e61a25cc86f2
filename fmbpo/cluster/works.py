"""The runs of an experiment that are still to do, with their needs; and settings that fix them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fmbpo.cluster.graph import Work
from fmbpo.cluster.site import Site
from fmbpo.config.schema import Experiment
from fmbpo.errors import UserError
from fmbpo.running.earlier import finished
from fmbpo.running.preflight import Report
from fmbpo.running.run import Runner
from fmbpo.runs.folder import RunFolder


def works_of(runners: Iterable[Runner], report: Report, root: Path) -> list[Work]:
    """The runs that are not complete, world models first; those that cells share count once."""
    found: dict[str, Work] = {}
    for runner in runners:
        e, names = runner.experiment, runner.names
        if finished(e, names, root) is not None:
            continue
        models = [
            run for run in names.pretraining.values() if not RunFolder(root / run).is_complete
        ]
        left: list[tuple[str, Sequence[str]]] = [(run, []) for run in models]
        left += [(names.policies, models)] if names.policies else []
        for run, needs in left:
            at = root / run
            found[run] = Work(run, needs, report.seconds.get(at), report.memory.get(at))
    return sorted(found.values(), key=lambda work: bool(work.needs))


def check_device(runners: Iterable[Runner], site: Site) -> None:
    """Raise ``UserError`` if jobs would have another device than the preflight had: names of runs,
    and estimates, depend on it."""
    on_gpu = any(runner.device.type == "cuda" for runner in runners)
    if on_gpu and not site.gpus_per_job:
        raise UserError(
            "the experiment would use a GPU, and its jobs ask for none",
            where="--gpus-per-job",
            remedy="give --gpus-per-job 1, or -o system.device=cpu",
        )
    if site.gpus_per_job and not on_gpu:
        raise UserError(
            "the jobs ask for GPUs, and the experiment would use the CPU here: the preflight "
            "cannot know what they need",
            where="--gpus-per-job",
            remedy="submit from a node that has one: srun --gres=gpu:1 fmbpo submit ...",
        )


def pinned(before: Sequence[Experiment], runners: Sequence[Runner]) -> Iterator[str]:
    """Overrides for what "auto" meant here, if it is the same for all: a node with other memory
    must not give a run another name."""
    pairs = [(e, runner.experiment) for e, runner in zip(before, runners, strict=True)]
    found: dict[str, set[tuple[str, str]]] = {
        "data.residence": {(e.data.residence, now.data.residence) for e, now in pairs},
        "system.precision": {(e.system.precision, now.system.precision) for e, now in pairs},
    }
    for key, values in found.items():
        if len(values) == 1 and (pair := values.pop())[0] == "auto":
            yield f"{key}={pair[1]}"
