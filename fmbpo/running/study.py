"""A study: its experiments one after another, and their results side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import attrs

from fmbpo.base.files import disk_errors, write_json
from fmbpo.base.structure import plain
from fmbpo.compare.comparison import Hypothesis
from fmbpo.compare.reading import records_of
from fmbpo.compare.registered import registered
from fmbpo.config.study_file import Study
from fmbpo.errors import UserError
from fmbpo.measure.health import returns_health
from fmbpo.measure.sizes import sizes
from fmbpo.running.earlier import finished
from fmbpo.running.names import check_known
from fmbpo.running.preflight.inputs import Loaded
from fmbpo.running.registration import PlannedCell, register_study
from fmbpo.running.run import Runner
from fmbpo.running.session import Result, Session
from fmbpo.running.stop import Stop
from fmbpo.runs.findings import Finding
from fmbpo.runs.folder import run_name
from fmbpo.runs.plan import STUDY, PlannedRun, write_plan
from fmbpo.runs.registration import REGISTRATION, Version
from fmbpo.runs.summary import Summary
from fmbpo.training.cells import grid_tasks
from fmbpo.training.dataset import load_dataset
from fmbpo.training.device import resolve_device


@attrs.frozen
class StudyResult:
    """The results of a study; ``findings`` are about the cells together, ``hypotheses`` are the
    registered ones."""

    summaries: dict[str, Summary]
    findings: list[Finding]
    folder: Path
    hypotheses: Sequence[Hypothesis] = ()


class StudyRunner:
    """Runs one study.

    Every cell is an ordinary run in its own folder, which the same experiment outside a study also
    uses: cells share pretrained models, and finished cells are not run again.
    """

    def __init__(self, study: Study, session: Session, loaded: Sequence[Loaded] = ()) -> None:
        """``loaded``: data sets that are already in memory."""
        self.study, self.session, self.say = study, session, session.say
        self.say(f"{study.name}: {study.description or 'a study'}")
        loaded = list(loaded)
        self.runners: dict[str, Runner] = {}
        for name, e in study.cells.items():
            self.say(f"-- cell {name}")
            wanted = (e.data, resolve_device(e.system.device), e.tasks)
            data = next((d for key, d in loaded if key == wanted), None)
            if data is None:
                data = load_dataset(*wanted)
                loaded.append((wanted, data))
            self.runners[name] = Runner(e, session, data, study.name)
        for line in study.differences:
            self.say(f"differs: {line}")
        self.names = {name: runner.names.result for name, runner in self.runners.items()}
        """The run that has each cell's results."""
        digest = hashlib.sha256(json.dumps(self.names).encode()).hexdigest()
        seeds = list(dict.fromkeys(s for e in study.cells.values() for s in e.grid.seeds))
        self.folder = session.root / run_name(study.name, "study", seeds, digest)
        self.sizes, warnings = sizes(list(study.cells.values()))
        for warning in warnings:
            self.say(f"WARNING: {warning}")

    @property
    def plan(self) -> list[PlannedRun]:
        """The runs of all cells, in the order of the work."""
        return [run for name, runner in self.runners.items() for run in planned(name, runner)]

    def begin(self) -> tuple[str, Sequence[Version]]:
        """Write the plan and the registration to the study's folder; what ``register_study``
        returns."""
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_plan(self.folder, self.study.name, self.plan)
        sha256, versions = register_study(self.study, self._planned_cells(), self.folder)
        if versions:
            self.say(f"registration: SHA-256 {sha256}, {self.folder / REGISTRATION}")
        return sha256, versions

    def run(self, stop: Stop, only: Collection[str] = ()) -> StudyResult:
        """Register the study, run all cells to their ends, write ``study.json`` and its picture.

        ``only``: the names of the runs to do, as for ``Runner.run``; that of the study's folder
        stands for ``study.json``, for which all cells must be complete. The summaries are then
        those of the named runs, by their names. Raises as ``Runner.run``; the same command
        continues the study.
        """
        names, folder = self.names, self.folder
        check_known(only, [folder.name, *(run for r in self.runners.values() for run in r.names)])
        sha256, versions = self.begin()
        if only:
            found = self._run_only(stop, only)
            if folder.name not in only:
                return StudyResult(found, [], self.session.root)
            self._check_complete()
        results: dict[str, Result] = {}
        for number, (name, runner) in enumerate(self.runners.items(), 1):
            stop.check(f"before cell {name}")
            self.say(f"-- cell {name} ({number} of {len(self.runners)})")
            results[name] = runner.run(stop)
        summaries = {name: result.summary for name, result in results.items()}
        findings = twins(summaries)
        content = {
            "name": self.study.name,
            "description": self.study.description,
            "factors": self.study.factors,
            "differences": self.study.differences,
            "contrasts": self.study.contrasts,
            "sizes": self.sizes,
            "cells": names,
            "health": plain(findings),
        }
        hypotheses: Sequence[Hypothesis] = ()
        if versions:
            runs = [self.session.root / run for run in names.values()]
            records = records_of(runs) if self.study.registration else []
            hypotheses = registered(self.study.name, sha256, versions, records, folder).hypotheses
            content["registration"] = {"sha256": sha256, "hypotheses": plain(hypotheses)}
        write_json(folder / STUDY, content)
        self.session.draw(folder)
        return StudyResult(summaries, findings, folder, hypotheses)

    def _run_only(self, stop: Stop, only: Collection[str]) -> dict[str, Summary]:
        """The summaries of these runs, each of which belongs to the first cell that has it."""
        found: dict[str, Summary] = {}
        for name, runner in self.runners.items():
            names = runner.names
            mine = [run for run in names if run in only and run not in found]
            if mine:
                self.say(f"-- cell {name}")
                result = runner.run(stop, mine)
                found |= {names.pretraining[seed]: one for seed, one in result.models.items()}
                found |= {names.policies: result.summary} if names.policies in mine else {}
        return found

    def _check_complete(self) -> None:
        """Raise ``UserError`` if a cell is not complete."""
        cells = self.runners.items()
        root = self.session.root
        left = [name for name, r in cells if finished(r.experiment, r.names, root) is None]
        if left:
            raise UserError(
                f"the study is not complete; missing: {', '.join(left)}",
                where=str(self.folder),
                remedy="run these cells first; `fmbpo status` shows why they are missing",
            )

    def _planned_cells(self) -> dict[str, PlannedCell]:
        return {
            name: PlannedCell(
                runner.experiment,
                runner.data.id,
                grid_tasks(runner.experiment, runner.data),
                runner.names,
            )
            for name, runner in self.runners.items()
        }


def planned(cell: str, runner: Runner) -> list[PlannedRun]:
    """The runs of a cell: the pretraining of its replicates, if they need it, and its policies."""
    e, names = runner.experiment, runner.names
    runs = [
        PlannedRun(run, cell, e.phase, [], [seed], e.pretrain.iterations)
        for seed, run in names.pretraining.items()
    ]
    if e.policy is not None:
        tasks, iterations = grid_tasks(e, runner.data), e.of_policies.policy_learning.iterations
        seeds, each = e.grid.seeds, e.grid.policies_per_model
        runs.append(PlannedRun(names.policies, cell, e.phase, tasks, seeds, iterations, each))
    return runs


def twins(summaries: Mapping[str, Summary]) -> list[Finding]:
    """Cells whose policies have identical returns: one of them is misnamed."""
    returns: dict[tuple[str, str], dict[str, Sequence[float]]] = {}
    for name, summary in summaries.items():
        for task, result in summary.tasks.items():
            for seed, one in result.seeds.items():
                returns.setdefault((task, seed), {})[f"{name} {task}/{seed}"] = one.returns
    return [finding for cells in returns.values() for finding in returns_health(cells)]
