"""A study: its experiments one after another, and what they found side by side."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import attrs

from fmbpo.engine.dataset import Dataset, load_dataset
from fmbpo.engine.place import resolve_device
from fmbpo.engine.results import cell_series
from fmbpo.engine.run import Result, Runner, Say
from fmbpo.engine.sizes import sizes
from fmbpo.experiment.study import Study
from fmbpo.report.page import Heading
from fmbpo.report.side_by_side import Panel, Variant, side_by_side
from fmbpo.runs.files import disk_errors, write_json
from fmbpo.runs.folder import RunFolder, run_name
from fmbpo.runs.summary import Summary

PANELS = {
    "return": "return",
    "held_out/reward_r2": "held-out reward R²",
    "held_out/reward_std": "spread of the decoded reward",
}
"""Metrics of the picture, and what it calls them; those that no cell has are left out."""
REAL = {"held_out/reward_std": "held_out/real_reward_std"}
"""What a metric would be of the real thing: the same in all cells."""


@attrs.frozen
class StudyResult:
    """What a study ended with."""

    summaries: dict[str, Summary]
    folder: Path


class StudyRunner:
    """Runs one study under ``root``; ``say`` takes lines for people.

    Every cell is an ordinary run in a folder of its own, which the experiment run by itself would
    find: cells share pretrained models, and finished ones are not run again.
    """

    def __init__(self, study: Study, root: Path, say: Say) -> None:
        self.study, self.root, self.say = study, root, say
        loaded: list[tuple[Any, Dataset]] = []
        self.runners: dict[str, Runner] = {}
        for name, e in study.cells.items():
            say(f"-- cell {name}")
            data = next((d for config, d in loaded if config == e.data), None)
            if data is None:
                data = load_dataset(e.data, resolve_device(e.system.device))
                loaded.append((e.data, data))
            self.runners[name] = Runner(e, root, say, data)
        for line in study.differences:
            say(f"differs: {line}")
        self.sizes, warnings = sizes(list(study.cells.values()))
        for warning in warnings:
            say(f"WARNING: {warning}")

    def run(self) -> StudyResult:
        """All cells to their ends, then ``study.json`` and ``comparison.png``.

        Raises what ``Runner.run`` raises; the same command continues.
        """
        results: dict[str, Result] = {}
        for number, (name, runner) in enumerate(self.runners.items(), 1):
            self.say(f"-- cell {name} ({number} of {len(self.runners)})")
            results[name] = runner.run()
        names = {name: result.folder.name for name, result in results.items()}
        digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
        folder = self.root / run_name(self.study.name, "study", self._seeds(), digest)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        content = {
            "name": self.study.name,
            "factors": self.study.factors,
            "differences": self.study.differences,
            "sizes": self.sizes,
            "cells": names,
        }
        write_json(folder / "study.json", content)
        self._draw(folder / "comparison.png", results)
        return StudyResult({name: r.summary for name, r in results.items()}, folder)

    def _seeds(self) -> list[int]:
        cells = self.study.cells.values()
        seeds = [e.grid.seeds if e.grid else [e.pretrain.seed] for e in cells]
        return list(dict.fromkeys(seed for one in seeds for seed in one))

    def _draw(self, path: Path, results: dict[str, Result]) -> None:
        first = next(iter(results.values())).summary
        runs = {name: RunFolder.open(result.folder) for name, result in results.items()}
        first_run = next(iter(runs.values()))
        panels = {}
        for metric, title in PANELS.items():
            series = {name: cell_series(run, metric) for name, run in runs.items()}
            for task in first.tasks if any(series.values()) else ():
                variants = {name: Variant(s.get(task, {})) for name, s in series.items()}
                real = cell_series(first_run, REAL[metric]) if metric in REAL else {}
                seeds = list(real.get(task, {}).values())
                panels[f"{task}: {title}"] = Panel(variants, seeds[0] if seeds else ())
        protocols = {r.summary.protocol or "pretraining" for r in results.values()}
        heading = Heading(
            self.study.name,
            first.scale,
            " | ".join(sorted(protocols)),
            f"differs: {'; '.join(self.study.factors)}",
        )
        side_by_side(path, heading, panels, columns=len(first.tasks))
