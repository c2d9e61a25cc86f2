"""What the parts that are still to train take: memory, disk, time. Tried on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from fmbpo.base import free_memory
from fmbpo.base.disk import check_disk
from fmbpo.base.text import bytes_text, clock, speed
from fmbpo.config.schema import Experiment
from fmbpo.errors import UserError
from fmbpo.measure.evaluation import Evaluator
from fmbpo.running.blame import Role, reporting
from fmbpo.running.names import needs_pretraining
from fmbpo.running.preflight import duration, memory
from fmbpo.running.preflight.disk import disk_need
from fmbpo.running.preflight.duration import Pace
from fmbpo.running.preflight.remaining import (
    Part,
    is_there,
    policies_part,
    pretraining_part,
    workers,
)
from fmbpo.running.preflight.table import Rows
from fmbpo.running.preflight.trial import try_plugins
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.dataset import Dataset

SMALLER = "lower the batch, the horizon or policy_learning.stack (policies trained at once)"


class Needs:
    """Parts by their run folders, so that what cells share is counted once.

    ``thorough``: plugins are tried and paces measured however short the run is; ``traceback``:
    the folder where a plugin's traceback is kept, if anywhere.
    """

    def __init__(self, rows: Rows, root: Path, thorough: bool, traceback: Path | None) -> None:
        self.rows, self.root, self.thorough, self.traceback = rows, root, thorough, traceback
        self.parts: dict[Path, Part] = {}
        self.seconds: dict[Path, float] = {}

    def of(
        self,
        cell: str,
        e: Experiment,
        names: tuple[str, str],
        tasks: Sequence[str],
        data_tasks: Sequence[str],
        device: torch.device,
        streaming: int = 0,
    ) -> list[Part] | None:
        """The parts of one experiment that are still to train, their memory checked; None where a
        plugin cannot say what it needs. ``data_tasks``: those of the data;
        ``streaming``: bytes of the host's memory that reading it from the disk takes."""
        pretraining, policies = (self.root / name for name in names)
        try:
            parts = []
            if needs_pretraining(e) and not is_there(pretraining):
                parts.append(
                    self._part(pretraining, lambda: pretraining_part(e, pretraining, data_tasks))
                )
            if e.grid and tasks:
                cells = [Cell(task, seed) for task in tasks for seed in e.grid.seeds]
                parts.append(self._part(policies, lambda: policies_part(e, policies, cells)))
        except UserError as error:
            self.rows.fail(cell, "runs", error)
            return None
        except Exception as error:  # of a plugin, whose tiny update will tell more
            if not self.rows.failed(cell):
                first = (str(error).splitlines() or [""])[0]
                remedy = "hooks use shapes alone: they should run on torch's meta device"
                what = f"not known: {type(error).__name__}: {first}"
                self.rows.warn(cell, "memory", what, remedy)
            return None
        if parts:
            self._memory(cell, e, parts, device, streaming)
        return parts

    def _part(self, folder: Path, make: Callable[[], Part]) -> Part:
        if folder not in self.parts:
            self.parts[folder] = make()
        return self.parts[folder]

    def _memory(
        self, cell: str, e: Experiment, parts: list[Part], device: torch.device, streaming: int
    ) -> None:
        costs, episodes = [part.cost for part in parts], max(part.at_once for part in parts)
        simulators = workers(e) if episodes else 0
        needed = memory.need(costs, simulators, episodes, on_gpu=device.type == "cuda")
        places = [("host", needed.host + streaming, free_memory.host_free())]
        if device.type == "cuda":
            places.append((str(device), needed.device, free_memory.device_free(device)))
        for place, count, free in places:
            said, share = memory.share(place, count, free)
            if share > 1:
                self.rows.fail(cell, "memory", UserError(said, remedy=SMALLER))
            elif share > memory.TIGHT:
                self.rows.warn(cell, "memory", said, SMALLER)
            else:
                self.rows.ok(cell, "memory", said)

    def disk(self) -> None:
        """A row about the disk, for all parts together."""
        stages = [kept for part in self.parts.values() for kept in part.kept]
        needed = disk_need(stages, len(self.parts))
        said = self.rows.attempt("", "disk", lambda: check_disk(needed, self.root, "--runs"))
        if said is not None:
            self.rows.ok("", "disk", said)

    def try_out(
        self,
        cell: str,
        e: Experiment,
        tasks: Sequence[str],
        data: Dataset,
        device: torch.device,
        parts: list[Part] | None,
    ) -> None:
        """Tiny updates and measured paces; neither for a run that is over within a minute."""
        rate = duration.matmul_rate(device)
        rough = {part.folder: duration.rough(part.cost, rate) for part in parts or ()}
        expected = {p.folder: p.seconds(rough[p.folder], workers(e)) for p in parts or ()}
        if parts is not None and sum(expected.values()) < duration.SHORT and not self.thorough:
            self.seconds.update(expected)
            return
        roles = [Role("world model", e.world_model)]
        roles += [Role("policy", e.policy)] if e.policy else []

        def trials() -> None:
            with reporting(self.traceback, *roles), EpisodeRunner(0) as runner:
                for subject, done in try_plugins(e, tasks, data, device, runner, self.traceback):
                    self.rows.ok(cell, subject, done)
                for part in parts or ():
                    if part.folder not in self.seconds:
                        pace = rough[part.folder]
                        if device.type == "cuda" or pace.update <= duration.MEASURABLE:
                            pace = self._measured(cell, e, part, tasks, data, device, runner)
                        self._expect(cell, e, part, pace)

        try:
            self.rows.attempt(cell, "plugins", trials)
        except torch.OutOfMemoryError as error:
            what = f"a real update does not fit: {str(error).splitlines()[0]}"
            self.rows.fail(cell, "memory", UserError(what, remedy=SMALLER))

    def _measured(
        self,
        cell: str,
        e: Experiment,
        part: Part,
        tasks: Sequence[str],
        data: Dataset,
        device: torch.device,
        runner: EpisodeRunner,
    ) -> Pace:
        """The pace of real updates; on a GPU also the memory that they took."""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        if e.grid is None or not part.at_once:
            pace = duration.pretraining_pace(Context(e, data, device))
        else:
            cells = [Cell(task, seed) for task in tasks for seed in e.grid.seeds][: part.cells]
            evaluator = Evaluator(runner, e.evaluation.seed)
            pace = duration.policies_pace(Context(e, data, device), cells, evaluator)
        if device.type == "cuda":
            peak = bytes_text(torch.cuda.max_memory_allocated(device))
            self.rows.ok(cell, "memory", f"{part.name}: real updates took {peak} of {device}")
        return pace

    def _expect(self, cell: str, e: Experiment, part: Part, pace: Pace) -> None:
        seconds = self.seconds[part.folder] = part.seconds(pace, workers(e))
        how = "measured" if pace.measured else "a rough estimate from operations, of updates alone"
        what = f"{part.name}: {part.updates:,} updates, {speed(1 / pace.update)}, {how}"
        self.rows.ok(cell, "duration", f"{what}: about {clock(seconds)}")
