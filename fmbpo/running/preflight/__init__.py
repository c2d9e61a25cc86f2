"""Checks before training: mistakes, and the memory, disk and time that a run needs.

The results of a run do not depend on it: generators and torch's threads are left as they were.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TextIO

import attrs
import torch

from fmbpo.base.text import clock
from fmbpo.config.schema import Experiment
from fmbpo.config.study_file import Study
from fmbpo.distributed.group import ALONE, Group
from fmbpo.errors import UserError, UserErrors
from fmbpo.measure.evaluation import threads
from fmbpo.running.preflight import duration
from fmbpo.running.preflight.inputs import (
    Candidate,
    Loaded,
    find_data,
    find_earlier,
    find_store,
    find_tasks,
    find_world_model,
    text_of_processes,
)
from fmbpo.running.preflight.needs import Needs
from fmbpo.running.preflight.registration import check_registration
from fmbpo.running.preflight.table import Rows, print_rows
from fmbpo.training.device import resolve_device
from fmbpo.training.precision import resolve_precision


@attrs.frozen
class Report:
    """The findings of a preflight."""

    rows: Rows
    loaded: list[Loaded]
    """The loaded data sets, for the runs."""
    seconds: Mapping[Path, float]
    """Expected duration of each run folder that is not complete; absent if not known."""
    memory: Mapping[Path, int]
    """Bytes that each of these needs on the host, beyond those of this process; absent if not
    known."""
    known: bool
    """Whether all durations are known."""

    def raise_failures(self) -> None:
        """Raise ``UserErrors`` with all failures, if there are any."""
        errors = []
        for row in self.rows:
            if row.error is not None:
                place = f"cell {' and '.join(row.cells)}: " if row.cells else ""
                where = f"{place}{row.error.where}".removesuffix(": ")
                errors.append(UserError(row.error.what, where=where, remedy=row.remedy))
        if errors:
            raise UserErrors(errors)

    def print(self, stream: TextIO) -> None:
        """Print the table, and a summary line below it."""
        print_rows(self.rows, stream)
        print(self.line, file=stream, flush=True)

    @property
    def expected(self) -> str:
        """The expected duration of everything; empty if not known."""
        if not self.known:
            return ""
        if not self.seconds:
            return "everything is complete already"
        total = sum(self.seconds.values())
        return f"about {clock(total)}" if total >= duration.SHORT else "under a minute"

    @property
    def line(self) -> str:
        """``preflight: all 7 checks ok, about 0:09:30``, or the number of failures and warnings."""
        statuses = [row.status for row in self.rows]
        bad = {s: statuses.count(s) for s in ("FAILED", "warning")}
        said = ", ".join(f"{n} {s}{'s' * (s != 'FAILED' and n > 1)}" for s, n in bad.items() if n)
        checks = f"{said} of {len(statuses)} checks" if said else f"all {len(statuses)} checks ok"
        return "preflight: " + ", ".join(filter(None, (checks, self.expected)))


def preflight(
    cells: Mapping[str, Experiment],
    root: Path,
    *,
    study: Study | None = None,
    thorough: bool = True,
    traceback: Path | None = None,
    accept_versions: bool = False,
    group: Group = ALONE,
    only: Collection[str] = (),
    apart: bool = False,
) -> Report:
    """Check experiments whose runs go under ``root``; a single one is the cell ``""``.

    ``study``: the study whose cells they are. ``thorough``: try tiny updates and measure paces even
    if a run will be short. ``traceback``: the folder for a plugin's traceback; None: write nothing.
    ``accept_versions``: use complete parts of other plugin versions. ``group``: the processes that
    will train. ``only``: the names of the runs to train; the needs are theirs alone. ``apart``: a
    command of its own does each run.
    """
    rows, loaded = Rows(), list[Loaded]()
    needs = Needs(rows, root, traceback, group, only, apart)
    known, gpus = True, range(torch.cuda.device_count())
    candidates: list[Candidate] = []
    for cell, e in cells.items():
        with threads(e.system.threads, group.local_size), torch.random.fork_rng(devices=gpus):
            one = Candidate(cell, e, accept_versions)
            known &= _check(one, root, rows, needs, loaded, thorough, group)
            candidates.append(one)
    if study is not None:
        check_registration(rows, study, candidates, root)
    if needs.parts:
        needs.disk()
    found = Report(rows, loaded, needs.seconds, needs.host, known)
    if found.expected:
        rows.ok("", "duration", f"{found.expected} in all" if found.seconds else found.expected)
    return found


def _check(
    one: Candidate,
    root: Path,
    rows: Rows,
    needs: Needs,
    loaded: list[Loaded],
    thorough: bool,
    group: Group,
) -> bool:
    """Make all checks of one experiment; returns whether its duration is known."""
    cell, e = one.cell, one.experiment
    rows.ok(cell, "configuration", f"{e.name} at scale {e.scale} ({e.scale_reason})")
    one.device = rows.attempt(cell, "device", lambda: resolve_device(e.system.device))
    if (device := one.device) and (e.system.precision != "auto" or device.type == "cuda"):
        chosen = e.system.precision
        rows.found(cell, "precision", lambda: resolve_precision(chosen, device))
    if group.size > 1:
        rows.ok(cell, "processes", text_of_processes(e, group, needs.together(len(e.grid.seeds))))
    one.store = rows.attempt(cell, "data", lambda: find_store(e))
    one.name(rows)
    if needs.leaves_out(one):
        return True
    if find_earlier(rows, one, root):
        return True
    find_world_model(rows, one, root, needs.traceback)
    find_data(rows, one, loaded)
    find_tasks(rows, one)
    parts = needs.of(one) if one.device else None
    if one.data and not rows.failed(cell):
        needs.try_out(one, parts, thorough)
    return parts is not None and all(part.folder in needs.seconds for part in parts)
