"""The memory, disk and time that the remaining parts need, tried on this machine.

Memory on the device, for the stage that needs most::

    data + FRAGMENTATION * (state + max(update, evaluation))

``state``, ``update`` and ``evaluation`` are counted on shapes (``on_shapes``), with all cells of a
group stacked; ``Cost.replayed`` adds what a graph takes. On the host, in addition if the device is
the CPU::

    LIBRARIES + workers * WORKER + episodes * SIMULATION + weights + 2 * training state

the last two for a checkpoint, which is read whole; ``episodes``: those that run at once. Windows
of a data set that is read from the disk are added (``fmbpo.training.residence_choice``).

Of several processes, each has a part of the cells and of a batch, and a copy of everything else:
PROCESS and the data come on top for each further one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import attrs
import torch

from fmbpo.base import free_memory
from fmbpo.base.files import check_disk
from fmbpo.base.free_memory import SMALLER, ran_out
from fmbpo.base.text import bytes_text, clock, said, speed
from fmbpo.config.schema import Experiment
from fmbpo.distributed.group import Group
from fmbpo.errors import UserError
from fmbpo.measure.evaluation import Evaluator, threads
from fmbpo.running.blame import Role, reporting
from fmbpo.running.names import RunNames
from fmbpo.running.preflight import duration
from fmbpo.running.preflight.duration import Pace
from fmbpo.running.preflight.inputs import Candidate
from fmbpo.running.preflight.on_shapes import Cost
from fmbpo.running.preflight.remaining import (
    Part,
    disk_need,
    least_of_policies,
    least_of_pretraining,
    policies_part,
    pretraining_parts,
)
from fmbpo.running.preflight.table import Rows
from fmbpo.running.preflight.trial import try_plugins
from fmbpo.running.side_by_side import side_by_side
from fmbpo.runs.folder import RunFolder
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.training.pretraining import sharing
from fmbpo.training.residence_choice import choose, streaming_bytes

FRAGMENTATION = 1.25
"""Freed pieces that allocators keep: glibc's takes up to 1.4 times the live bytes, part of which
the count on shapes includes; see docs/preflight.md for measurements."""
LIBRARIES = 150_000_000
"""Libraries that a run imports late: pictures, W&B."""
WORKER = 100_000_000
"""One process that simulates, MuJoCo and dm_control included."""
PROCESS = 700_000_000
"""A further process that trains: torch and its imports."""
SIMULATION = 1_000_000
"""One episode's simulation in it."""
TIGHT = 0.8
"""A need above this share of the free memory is a warning."""


class Needs:
    """Parts by run folder, so that parts that cells share count once. ``traceback``: the folder
    for a plugin's traceback, if it is kept. ``group``: the processes that will train. ``only``: the
    names of the runs to train, if not all; ``apart``: a command of its own does each run."""

    def __init__(
        self,
        rows: Rows,
        root: Path,
        traceback: Path | None,
        group: Group,
        only: Collection[str] = (),
        apart: bool = False,
    ) -> None:
        self.rows, self.root, self.traceback, self.group = rows, root, traceback, group
        self.only, self.apart = only, apart
        self.parts: dict[Path, Part] = {}
        self.seconds: dict[Path, float] = {}
        self.host: dict[Path, int] = {}
        """Bytes on the host of each part alone."""

    def leaves_out(self, one: Candidate) -> bool:
        """Whether no run of an experiment is to be trained."""
        return bool(self.only and one.names and not set(one.names) & set(self.only))

    def together(self, models: int) -> int:
        """How many of these world models one command trains."""
        return min(models, len(self.only) or models, 1 if self.apart else models)

    def _trains(self, folder: Path) -> bool:
        return not self.only or folder.name in self.only

    def of(self, one: Candidate) -> list[Part] | None:
        """The parts of one experiment that are still to train, with their memory checked; None if
        a plugin's needs cannot be counted."""
        cell, e = one.cell, one.experiment
        # If they are not known: unique ones.
        seeds = e.grid.seeds if e.needs_pretraining else ()
        unknown = RunNames({seed: f"{cell}/{seed}" for seed in seeds}, f"{cell}/policies")
        names = one.names or unknown
        policies = self.root / names.policies
        try:
            models = [self.root / name for name in names.pretraining.values()]
            models = [f for f in models if self._trains(f) and not RunFolder(f).is_complete]
            if new := [folder for folder in models if folder not in self.parts]:
                self._possible(one, least_of_pretraining(e, one.suite))
                found = pretraining_parts(e, new, one.data_tasks)
                self.parts |= {part.folder: self._own(part, e) for part in found}
            parts = [self.parts[folder] for folder in models]
            if e.policy and one.tasks and self._trains(policies):
                if policies not in self.parts:
                    self._possible(one, least_of_policies(e, one.cells))
                    found_policies = policies_part(e, policies, one.cells)
                    self.parts[policies] = self._own(found_policies, e)
                parts.append(self.parts[policies])
        except UserError as error:
            self.rows.fail(cell, "runs", error)
            return None
        except (Exception, SystemExit) as error:  # a plugin's, whose tiny update will tell more
            if ran_out(error):
                self.rows.fail(cell, "memory", UserError(said(error), remedy=SMALLER))
            elif not self.rows.failed(cell):
                remedy = "make the hooks use only shapes, so that they run on torch's meta device"
                self.rows.warn(cell, "memory", f"not known: {said(error)}", remedy)
            return None
        if parts:
            self._memory(one, parts)
        return parts

    def _possible(self, one: Candidate, least: int) -> None:
        """Raise ``MemoryError`` if an update cannot fit, so that counting it could not end."""
        assert one.device is not None
        there = free_memory.total(one.device)
        if there is not None and least > there:
            what = f"at least {bytes_text(least)} needed, the machine has {bytes_text(there)}"
            raise MemoryError(f"{one.device}: {what}")

    def _memory(self, one: Candidate, parts: list[Part]) -> None:
        assert one.device is not None
        host, device = self._bytes(one, one.device, parts)
        self.host |= {part.folder: self._bytes(one, one.device, [part])[0] for part in parts}
        places = [("host", host, free_memory.host_free())]
        if one.device.type == "cuda":
            places.append((str(one.device), device, free_memory.device_free(one.device)))
        for place, needed, free in places:
            what, share = f"{place}: {bytes_text(needed)} needed", 0.0
            if free is None:
                what += "; free memory is not known here"
            else:
                what, share = f"{what}, {bytes_text(free)} free", needed / max(free, 1)
            if share > 1:
                self.rows.fail(one.cell, "memory", UserError(what, remedy=SMALLER))
            elif share > TIGHT:
                self.rows.warn(one.cell, "memory", what, SMALLER)
            else:
                self.rows.ok(one.cell, "memory", what)

    def _bytes(self, one: Candidate, on: torch.device, parts: Sequence[Part]) -> tuple[int, int]:
        """Bytes of host and device beyond those of this process."""
        on_gpu, here = on.type == "cuda", self.group.local_size
        episodes = max(part.at_once for part in parts)
        simulators = one.experiment.evaluation.simulators() if episodes else 0
        costs = [part.cost for part in parts]
        host, device = need(costs, simulators, episodes, here, on_gpu=on_gpu)
        if one.store:
            kind = choose(one.experiment.data, one.store, on)
            if kind == "stream":
                host += here * streaming_bytes(one.store, len(one.tasks))
            elif kind == "host" or not on_gpu:
                host += (here - 1) * one.store.rows * one.store.layout.row_bytes
        return host, device

    def disk(self) -> None:
        """Add a row about the disk for all parts together."""
        needed = disk_need(self.parts.values())
        self.rows.found("", "disk", lambda: check_disk(needed, self.root, "--runs"))

    def try_out(self, one: Candidate, parts: list[Part] | None, thorough: bool) -> None:
        """Try tiny updates and measure paces; without ``thorough``, neither for a run of less than
        a minute."""
        assert one.device is not None
        cell, e = one.cell, one.experiment
        rate = duration.matmul_rate(one.device)
        rough = {part.folder: duration.rough(part.cost, rate, one.suite) for part in parts or ()}
        workers = e.evaluation.simulators(self.group.local_size)
        expected = {part.folder: part.seconds(rough[part.folder], workers) for part in parts or ()}
        if parts is not None and sum(expected.values()) < duration.SHORT and not thorough:
            self.seconds |= expected
            return
        roles = [Role("world model", e.world_model)]
        roles += [Role("policy", e.policy)] if e.policy else []

        def trials() -> None:
            simulator = EpisodeRunner(1, one.suite)
            with reporting(self.traceback, *roles), simulator as runner:
                for subject, done in try_plugins(one.context, one.tasks, runner, self.traceback):
                    self.rows.ok(cell, subject, done)
                new = [part for part in parts or () if part.folder not in self.seconds]
                models = self.together(sum(not part.cells for part in new))
                paces: dict[str, Pace] = {}  # replicates share one
                for part in new:
                    pace = paces.get(part.name) or self._pace(
                        one, part, rough[part.folder], runner, models
                    )
                    paces[part.name] = pace
                    self._expect(one, part, pace, models)

        self.rows.attempt(cell, "plugins", trials)

    def _pace(
        self, one: Candidate, part: Part, pace: Pace, runner: EpisodeRunner, models: int
    ) -> Pace:
        """A part's measured pace, or ``pace`` if an update is too long to be measured. ``models``:
        the number of world models to train."""
        e, context = one.experiment, one.context
        on_gpu = context.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(context.device)
        if on_gpu or pace.update <= duration.MEASURABLE:
            if not part.at_once:
                group = sharing(e.pretrain, self.group)
                batch = group.share(e.pretrain.batch).stop
                here = self.group.local_size
                several = side_by_side(e.pretrain, self.group, models)
                with threads(e.system.threads, here, here if several else group.local_size):
                    pace = duration.pretraining_pace(context, batch)
            else:
                evaluator = Evaluator(runner, e.evaluation.seed)
                cells = one.cells[self.group.share(part.cells)]
                pace = duration.policies_pace(context, cells, evaluator)
        if on_gpu:
            peak = bytes_text(torch.cuda.max_memory_allocated(context.device))
            what = f"{part.name}: real updates took {peak} of {context.device}"
            self.rows.ok(one.cell, "memory", what)
        return pace

    def _expect(self, one: Candidate, part: Part, pace: Pace, models: int) -> None:
        """Add a part's expected duration; of world models side by side, the share of each."""
        e = one.experiment
        simulators = e.evaluation.simulators(self.group.local_size)
        seconds = part.seconds(pace, simulators)
        if not part.cells and side_by_side(e.pretrain, self.group, models):
            seconds *= -(-models // self.group.size) / models
        self.seconds[part.folder] = seconds
        rough = "a rough estimate from operation counts, for updates only"
        how = "measured" if pace.measured else rough
        what = f"{part.name}: {part.updates:,} updates, {speed(1 / pace.update)}, {how}"
        self.rows.ok(one.cell, "duration", f"{what}: about {clock(seconds)}")

    def _own(self, part: Part, experiment: Experiment) -> Part:
        """The part, with the cost of the leader's share, which is the largest, of its cells or of
        pretraining's batch."""
        pretrain = experiment.pretrain
        group = self.group if part.cells else sharing(pretrain, self.group)
        count = part.cells or pretrain.batch
        cost = part.cost.of_share(group.share(count).stop / count, stacked=part.cells > 0)
        if experiment.system.graph != "off":
            cost = cost.replayed
        return attrs.evolve(part, cost=cost)


def need(
    costs: Sequence[Cost], workers: int, episodes: int, processes: int = 1, *, on_gpu: bool
) -> tuple[int, int]:
    """Bytes of host and device (0 if it is the CPU) beyond those of the process with its data set.

    Of successive stages the largest counts. ``costs``: of one of the ``processes`` that train on
    this machine; ``workers`` processes simulate ``episodes`` at once.
    """
    stage = int(FRAGMENTATION * max(c.state + max(c.update, c.evaluation) for c in costs))
    host = LIBRARIES + workers * WORKER + episodes * SIMULATION + (processes - 1) * PROCESS
    host += max(c.weights + 2 * c.training for c in costs)
    return (host, stage) if on_gpu else (host + processes * stage, 0)
