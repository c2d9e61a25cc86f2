"""Before anything trains: all that can be wrong, and the memory, disk and time that a run needs.

``Preflight`` checks an experiment, or the cells of a study one by one. Nothing that a run computes
depends on it: generators and torch's threads are left as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import attrs
import torch

from fmbpo.base.text import clock
from fmbpo.config.schema import Experiment
from fmbpo.running.preflight import duration
from fmbpo.running.preflight.candidate import Candidate
from fmbpo.running.preflight.inputs import (
    Loaded,
    find_data,
    find_store,
    find_tasks,
    find_world_model,
)
from fmbpo.running.preflight.needs import Needs
from fmbpo.running.preflight.remaining import complete
from fmbpo.running.preflight.table import Row, Rows, print_rows, raise_failures, summary_line
from fmbpo.runs.folder import worker
from fmbpo.training.device import resolve_device


@attrs.frozen
class Report:
    """The findings of a preflight."""

    rows: list[Row]
    loaded: list[Loaded]
    """The data sets that it loaded, for whoever runs the experiments."""
    seconds: Mapping[Path, float]
    """Expected of each run folder that is still to fill; absent if not known."""
    known: bool
    """Whether it is known of all of them."""

    def raise_failures(self) -> None:
        """``UserErrors`` with all that failed, where something did."""
        raise_failures(self.rows)

    def print(self, stream: TextIO) -> None:
        """The table, and all of it in a line below."""
        print_rows(self.rows, stream)
        print(self.line, file=stream, flush=True)

    @property
    def expected(self) -> str:
        """Of everything, for people; empty if not known."""
        total = sum(self.seconds.values())
        if not self.known:
            return ""
        if not self.seconds:
            return "everything is there already"
        return f"about {clock(total)}" if total >= duration.SHORT else "under a minute"

    @property
    def line(self) -> str:
        """All of it in a line."""
        return summary_line(self.rows, self.expected)


def preflight(
    cells: Mapping[str, Experiment],
    root: Path,
    *,
    thorough: bool = True,
    traceback: Path | None = None,
) -> Report:
    """Check experiments whose runs go under ``root``; a single one is the cell ``""``.

    ``thorough``: tiny updates are made and paces measured, however short a run will be.
    ``traceback``: the folder where a plugin's traceback is kept; None: nothing is written.
    """
    rows, loaded = Rows(), list[Loaded]()
    needs = Needs(rows, root, traceback)
    known = True
    for cell, e in cells.items():
        with duration.threads(e.system.threads), _generators_kept():
            one = Candidate(cell, e)
            known = _check(one, root, rows, needs, loaded, thorough) and known
    if needs.parts:
        needs.disk()
    found = Report(list(rows), loaded, needs.seconds, known)
    if found.expected:
        rows.ok("", "duration", f"{found.expected} in all" if found.seconds else found.expected)
    return attrs.evolve(found, rows=list(rows))


def _check(
    one: Candidate, root: Path, rows: Rows, needs: Needs, loaded: list[Loaded], thorough: bool
) -> bool:
    """All checks of one experiment; whether its duration is known."""
    cell, e = one.cell, one.experiment
    rows.ok(cell, "configuration", f"{e.name} at scale {e.scale} ({e.scale_reason})")
    one.device = rows.attempt(cell, "device", lambda: resolve_device(e.system.device))
    one.store = rows.attempt(cell, "data", lambda: find_store(e.data))
    one.name(rows)
    if one.names:
        names = one.names
        if rows.attempt(cell, "runs", lambda: complete(e, names, root)):
            rows.ok(cell, "runs", f"{names[1] or names[0]} is complete")
            return True
        rows.ok(cell, "runs", "\n".join(filter(None, names)))
        for name in filter(None, names):
            if at_work := worker(root / name):
                wait = "wait for it, or stop it: until then this run cannot begin"
                rows.warn(cell, "runs", f"{name} is being worked on by {at_work}", wait)
    find_world_model(rows, one, root, needs.traceback)
    find_data(rows, one, loaded)
    find_tasks(rows, one)
    parts = needs.of(one) if one.device else None
    if one.data and not rows.failed(cell):
        needs.try_out(one, parts, thorough)
    return parts is not None and all(part.folder in needs.seconds for part in parts)


@contextmanager
def _generators_kept() -> Iterator[None]:
    """torch's global generators are afterwards as they were before."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield
