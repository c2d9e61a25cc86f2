"""One command's runs, and the result of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from fmbpo.distributed.group import ALONE, Group
from fmbpo.running.final_returns import Baselines
from fmbpo.runs.summary import Summary


@attrs.frozen(kw_only=True)
class Session:
    """One command's runs.

    ``root``: the folder of all run folders. ``say`` prints a progress line. ``draw`` draws the
    missing pictures of a complete run or study and returns all of them; it is called when the
    results are on the disk. ``expected``: seconds per run folder, if known. ``accept_versions``:
    whether to use complete parts of other plugin versions. ``wait``: whether to wait for another
    process that works on a part. ``group``: the processes of the run, which this one leads.
    """

    root: Path
    say: Callable[[str], None] = lambda line: None
    draw: Callable[[Path], Sequence[Path]] = lambda folder: ()
    expected: Mapping[Path, float] = attrs.field(factory=dict)
    accept_versions: bool = False
    wait: bool = True
    group: Group = ALONE
    baselines: Baselines = attrs.field(factory=dict, init=False)
    """Returns that later runs of the session share."""


@attrs.frozen
class Result:
    """The results of a run. ``models``: of a pretraining experiment, the summaries of its
    replicates; ``summary`` and ``folder`` are the last one's."""

    summary: Summary
    folder: Path
    models: Mapping[int, Summary] = attrs.field(factory=dict)
