"""Pictures of runs and studies, drawn from their folders once their results are complete."""

from __future__ import annotations

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
from fmbpo.runs.metrics import (
    CONSISTENCY,
    CONSTANT_ERROR,
    CONSTANT_REWARD_RMSE,
    COPY_ERROR,
    OBS_ERROR,
    POLICY_PANELS,
    PRETRAINING_PANELS,
    REAL,
    RETURN,
    REWARD_LOSS,
    REWARD_RMSE,
    after,
    before,
    by_horizon,
    cell_series,
)
from fmbpo.runs.plan import STUDY
from fmbpo.runs.summary import Summary


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
    if (folder / STUDY).is_file():
        return {"comparison.png": lambda path: _cells(path, folder)}
    run = RunFolder.open(folder)
    summary = Summary.of_run(run)
    if summary.policy is None:
        return {"curves.png": lambda path: _pretraining(path, run, summary)}
    pictures: dict[str, Callable[[Path], None]] = {
        "curves.png": lambda path: _policies(path, run, summary)
    }
    if by_horizon(summary.wm_validation, after(OBS_ERROR)):
        pictures["model_errors.png"] = lambda path: _own_models(path, summary)
    return pictures


def _policies(path: Path, run: RunFolder, summary: Summary) -> None:
    """Learning curves from the run's own record."""
    curves = cell_series(run.metrics, RETURN)
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
    found = {name: cell_series(run.metrics, name) for name in (CONSISTENCY, REWARD_LOSS)}
    losses = {name: series[""][""] for name, series in found.items() if series}
    pretraining_curves(path, _heading(summary), losses, _horizon_errors(summary))


def _own_models(path: Path, summary: Summary) -> None:
    """Held-out errors by horizon of world models that learned beside policies."""
    errors = _horizon_errors(summary, after, before)
    pretraining_curves(path, _heading(summary), {}, errors)


def _cells(path: Path, folder: Path) -> None:
    """The curves of a study's cells together."""
    study = read_object(folder / STUDY)
    runs = {name: RunFolder.open(folder.parent / run) for name, run in study["cells"].items()}
    summaries = [Summary.of_run(run) for run in runs.values()]
    tasks = dict.fromkeys(task for summary in summaries for task in summary.tasks)
    panels: dict[str, CellCurves] = {}
    for title, metric in (POLICY_PANELS if tasks else PRETRAINING_PANELS).items():
        cells = {name: cell_series(run.metrics, metric) for name, run in runs.items()}
        real = [cell_series(run.metrics, REAL[metric]) for run in runs.values() if metric in REAL]
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
    summary: Summary,
    named: Callable[[str], str] = str,
    earlier: Callable[[str], str] | None = None,
) -> list[HorizonErrors]:
    """Observations and reward; nothing if the summary has no errors by horizon."""
    horizons = list(by_horizon(summary.wm_validation, named(OBS_ERROR)))
    kinds = {
        "observations (standard deviations)": (OBS_ERROR, CONSTANT_ERROR, COPY_ERROR),
        "reward (per step)": (REWARD_RMSE, CONSTANT_REWARD_RMSE, None),
    }
    panels = []
    for title, (model, constant, copy) in kinds.items() if horizons else ():
        measures = {"world model": named(model), "task's mean": named(constant)}
        if earlier is not None:
            measures["before"] = earlier(model)
        if copy:
            measures["copy baseline"] = named(copy)
        lines = {
            line: list(by_horizon(summary.wm_validation, measure).values())
            for line, measure in measures.items()
        }
        panels.append(HorizonErrors(title, horizons, lines))
    return panels


def _heading(summary: Summary) -> Heading:
    kinds = summary.world_model.plugin + (f" × {summary.policy.plugin}" if summary.policy else "")
    return Heading(
        summary.experiment, summary.scale, summary.protocol or "pretraining", f"cell {kinds}"
    )
