"""A study: its experiments one after another, and what they found side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from fmbpo.engine.dataset import Dataset, load_dataset
from fmbpo.engine.health import returns_health
from fmbpo.engine.place import grid_tasks, needs_pretraining, resolve_device
from fmbpo.engine.run import Result, Runner, Say
from fmbpo.engine.sizes import sizes
from fmbpo.engine.stop import Stop
from fmbpo.experiment.study import Study
from fmbpo.report.page import Heading
from fmbpo.report.side_by_side import Panel, side_by_side
from fmbpo.runs.files import disk_errors, write_json
from fmbpo.runs.findings import Finding
from fmbpo.runs.folder import RunFolder, run_name
from fmbpo.runs.plan import PlannedRun, write_plan
from fmbpo.runs.series import cell_series
from fmbpo.runs.summary import Summary

PANELS = {
    "return": "return",
    "held_out/reward_r2": "held-out reward R²",
    "held_out/reward_std": "spread of the decoded reward",
}
"""Metrics of a policy study's picture, and what it calls them; what no cell has is left out."""
PRETRAINING_PANELS = {
    "held_out/score": "held-out score (lower is better)",
    "held_out/reward_r2": "held-out reward R²",
    "held_out/reward_std": "spread of the decoded reward",
}
"""The same of a study of world models."""
REAL = {"held_out/reward_std": "held_out/real_reward_std"}
"""What a metric would be of the real thing: the same in all cells."""


@attrs.frozen
class StudyResult:
    """What a study ended with; ``findings`` are about the cells together."""

    summaries: dict[str, Summary]
    findings: list[Finding]
    folder: Path


class StudyRunner:
    """Runs one study under ``root``; ``say`` takes lines for people.

    Every cell is an ordinary run in a folder of its own, which the experiment run by itself would
    find: cells share pretrained models, and finished ones are not run again.
    """

    def __init__(
        self,
        study: Study,
        root: Path,
        say: Say,
        loaded: Sequence[tuple[Any, Dataset]] = (),
        expected: Mapping[Path, float] | None = None,
    ) -> None:
        """``loaded``: data sets that are loaded already, behind (configuration, device);
        ``expected``: see ``Runner``."""
        self.study, self.root, self.say = study, root, say
        say(f"{study.name}: {study.description or 'a study'}")
        loaded = list(loaded)
        self.runners: dict[str, Runner] = {}
        for name, e in study.cells.items():
            say(f"-- cell {name}")
            wanted = (e.data, resolve_device(e.system.device))
            data = next((d for key, d in loaded if key == wanted), None)
            if data is None:
                data = load_dataset(*wanted)
                loaded.append((wanted, data))
            self.runners[name] = Runner(e, root, say, data, study.name, expected)
        for line in study.differences:
            say(f"differs: {line}")
        self.sizes, warnings = sizes(list(study.cells.values()))
        for warning in warnings:
            say(f"WARNING: {warning}")

    def run(self, stop: Stop) -> StudyResult:
        """All cells to their ends, then ``study.json`` and ``comparison.png``.

        Raises what ``Runner.run`` raises; the same command continues.
        """
        names = {name: r.policy_run or r.pretraining_run for name, r in self.runners.items()}
        digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
        folder = self.root / run_name(self.study.name, "study", self._seeds(), digest)
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
            "health": [finding.to_json() for finding in findings],
        }
        write_json(folder / "study.json", content)
        runs = {name: RunFolder.open(result.folder) for name, result in results.items()}
        self._draw(folder / "comparison.png", summaries, runs)
        return StudyResult(summaries, findings, folder)

    def _seeds(self) -> list[int]:
        cells = self.study.cells.values()
        seeds = [e.grid.seeds if e.grid else [e.pretrain.seed] for e in cells]
        return list(dict.fromkeys(seed for one in seeds for seed in one))

    def _draw(self, path: Path, summaries: dict[str, Summary], runs: dict[str, RunFolder]) -> None:
        tasks = dict.fromkeys(task for summary in summaries.values() for task in summary.tasks)
        first = next(iter(summaries.values()))
        panels: dict[str, Panel] = {}
        for metric, title in (PANELS if tasks else PRETRAINING_PANELS).items():
            cells = {name: cell_series(run, metric) for name, run in runs.items()}
            real = {name: cell_series(run, REAL.get(metric, "")) for name, run in runs.items()}
            # A world model's own metrics have no task: one panel for all.
            for task in tasks or [""]:
                seeds = {name: series.get(task, {}) for name, series in cells.items()}
                if any(seeds.values()):
                    wanted = [one for r in real.values() for one in r.get(task, {}).values()]
                    at = f"{task}: {title}" if task else title
                    panels[at] = Panel(seeds, wanted[0] if wanted else ())
        protocols = dict.fromkeys(s.protocol or "pretraining" for s in summaries.values())
        differs = f"differs: {'; '.join(self.study.factors)}"
        heading = Heading(self.study.name, first.scale, " | ".join(protocols), differs)
        side_by_side(path, heading, panels, columns=len(tasks) or len(panels))


def planned(cell: str, runner: Runner) -> list[PlannedRun]:
    """The runs of a cell: the pretraining that it needs, if any, and its policies."""
    e = runner.experiment
    runs = []
    if needs_pretraining(e):
        runs.append(
            PlannedRun(
                run=runner.pretraining_run,
                of=cell,
                phase=e.phase,
                tasks=[],
                seeds=[e.pretrain.seed],
                iterations=e.pretrain.iterations,
            )
        )
    if e.grid is not None and e.policy_learning is not None:
        runs.append(
            PlannedRun(
                run=runner.policy_run,
                of=cell,
                phase=e.phase,
                tasks=grid_tasks(e, runner.data),
                seeds=e.grid.seeds,
                iterations=e.policy_learning.iterations,
            )
        )
    return runs


def twins(summaries: Mapping[str, Summary]) -> list[Finding]:
    """Cells whose policies have identical returns: one of them is not what it is called."""
    found: list[Finding] = []
    for task in dict.fromkeys(task for s in summaries.values() for task in s.tasks):
        for seed in dict.fromkeys(
            seed for s in summaries.values() if task in s.tasks for seed in s.tasks[task].seeds
        ):
            found += returns_health(
                {
                    f"{name} {task}/{seed}": summary.tasks[task].seeds[seed].returns
                    for name, summary in summaries.items()
                    if task in summary.tasks and seed in summary.tasks[task].seeds
                }
            )
    return found
