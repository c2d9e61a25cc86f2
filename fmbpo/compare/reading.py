"""Reads records from folders of runs, of studies (their cells' runs) and of imported results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from fmbpo.base.files import read_object
from fmbpo.base.metrics import (
    GRADIENTS,
    OBS_ERROR,
    RETURN,
    CellSeries,
    after,
    all_series,
    by_horizon,
    replicate_of,
)
from fmbpo.base.structure import fit
from fmbpo.compare.comparison import (
    CLONED,
    PLANNER,
    RANDOM,
    Basis,
    Cell,
    Record,
    Score,
    Series,
)
from fmbpo.compare.contrasts import Declared, declaration
from fmbpo.compare.imported import read_imported
from fmbpo.config.factors import Factor
from fmbpo.config.identity import identifying, leaves
from fmbpo.errors import UserError
from fmbpo.runs.folder import RunFolder
from fmbpo.runs.plan import PLAN, STUDY, read_plan
from fmbpo.runs.status import IMPORTED
from fmbpo.runs.summary import Numbers, Summary

VIDEOS = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
"""Media types of the video files that a report shows, by extension."""
_REFERENCES = {
    PLANNER: "reference_return",
    RANDOM: "random_return_mean",
    CLONED: "cloned_return_mean",
}
"""The results of a task that are no policy's of the run, by name."""
_IN_BASIS = (
    *("scale", "data_id", "protocol.kind", "protocol.world_model", "protocol.checkpoint"),
    *("policy_learning.iterations", "policy_learning.batch", "policy_learning.horizon"),
    *("pretrain.iterations", "pretrain.batch", "pretrain.horizon"),
    *("evaluation.seed", "evaluation.final_episodes"),
)
"""Settings that a record's basis states."""
_STATED = (
    *("kind", "grid.", "conventions.", "world_model_weights"),
    *("world_model.plugin", "world_model.level", "policy.plugin", "policy.level"),
)
"""Prefixes of settings that a record states elsewhere: its cell, tasks, replicates, conventions."""


def records_of(paths: Sequence[Path]) -> list[Record]:
    """The policies' runs in these folders, in their order; each folder counts once.

    A study's folder means its cells' runs beside it, in the study's order. Pretraining runs are
    left out. Raises ``UserError`` for other folders, for a run that is not complete or whose files
    are damaged, and if no policies remain.
    """
    folders = dict.fromkeys(folder.resolve() for path in paths for folder in _runs(path))
    found = [record for folder in folders if (record := _record(folder)) is not None]
    if not found:
        why = ": these are runs that pretrain a world model" if folders else ""
        raise UserError(
            f"nothing to compare{why}",
            where=", ".join(str(path) for path in paths),
            remedy="name runs of policies, or a study of them",
        )
    return found


def declared_by(paths: Sequence[Path]) -> Declared:
    """The contrasts that the studies in these folders declare, by name.

    Raises ``UserError`` for a contrast that cannot be read, and for two of one name.
    """
    found: dict[str, tuple[Factor, str, str]] = {}
    for file in (path / STUDY for path in paths if (path / STUDY).is_file()):
        for name, entry in (read_object(file).get("contrasts") or {}).items():
            contrast = declaration(entry)
            if contrast is None:
                raise UserError(
                    f"the contrast {name!r} is not a factor with two levels",
                    where=str(file),
                    remedy="run the study again",
                )
            if found.setdefault(name, contrast) != contrast:
                raise UserError(
                    f"another study declares another contrast {name!r}",
                    where=str(file),
                    remedy="report the studies one by one",
                )
    return found


def description_of(paths: Sequence[Path]) -> str:
    """What the study in these folders asks or does; empty without one, and for several."""
    files = [path / STUDY for path in paths if (path / STUDY).is_file()]
    return str(read_object(files[0]).get("description") or "") if len(files) == 1 else ""


def _runs(path: Path) -> list[Path]:
    """The folders of a study's cells; any other folder itself."""
    file = path / STUDY
    if file.is_file():
        cells = fit(read_object(file).get("cells"), dict[str, str])
        if cells is None:
            raise UserError("names no cells", where=str(file), remedy="run the study again")
        return [path.parent / run for run in cells.values()]
    if not (path / PLAN).is_file():
        return [path]
    planned = dict.fromkeys(run.run for run in read_plan(path))
    missing = [run for run in planned if not (path.parent / run / "summary.json").is_file()]
    raise UserError(
        f"the study is not complete; missing: {', '.join(missing) or STUDY}",
        where=str(path),
        remedy="repeat the same fmbpo run, which continues it, or name the folders of the complete "
        "runs",
    )


def _record(path: Path) -> Record | None:
    """The run's record; None for a pretraining run."""
    imported = (path / IMPORTED).is_file()
    if not path.is_dir():
        remedy = "name the folder of a study, a run or imported results"
        raise UserError("there is no such folder", where=str(path), remedy=remedy)
    try:
        return read_imported(path) if imported else _record_of_run(RunFolder.open(path))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"a key is missing or has the wrong type ({error})",
            where=str(path / (IMPORTED if imported else "config.json")),
            remedy="the file was edited, or another version wrote it: "
            f"{'remove the folder and import the results again' if imported else 'run it again'}",
        ) from error


def _record_of_run(folder: RunFolder) -> Record | None:
    if not folder.is_complete:
        raise UserError(
            "the run is not complete",
            where=str(folder.path),
            remedy="repeat its command, which continues it, or leave it out",
        )
    summary, config = Summary.of_run(folder), folder.config()
    if summary.policy is None:
        return None
    if "data_id" not in config:
        raise UserError(
            "the configuration does not name the data set: an earlier version wrote it",
            where=str(folder.path / "config.json"),
            remedy="leave the run out, or run it again",
        )
    petaflops, seconds = summary.training_cost
    measured = all_series(folder.metrics, [RETURN, *GRADIENTS])
    beat, world_model = folder.heartbeat(), _world_models(summary, config)
    return Record(
        name=folder.path.name,
        source=str(folder.path),
        experiment=summary.experiment,
        phase=config["phase"],
        cell=Cell(
            config["world_model"].get("level") or summary.world_model.plugin,
            config["policy"].get("level") or summary.policy.plugin,
        ),
        basis=_basis(summary, config),
        checkpoint=summary.world_model.checkpoint or "",
        scores={
            task: {
                seed: Score(
                    x.return_mean,
                    x.returns,
                    x.episodes,
                    world_model(seed),
                    x.stochastic_return_mean,
                    x.action_noise,
                    result.untrained_return_mean,
                    x.reality,
                )
                for seed, x in result.seeds.items()
            }
            for task, result in summary.tasks.items()
        },
        curves={task: seeds for task, seeds in measured[RETURN].items() if task},
        # The errors after learning, if the model learned beside the policies.
        model_errors=by_horizon(summary.wm_validation, after(OBS_ERROR))
        or by_horizon(summary.wm_validation, OBS_ERROR),
        gradients=_gradients(measured),
        evaluations=(summary.world_model.evaluations, summary.policy.evaluations),
        petaflops=petaflops or None,
        seconds=seconds or None,
        pretraining_petaflops=_pretraining(summary.flops) / 1e15,
        pretraining_seconds=_pretraining(summary.seconds),
        hardware=beat.hardware if beat else "",
        health=summary.health,
        settings={
            key: value
            for key, value in leaves(identifying({**config, "versions": _versions(summary)}))
            if key not in _IN_BASIS and not key.startswith(_STATED)
        },
        videos=_videos(folder.path / "videos"),
        references={
            name: {
                task: value
                for task, result in summary.tasks.items()
                if (value := getattr(result, field)) is not None
            }
            for name, field in _REFERENCES.items()
        },
    )


def _gradients(measured: Mapping[str, CellSeries]) -> dict[str, dict[str, Series]]:
    """Measures of the actor's gradients by replicate: means over its policies."""
    found: dict[str, dict[str, Series]] = {}
    for metric in GRADIENTS:
        values: dict[str, dict[int, list[float]]] = {}
        for task, seeds in measured[metric].items():
            for seed, series in seeds.items() if task else ():
                at = values.setdefault(replicate_of(seed), {})
                for iteration, value in series:
                    at.setdefault(iteration, []).append(value)
        if values:
            found[metric] = {
                replicate: [(iteration, fmean(at[iteration])) for iteration in sorted(at)]
                for replicate, at in values.items()
            }
    return found


def _world_models(summary: Summary, config: Mapping[str, Any]) -> Callable[[str], str]:
    """The identity of the pretrained world model by seed; empty if every policy has its own.

    Seeds "42" and "42.1" are policies of replicate 42. Weights by replicate, or one digest for
    all, are the identity; without digest, the checkpoint is.
    """
    if summary.protocol == "scratch":
        return lambda seed: ""
    weights = config.get("world_model_weights")
    if isinstance(weights, Mapping):
        return lambda seed: str(weights[replicate_of(seed)])
    shared = str(weights or summary.world_model.checkpoint or "")
    return lambda seed: shared


def _pretraining(cost: Numbers) -> float:
    """The part of a run's cost that pretrained its world model."""
    return cost.get("pretraining", 0.0) if isinstance(cost, dict) else 0.0


def _versions(summary: Summary) -> dict[str, str | None]:
    """The versions of the plugins that trained the run's parts."""
    parts = {"world_model": summary.world_model, "policy": summary.policy}
    return {role: part.version for role, part in parts.items() if part}


def _videos(folder: Path) -> dict[tuple[str, str], str]:
    """Rendered videos ``TASK__SEED.ENDING``, by task and seed."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    whole = [f for f in files if f.suffix.lower() in VIDEOS and not f.name.startswith(".")]
    names = {file: file.stem.rpartition("__") for file in whole}
    return {(task, seed): str(file) for file, (task, _, seed) in names.items() if task}


def _basis(summary: Summary, config: Mapping[str, Any]) -> Basis:
    evaluation = config["evaluation"]
    tasks = config["data"]["tasks"]
    return Basis(
        protocol=summary.protocol or "",
        conventions=summary.conventions_text,
        scale=summary.scale,
        data=config["data_id"] + (f", tasks {', '.join(tasks)}" if tasks else ""),
        evaluation=f"{evaluation['final_episodes']} episodes, seed {evaluation['seed']}",
        budget=_budget(config),
    )


def _budget(config: Mapping[str, Any]) -> str:
    """``700 updates x 16 x 16; world model: 5000 x 128 x 6``: iterations, batch, horizon."""

    def of(table: Mapping[str, Any], updates: str = "") -> str:
        return f"{table['iterations']}{updates} x {table['batch']} x {table['horizon']}"

    protocol, text = config["protocol"], of(config["policy_learning"], " updates")
    if "model_iterations" in protocol:
        text += f", {protocol['model_iterations']} of the world model before each"
    if protocol.get("checkpoint"):
        checkpoint = Path(protocol["checkpoint"])
        # For a run's own checkpoint, RUN/checkpoints/best, show RUN.
        inside = checkpoint.parent.name == "checkpoints"
        return f"{text}; world model: {(checkpoint.parent.parent if inside else checkpoint).name}"
    if protocol.get("world_model"):
        return f"{text}; world model: {of(config['pretrain'])}"
    return f"{text}; world model: random initialisation"
