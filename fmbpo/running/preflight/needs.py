"""Memory, disk and time that the remaining parts need, tried on this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from fmbpo.base import free_memory
from fmbpo.base.files import check_disk
from fmbpo.base.text import bytes_text, clock, speed
from fmbpo.errors import UserError
from fmbpo.measure.evaluation import Evaluator
from fmbpo.running.blame import Role, reporting
from fmbpo.running.names import needs_pretraining
from fmbpo.running.preflight import duration, memory
from fmbpo.running.preflight.candidate import Candidate
from fmbpo.running.preflight.disk import disk_need
from fmbpo.running.preflight.duration import Pace
from fmbpo.running.preflight.remaining import Part, policies_part, pretraining_part
from fmbpo.running.preflight.table import Rows
from fmbpo.running.preflight.trial import try_plugins
from fmbpo.runs.folder import RunFolder
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.training.cells import Cell
from fmbpo.training.residence_choice import choose, streaming_bytes

SMALLER = "lower the batch, the horizon or policy_learning.stack (policies trained at once)"


class Needs:
    """Parts by their run folders, so that those which cells share are counted once.

    ``traceback``: the folder where a plugin's traceback is kept, if anywhere.
    """

    def __init__(self, rows: Rows, root: Path, traceback: Path | None) -> None:
        self.rows, self.root, self.traceback = rows, root, traceback
        self.parts: dict[Path, Part] = {}
        self.seconds: dict[Path, float] = {}

    def of(self, one: Candidate) -> list[Part] | None:
        """The parts of one experiment that are still to train, their memory checked; None if a
        plugin cannot state its needs."""
        cell, e = one.cell, one.experiment
        pretraining, policies = (self.root / name for name in one.folders)
        try:
            parts = []
            if needs_pretraining(e) and not RunFolder(pretraining).is_complete:
                make = partial(pretraining_part, e, pretraining, one.data_tasks)
                parts.append(self._part(pretraining, make))
            if e.grid and one.tasks:
                cells = [Cell(task, seed) for task in one.tasks for seed in e.grid.seeds]
                make = partial(policies_part, e, policies, cells)
                parts.append(self._part(policies, make))
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
            self._memory(one, parts)
        return parts

    def _part(self, folder: Path, make: Callable[[], Part]) -> Part:
        if folder not in self.parts:
            self.parts[folder] = make()
        return self.parts[folder]

    def _memory(self, one: Candidate, parts: list[Part]) -> None:
        assert one.device is not None
        on_gpu = one.device.type == "cuda"
        episodes = max(part.at_once for part in parts)
        simulators = one.experiment.evaluation.processes if episodes else 0
        costs = [part.cost for part in parts]
        needed = memory.need(costs, simulators, episodes, on_gpu=on_gpu)
        store, streaming = one.store, 0
        if store and choose(one.experiment.data, store, one.device) == "stream":
            streaming = streaming_bytes(store, len(one.tasks))
        places = [("host", needed.host + streaming, free_memory.host_free())]
        if on_gpu:
            places.append((str(one.device), needed.device, free_memory.device_free(one.device)))
        for place, count, free in places:
            said, share = memory.share(place, count, free)
            if share > 1:
                self.rows.fail(one.cell, "memory", UserError(said, remedy=SMALLER))
            elif share > memory.TIGHT:
                self.rows.warn(one.cell, "memory", said, SMALLER)
            else:
                self.rows.ok(one.cell, "memory", said)

    def disk(self) -> None:
        """A row about the disk, for all parts together."""
        stages = [kept for part in self.parts.values() for kept in part.kept]
        needed = disk_need(stages, len(self.parts))
        said = self.rows.attempt("", "disk", lambda: check_disk(needed, self.root, "--runs"))
        if said is not None:
            self.rows.ok("", "disk", said)

    def try_out(self, one: Candidate, parts: list[Part] | None, thorough: bool) -> None:
        """Tiny updates and measured paces; neither for a run that is over within a minute, unless
        ``thorough``."""
        assert one.device is not None
        cell, e = one.cell, one.experiment
        rate = duration.matmul_rate(one.device)
        rough = {part.folder: duration.rough(part.cost, rate) for part in parts or ()}
        expected = {
            p.folder: p.seconds(rough[p.folder], e.evaluation.processes) for p in parts or ()
        }
        if parts is not None and sum(expected.values()) < duration.SHORT and not thorough:
            self.seconds.update(expected)
            return
        roles = [Role("world model", e.world_model)]
        roles += [Role("policy", e.policy)] if e.policy else []

        def trials() -> None:
            with reporting(self.traceback, *roles), EpisodeRunner(0) as runner:
                for subject, done in try_plugins(one.context, one.tasks, runner, self.traceback):
                    self.rows.ok(cell, subject, done)
                for part in parts or ():
                    if part.folder not in self.seconds:
                        self._time(one, part, rough[part.folder], runner)

        try:
            self.rows.attempt(cell, "plugins", trials)
        except torch.OutOfMemoryError as error:
            what = f"a real update does not fit: {str(error).splitlines()[0]}"
            self.rows.fail(cell, "memory", UserError(what, remedy=SMALLER))

    def _time(self, one: Candidate, part: Part, pace: Pace, runner: EpisodeRunner) -> None:
        """How long a part will take: measured, or the rough ``pace`` if an update is too long."""
        e, context = one.experiment, one.context
        on_gpu = context.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(context.device)
        if on_gpu or pace.update <= duration.MEASURABLE:
            if e.grid is None or not part.at_once:
                pace = duration.pretraining_pace(context)
            else:
                cells = [Cell(task, seed) for task in one.tasks for seed in e.grid.seeds]
                evaluator = Evaluator(runner, e.evaluation.seed)
                pace = duration.policies_pace(context, cells[: part.cells], evaluator)
        if on_gpu:
            peak = bytes_text(torch.cuda.max_memory_allocated(context.device))
            said = f"{part.name}: real updates took {peak} of {context.device}"
            self.rows.ok(one.cell, "memory", said)
        seconds = self.seconds[part.folder] = part.seconds(pace, e.evaluation.processes)
        how = "measured" if pace.measured else "a rough estimate from operations, of updates alone"
        what = f"{part.name}: {part.updates:,} updates, {speed(1 / pace.update)}, {how}"
        self.rows.ok(one.cell, "duration", f"{what}: about {clock(seconds)}")
