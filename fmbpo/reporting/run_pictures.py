"""Pictures of runs and studies, drawn from their folders once their results are complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fmbpo.base import metrics
from fmbpo.base.files import read_object
from fmbpo.reporting import curves
from fmbpo.runs.folder import RunFolder
from fmbpo.runs.plan import STUDY
from fmbpo.runs.summary import Summary

_ERRORS = {
    "observations (standard deviations)": (
        metrics.OBS_ERROR,
        metrics.CONSTANT_ERROR,
        metrics.COPY_ERROR,
    ),
    "reward (per step)": (metrics.REWARD_RMSE, metrics.CONSTANT_REWARD_RMSE, ""),
}
"""The measures of the world model, of the task's mean, and of the copy baseline if it has one."""

_MANY = 9
"""With more tasks, a study's picture has their returns alone."""


def draw_missing(folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Draw the missing pictures of a complete run or study; returns all. Failures only warn."""
    found = []
    for name, picture in _pictures(folder).items():
        path = folder / name
        try:
            if not path.exists():
                picture(path)
            found.append(path)
        except Exception as error:
            say(f"WARNING: cannot draw {path} ({error}); the results are complete")
    return found


def _pictures(folder: Path) -> dict[str, Callable[[Path], None]]:
    """The function that draws each picture, by file name."""
    if (folder / STUDY).is_file():
        return {"comparison.png": lambda path: _cells(path, folder)}
    run = RunFolder.open(folder)
    summary = Summary.of_run(run)
    if summary.policy is None:
        return {
            "curves.png": lambda path: _world_models(
                path, summary, [*_losses(run), *_errors(summary)]
            )
        }
    found = {"curves.png": lambda path: _policies(path, run, summary)}
    if errors := _errors(summary, metrics.after, metrics.before):
        found["model_errors.png"] = lambda path: _world_models(path, summary, errors)
    return found


def _policies(path: Path, run: RunFolder, summary: Summary) -> None:
    """Learning curves from the run's own record."""
    returns = metrics.cell_series(run.metrics, metrics.RETURN)
    panels = []
    for task, result in summary.tasks.items():
        levels = {
            "planner (true simulator)": result.reference_return,
            "PWM, published": result.pwm_return,
            "random": result.random_return_mean,
        }
        panels.append(curves.learning_panel(task, returns[task], levels))
    columns = 3 if len(panels) <= 9 else 5
    curves.draw(path, _heading(summary), panels, columns=columns, size=(3.6, 2.7))


def _world_models(path: Path, summary: Summary, panels: Sequence[curves.Panel]) -> None:
    curves.draw(path, _heading(summary), panels, size=(4.4, 3.4), own_legends=True)


def _losses(run: RunFolder) -> list[curves.Panel]:
    """A panel of the losses over training, if the run's record has any."""
    names = (metrics.CONSISTENCY, metrics.REWARD_LOSS)
    found = metrics.all_series(run.metrics, names)
    losses = {name: series[""][""] for name, series in found.items() if series}
    return [curves.losses_panel(losses)] if losses else []


def _cells(path: Path, folder: Path) -> None:
    """The curves of a study's cells together: a panel for each task and quantity."""
    study = read_object(folder / STUDY)
    runs = {name: RunFolder.open(folder.parent / run) for name, run in study["cells"].items()}
    summaries = [Summary.of_run(run) for run in runs.values()]
    tasks = dict.fromkeys(task for summary in summaries for task in summary.tasks)
    many = len(tasks) > _MANY
    titles = metrics.POLICY_PANELS if tasks else metrics.PRETRAINING_PANELS
    if many:
        titles = {metrics.TITLES[metrics.RETURN]: metrics.RETURN}
    wanted = [*titles.values(), *metrics.REAL.values()]
    series = {name: metrics.all_series(run.metrics, wanted) for name, run in runs.items()}
    panels = []
    for title, metric in titles.items():
        # A world model's own metrics have no task: one panel for all.
        for task in tasks or [""]:
            cells = {name: found[metric].get(task, {}) for name, found in series.items()}
            if any(cells.values()):
                real = metrics.REAL.get(metric, "")
                known = [x for f in series.values() for x in f.get(real, {}).get(task, {}).values()]
                at = task if many else f"{task}: {title}" if task else title
                panels.append(curves.study_panel(at, cells, known[0] if known else ()))
    protocols = dict.fromkeys(summary.protocol or "pretraining" for summary in summaries)
    differs = f"{'returns · ' if many else ''}differs: {'; '.join(study['factors'])}"
    heading = curves.Heading(study["name"], summaries[0].scale, " | ".join(protocols), differs)
    curves.draw(path, heading, panels, columns=6 if many else len(tasks) or len(panels))


def _errors(
    summary: Summary,
    named: Callable[[str], str] = str,
    earlier: Callable[[str], str] | None = None,
) -> list[curves.Panel]:
    """A panel for observations and one for the reward, if the summary has errors by horizon."""
    panels = []
    for title, (model, constant, copy) in _ERRORS.items():
        names = {"world model": named(model), "task's mean": named(constant)}
        names |= {"copy baseline": named(copy)} if copy else {}
        names |= {"before": earlier(model)} if earlier else {}
        errors = {
            line: metrics.by_horizon(summary.wm_validation, name) for line, name in names.items()
        }
        if errors["world model"]:
            panels.append(curves.errors_panel(title, errors))
    return panels


def _heading(summary: Summary) -> curves.Heading:
    kinds = summary.world_model.plugin + (f" × {summary.policy.plugin}" if summary.policy else "")
    return curves.Heading(
        summary.experiment, summary.scale, summary.protocol or "pretraining", f"cell {kinds}"
    )
