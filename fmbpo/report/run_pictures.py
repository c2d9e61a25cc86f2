"""Pictures of runs and studies, drawn from their folders once their results are complete."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from fmbpo.base.files import read_object
from fmbpo.report.canvas import Heading
from fmbpo.report.curves import (
    CellCurves,
    HorizonErrors,
    TaskCurves,
    learning_curves,
    pretraining_curves,
    study_curves,
)
from fmbpo.runs.folder import RunFolder
from fmbpo.runs.series import cell_series
from fmbpo.runs.sinks import read_metrics
from fmbpo.runs.summary import Summary

PANELS = {
    "return": "return",
    "held_out/reward_r2": "held-out reward R²",
    "held_out/reward_std": "spread of the decoded reward",
}
"""Metrics in the picture of a policy study, and their titles. Metrics without values are left out.
"""
PRETRAINING_PANELS = {
    "held_out/score": "held-out score (lower is better)",
    "held_out/reward_r2": "held-out reward R²",
    "held_out/reward_std": "spread of the decoded reward",
}
"""The same for a study of world models."""
REAL = {"held_out/reward_std": "held_out/real_reward_std"}
"""The metric of the real quantity that a metric estimates; equal in all cells."""


def draw_missing(folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Draw the pictures that a complete run or study lacks; returns all that it has.

    No picture costs a result: ``say`` gets a warning for each picture that cannot be drawn.
    """
    found = []
    for name, draw in _pictures(folder).items():
        path = folder / name
        try:
            if not path.exists():
                draw(path)
            found.append(path)
        except Exception as error:
            say(f"WARNING: {path} is not drawn ({error}); the results are complete")
    return found


def _pictures(folder: Path) -> dict[str, Callable[[Path], None]]:
    """The function that draws each picture, by file name."""
    if (folder / "study.json").is_file():
        return {"comparison.png": lambda path: _cells(path, folder)}
    run = RunFolder.open(folder)
    summary = Summary.from_json(run.summary(), where=str(folder / "summary.json"))
    if summary.policy is None:
        return {"curves.png": lambda path: _pretraining(path, run, summary)}
    pictures: dict[str, Callable[[Path], None]] = {
        "curves.png": lambda path: _policies(path, run, summary)
    }
    if any(name.startswith("after_obs_error_h") for name in summary.wm_validation):
        # World models learned beside the policies.
        pictures["model_errors.png"] = lambda path: pretraining_curves(
            path, _heading(summary), {}, _horizon_errors(summary, "after_", "before_")
        )
    return pictures


def _policies(path: Path, run: RunFolder, summary: Summary) -> None:
    """Learning curves from the run's own record."""
    curves = cell_series(run, "return")
    panels = {
        task: TaskCurves(
            curves[task],
            random=result.random_return_mean,
            planner=result.reference_return,
            pwm=result.pwm_return,
        )
        for task, result in summary.tasks.items()
    }
    learning_curves(path, _heading(summary), panels)


def _pretraining(path: Path, run: RunFolder, summary: Summary) -> None:
    """Losses over training, and held-out errors by horizon."""
    losses: dict[str, list[tuple[int, float]]] = {}
    for line in read_metrics(run.metrics):
        for name in ("consistency", "reward_loss"):
            if name in line:
                losses.setdefault(name, []).append((line["step"], line[name]))
    pretraining_curves(path, _heading(summary), losses, _horizon_errors(summary))


def _cells(path: Path, folder: Path) -> None:
    """The curves of a study's cells together."""
    study = read_object(folder / "study.json")
    runs = {name: RunFolder.open(folder.parent / run) for name, run in study["cells"].items()}
    summaries = [Summary.from_json(run.summary(), where=str(run.path)) for run in runs.values()]
    tasks = dict.fromkeys(task for summary in summaries for task in summary.tasks)
    panels: dict[str, CellCurves] = {}
    for metric, title in (PANELS if tasks else PRETRAINING_PANELS).items():
        cells = {name: cell_series(run, metric) for name, run in runs.items()}
        real = [cell_series(run, REAL.get(metric, "")) for run in runs.values()]
        # A world model's own metrics have no task: one panel for all.
        for task in tasks or [""]:
            seeds = {name: series.get(task, {}) for name, series in cells.items()}
            if any(seeds.values()):
                wanted = [series for r in real for series in r.get(task, {}).values()]
                at = f"{task}: {title}" if task else title
                panels[at] = CellCurves(seeds, wanted[0] if wanted else ())
    protocols = dict.fromkeys(summary.protocol or "pretraining" for summary in summaries)
    differs = f"differs: {'; '.join(study['factors'])}"
    heading = Heading(study["name"], summaries[0].scale, " | ".join(protocols), differs)
    study_curves(path, heading, panels, columns=len(tasks) or len(panels))


def _horizon_errors(
    summary: Summary, prefix: str = "", earlier: str | None = None
) -> list[HorizonErrors]:
    """Observations and reward; nothing if the summary has no errors by horizon."""
    found = summary.wm_validation
    names = (re.fullmatch(rf"{prefix}obs_error_h(\d+)", name) for name in found)
    horizons = [int(name[1]) for name in names if name]
    kinds = {
        "observations (standard deviations)": ("obs_error", "constant_error", "copy_error"),
        "reward (per step)": ("reward_rmse", "constant_reward_rmse", None),
    }
    panels = []
    for title, (model, constant, copy) in kinds.items() if horizons else ():
        metrics = {"world model": f"{prefix}{model}", "task's mean": f"{prefix}{constant}"}
        if earlier is not None:
            metrics["before"] = f"{earlier}{model}"
        if copy:
            metrics["copy baseline"] = f"{prefix}{copy}"
        lines = {line: [found[f"{name}_h{h}"] for h in horizons] for line, name in metrics.items()}
        panels.append(HorizonErrors(title, horizons, lines))
    return panels


def _heading(summary: Summary) -> Heading:
    kinds = summary.world_model.plugin + (f" × {summary.policy.plugin}" if summary.policy else "")
    return Heading(
        summary.experiment, summary.scale, summary.protocol or "pretraining", f"cell {kinds}"
    )
