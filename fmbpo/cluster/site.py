"""The settings of a site: where its jobs run, and what they need there. Part of no run's identity.

::

    partition = "gpu"
    account = "robotics"
    gpus_per_job = 1
    setup = ["module load cuda/12.4"]
"""

from __future__ import annotations

from pathlib import Path

import attrs
from attrs import field

from fmbpo.base.files import display
from fmbpo.base.text import duration
from fmbpo.config import toml
from fmbpo.config.load import structured
from fmbpo.config.validators import non_negative, positive

VARIABLE = "FMBPO_SITE"
"""Environment variable for the file of this site."""


def _duration(_: object, __: object, value: str) -> None:
    if value:
        duration(value)


@attrs.frozen(kw_only=True)
class Site:
    """The keys of a site's file, and the options of ``fmbpo submit`` that override them."""

    partition: str = ""
    """SLURM's partition; by default the cluster's default."""
    account: str = ""
    """The account that pays."""
    qos: str = ""
    """The quality of service."""
    time: str = field(default="", validator=_duration)
    """The time limit of each job; by default from the preflight's estimate. A longer run continues
    in the same job, queued again."""
    memory: str = ""
    """The memory of each job per node, as for ``sbatch --mem``; by default from the estimate."""
    gpus_per_job: int = field(default=0, validator=non_negative)
    """GPUs of a job per node."""
    cpus_per_job: int = field(default=0, validator=non_negative)
    """Cores of a job per node; 0: the experiments' threads or simulators, whichever are more."""
    nodes_per_job: int = field(default=1, validator=positive)
    """Nodes of a job; of several, each has ``processes``."""
    processes: int = field(default=0, validator=non_negative)
    """Processes that train on a node; 0: one per GPU, or one."""
    setup: list[str] = field(factory=list)
    """Shell lines before the command, such as ``module load``."""
    container: str = ""
    """Words before the command, such as ``apptainer exec --nv fmbpo.sif``."""
    options: list[str] = field(factory=list)
    """Further options of ``sbatch``."""

    @property
    def members(self) -> int:
        """Processes that train on a node."""
        return self.processes or max(self.gpus_per_job, 1)


def load_site(path: Path) -> Site:
    """Read a site's file. Raises ``UserErrors`` with every mistake."""
    document = toml.read(path)
    return structured(document.tree, Site, document.origin, display(path))
