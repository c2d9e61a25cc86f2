"""Data sets of Minari (https://minari.farama.org), one episode at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

import fmbpo
from fmbpo.base.files import check_disk, remove_tree
from fmbpo.base.lock import only_writer
from fmbpo.base.structure import plain
from fmbpo.base.text import text_of
from fmbpo.data.store import check_request, open_store
from fmbpo.data.store_writer import StoreWriter
from fmbpo.errors import UserError
from fmbpo.tasks.gymnasium_task import box_of
from fmbpo.tasks.known import Own, suite_with, task_info
from fmbpo.tasks.suite import TaskInfo
from fmbpo.tasks.table import GymnasiumTable

_FIXED = 2**20
_EPISODE = 12


@frozen
class MinariImport:
    """What to import.

    Attributes:
        dataset: the data set's id, such as ``"mujoco/invertedpendulum/expert-v0"``. It must be on
            this machine; nothing is downloaded.
        task: the task's name.
        own: the definitions of tasks that belong to no installed suite. If neither has the task, it
            is the environment that the data set names.
        compress: see `StoreWriter`.
    """

    dataset: str
    task: str
    own: Own
    compress: bool = False


def import_minari(
    asked: MinariImport,
    out: Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the episodes of a Minari data set into the store ``out``, and return it.

    Observations are flattened, and actions scaled from their bounds to [-1, 1]. Terminations are
    kept apart from truncations. After an interruption, the same call continues; a finished store
    of the same data set is left unchanged. ``progress`` is called with (episodes done, all).

    Raises:
        UserError: minari is not installed, there is no such data set, its spaces are not Box, they
            do not fit the task, a value is unfit, or ``out`` has other content.
    """
    data = _load(asked.dataset)
    where = f"data set {asked.dataset}"
    own, defined = dict(asked.own), asked.task in asked.own or suite_with(asked.task) is not None
    if not defined:
        own[asked.task] = _named_by(data, where)
    task = task_info(asked.task, own)
    actions = _checked(data, task, where)
    own = {task.name: own[task.name]} if task.name in own else {}
    request = {
        "kind": "minari",
        "dataset": asked.dataset,
        "episodes": int(data.total_episodes),
        "steps": int(data.total_steps),
        "task": task.name,
        "compress": asked.compress,
        "own_tasks": {name: plain(table) for name, table in own.items()},
    }
    if not defined:
        say(f"define the task in the experiment:\n{_toml(task.name, own[task.name])}")
    if out.exists():
        check_request(open_store(out), request)
        say(f"{out} already holds exactly this data set; nothing to do")
        return out
    total = int(data.total_episodes)
    with only_writer(out):
        writer = StoreWriter(
            out,
            [task.name],
            ["replay"],  # the behaviour of imported episodes is unknown
            own=own,
            compress=asked.compress,
            resume=True,
            provenance={
                "command": "fmbpo data import-minari",
                "request": request,
                "fmbpo": fmbpo.__version__,
            },
        )
        rows = int(data.total_steps) + total
        needed = rows * writer.layout.row_bytes + total * _EPISODE + _FIXED
        say(check_disk(needed, out, "--out", " on the disk"))
        progress(writer.episodes, total)
        for episode in data.iterate_episodes(list(data.episode_indices[writer.episodes :])):
            try:
                writer.append(**_rows(episode, actions), task=task.name, behaviour="replay")
            except UserError:
                # A data set with a bad value is never imported, so the partial store is useless.
                remove_tree(writer.partial)
                raise
            progress(writer.episodes, total)
        writer.finish({"source": "minari"})
    return out


def _load(dataset: str) -> Any:
    """The data set; `UserError` if it cannot be opened."""
    where = f"data set {dataset}"
    try:
        import minari
    except ImportError as error:
        remedy = "pip install 'fmbpo[minari]'"
        raise UserError("minari is not installed", where=where, remedy=remedy) from error
    try:
        return minari.load_dataset(dataset)
    except FileNotFoundError as error:
        what, remedy = "it is not on this machine", f"run: minari download {dataset}"
        raise UserError(what, where=where, remedy=remedy) from error
    except Exception as error:  # foreign code, and damaged files, may raise anything
        what = f"it cannot be opened: {type(error).__name__}: {' '.join(text_of(error).split())}"
        raise UserError(what, where=where, remedy="download it again, or update minari") from error


def _named_by(data: Any, where: str) -> GymnasiumTable:
    """The environment that the data set names, as a task."""
    spec = data.env_spec
    if spec is None:
        raise UserError(
            "it names no environment",
            where=where,
            remedy="define the task with [tasks.NAME] in an experiment, and give it with "
            "--experiment FILE --task NAME",
        )
    kwargs = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
    return GymnasiumTable(
        gymnasium=spec.id, kwargs=kwargs, episode_steps=int(spec.max_episode_steps or 0)
    )


@frozen
class _Actions:
    """The centre and the half width of the actions' bounds, flat."""

    centre: NDArray[np.float64]
    half: NDArray[np.float64]


def _checked(data: Any, task: TaskInfo, where: str) -> _Actions:
    """The actions' bounds; `UserError` if the spaces are not Box or do not fit the task."""
    try:
        obs, action = (box_of(data, name) for name in ("observation_space", "action_space"))
    except UserError as error:
        raise UserError(error.what, where=where, remedy="import another data set") from None
    found = [int(np.prod(space.shape)) for space in (obs, action)]
    if found != [task.obs_dim, task.action_dim]:
        raise UserError(
            f"{found} numbers per observation and action, but task {task.name!r} has "
            f"{[task.obs_dim, task.action_dim]}",
            where=where,
            remedy="name the task that the data set is of",
        )
    if task.action_repeat != 1:
        what = f"a row per step, but task {task.name!r} has action_repeat {task.action_repeat}"
        raise UserError(what, where=where, remedy="define the task with action_repeat = 1")
    low, high = (x.astype(np.float64).ravel() for x in (action.low, action.high))
    return _Actions((high + low) / 2, (high - low) / 2)


def _rows(episode: Any, actions: _Actions) -> dict[str, Any]:
    """The store's rows of an episode: those of a step are behind it."""
    steps = len(episode.rewards)
    obs = np.asarray(episode.observations, np.float32).reshape(steps + 1, -1)
    taken = np.asarray(episode.actions, np.float64).reshape(steps, -1)
    scaled = np.clip((taken - actions.centre) / actions.half, -1.0, 1.0)
    none = np.zeros((1, scaled.shape[1]))
    return {
        "obs": obs,
        "action": np.concatenate([none, scaled]).astype(np.float32),
        "reward": np.concatenate([[0.0], episode.rewards]).astype(np.float32),
        "terminated": bool(steps and episode.terminations[-1]),
    }


def _toml(name: str, table: Any) -> str:
    """The table of a task, as a file has it."""
    import json

    values = {
        field.name: getattr(table, field.name)
        for field in attrs.fields(type(table))
        if getattr(table, field.name) not in ({}, 0)
    }
    kwargs = values.pop("kwargs", {})
    lines = [f"[tasks.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    if kwargs:
        lines.append(f"[tasks.{name}.kwargs]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in kwargs.items()]
    return "\n".join(lines)
