"""A study: its experiments one after another, and their results side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from fmbpo.base.files import disk_errors, write_json
from fmbpo.base.structure import plain
from fmbpo.config.study_file import Study
from fmbpo.measure.health import returns_health
from fmbpo.measure.sizes import sizes
from fmbpo.running.names import needs_pretraining
from fmbpo.running.preflight.inputs import Loaded
from fmbpo.running.run import Result, Runner
from fmbpo.running.session import Session
from fmbpo.running.stop import Stop
from fmbpo.runs.findings import Finding
from fmbpo.runs.folder import run_name
from fmbpo.runs.plan import STUDY, PlannedRun, write_plan
from fmbpo.runs.summary import Summary
from fmbpo.training.cells import grid_tasks
from fmbpo.training.dataset import load_dataset
from fmbpo.training.device import resolve_device


@attrs.frozen
class StudyResult:
    """The results of a study; ``findings`` are about the cells together."""

    summaries: dict[str, Summary]
    findings: list[Finding]
    folder: Path


class StudyRunner:
    """Runs one study.

    Every cell is an ordinary run in a folder of its own, which the experiment run by itself would
    find: cells share pretrained models, and finished ones are not run again.
    """

    def __init__(self, study: Study, session: Session, loaded: Sequence[Loaded] = ()) -> None:
        """``loaded``: data sets that are loaded already."""
        self.study, self.session, self.say = study, session, session.say
        self.say(f"{study.name}: {study.description or 'a study'}")
        loaded = list(loaded)
        self.runners: dict[str, Runner] = {}
        for name, e in study.cells.items():
            self.say(f"-- cell {name}")
            wanted = (e.data, resolve_device(e.system.device))
            data = next((d for key, d in loaded if key == wanted), None)
            if data is None:
                data = load_dataset(*wanted)
                loaded.append((wanted, data))
            self.runners[name] = Runner(e, session, data, study.name)
        for line in study.differences:
            self.say(f"differs: {line}")
        self.sizes, warnings = sizes(list(study.cells.values()))
        for warning in warnings:
            self.say(f"WARNING: {warning}")

    def run(self, stop: Stop) -> StudyResult:
        """All cells to their ends, then ``study.json`` and ``comparison.png``.

        Raises what ``Runner.run`` raises; the same command continues.
        """
        names = {name: r.policy_run or r.pretraining_run for name, r in self.runners.items()}
        digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
        folder = self.session.root / run_name(self.study.name, "study", self._seeds(), digest)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        plan = [run for name, runner in self.runners.items() for run in planned(name, runner)]
        write_plan(folder, self.study.name, plan)
        results: dict[str, Result] = {}
        for number, (name, runner) in enumerate(self.runners.items(), 1):
            stop.check(f"before cell {name}")
            self.say(f"-- cell {name} ({number} of {len(self.runners)})")
            results[name] = runner.run(stop)
        summaries = {name: result.summary for name, result in results.items()}
        findings = twins(summaries)
        content = {
            "name": self.study.name,
            "factors": self.study.factors,
            "differences": self.study.differences,
            "sizes": self.sizes,
            "cells": names,
            "health": plain(findings),
        }
        write_json(folder / STUDY, content)
        self.session.draw(folder)
        return StudyResult(summaries, findings, folder)

    def _seeds(self) -> list[int]:
        cells = self.study.cells.values()
        seeds = [e.grid.seeds if e.grid else [e.pretrain.seed] for e in cells]
        return list(dict.fromkeys(seed for one in seeds for seed in one))


def planned(cell: str, runner: Runner) -> list[PlannedRun]:
    """The runs of a cell: the pretraining that it needs, if any, and its policies."""
    e, runs = runner.experiment, []

    def plan(run: str, tasks: list[str], seeds: list[int], iterations: int) -> None:
        runs.append(PlannedRun(run, cell, e.phase, tasks, seeds, iterations))

    if needs_pretraining(e):
        plan(runner.pretraining_run, [], [e.pretrain.seed], e.pretrain.iterations)
    if e.policy is not None:
        tables = e.of_policies
        iterations = tables.policy_learning.iterations
        plan(runner.policy_run, grid_tasks(e, runner.data), tables.grid.seeds, iterations)
    return runs


def twins(summaries: Mapping[str, Summary]) -> list[Finding]:
    """Cells whose policies have identical returns: one of them is misnamed."""
    returns: dict[tuple[str, str], dict[str, Sequence[float]]] = {}
    for name, summary in summaries.items():
        for task, result in summary.tasks.items():
            for seed, one in result.seeds.items():
                returns.setdefault((task, seed), {})[f"{name} {task}/{seed}"] = one.returns
    return [finding for cells in returns.values() for finding in returns_health(cells)]
