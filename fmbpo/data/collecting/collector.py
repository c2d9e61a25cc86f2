"""Collects your own data: episodes of planner and random behaviour in the real tasks.

Each finished episode is a small file next to the store (`Parts`) until all are finished, so an
interrupted collection can continue. Each episode has its own random streams, derived from seed,
task and number, so the result does not depend on the number of workers.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
from attrs import asdict, evolve, frozen

import fmbpo
from fmbpo.base.files import check_disk, disk_errors
from fmbpo.base.lock import only_writer
from fmbpo.base.structure import plain
from fmbpo.base.worker import Worker, answer
from fmbpo.data.collecting.episode import TrainedPolicies, collect_episode
from fmbpo.data.collecting.parts import Parts
from fmbpo.data.collecting.planner_stepping import check_states
from fmbpo.data.collecting.planner_tasks import settings_of
from fmbpo.data.collecting.recipes import EXPLORE, RECOVER, Behaviour, schedule
from fmbpo.data.store import check_request, open_store
from fmbpo.data.store_format import layout_of
from fmbpo.data.store_writer import StoreWriter
from fmbpo.errors import UserError
from fmbpo.tasks.known import NO_OWN, Own, suite_of, task_info
from fmbpo.tasks.mt30 import Mt30Task
from fmbpo.tasks.suite import TaskInfo

Progress = Callable[[int, int], None]
MOST_EPISODES = 1_000_000
"""Per task. Each needs a moment before the first is simulated."""
_FIXED = 2**20  # bytes that do not depend on the number of rows
_PACKAGES = ("mujoco", "dm_control", "numpy")


@frozen
class Request:
    """What to collect.

    Attributes:
        tasks: names of tasks.
        episodes: episodes per task, or a number for each task.
        mix: the behaviours (see `fmbpo.data.collecting.recipes`).
        seed: the seed of all random streams.
        explore: additional episodes per task of `EXPLORE`.
        recover: additional episodes per task of `RECOVER`, after those.
        steps: the most agent steps per episode; None: whole episodes.
        compress: see `StoreWriter`.
        policies: trained policies that replace the planner.
        own: the definitions of tasks that belong to no installed suite.
    """

    tasks: Sequence[str]
    episodes: int | Mapping[str, int]
    mix: Sequence[Behaviour]
    seed: int = 0
    explore: int = 0
    recover: int = 0
    steps: int | None = None
    compress: bool = False
    policies: TrainedPolicies | None = None
    own: Own = NO_OWN

    @property
    def infos(self) -> dict[str, TaskInfo]:
        """The tasks by name."""
        return {name: task_info(name, self.own) for name in self.tasks}


def collect(
    out: Path | str, request: Request, workers: int = 1, progress: Progress = lambda done, all: None
) -> Path:
    """Collect episodes of every task and write the store ``out``.

    After an interruption, the same call continues; a finished store is left unchanged. Until then
    ``<out>.parts`` holds the finished episodes.

    Args:
        out: the store's folder.
        request: what to collect.
        workers: number of processes, one core each; 1 uses this process.
        progress: called with (finished episodes, all episodes).

    Raises:
        UserError: a task does not exist, the planner cannot act in one, a number is out of range,
            the disk is full, or ``out`` or its parts belong to a different request.
        Taken: another process collects into ``out``.
    """
    out, request = Path(out), _checked(request, workers)
    mix, order = _scheduled(request)
    asked = _asked(request, mix)
    if out.exists():
        check_request(open_store(out), asked)
        return out
    planner = {}
    if request.policies is None:
        planner = _planned(request, order)
    parts = Parts(out.with_name(out.name + ".parts"))
    row_bytes = layout_of(suite_of(request.tasks, request.own)).row_bytes
    there = sum(path.stat().st_size for path in parts.folder.glob("*"))
    check_disk(max(_bytes(request, order, row_bytes) - there, 0), out, "--out")
    with only_writer(out):
        # Without the numbers of episodes, so that a later request can ask for more.
        kept = {key: asked[key] for key in asked if key not in ("episodes", "explore", "recover")}
        parts.claim({**kept, "planner": planner})
        # Episode by episode through all tasks, so that an early stop has some episodes of each.
        infos = request.infos
        jobs = [
            (infos[task], episode, order[task][episode])
            for episode in range(max(map(len, order.values())))
            for task in order
            if episode < len(order[task])
        ]
        missing = [job for job in jobs if not _part(parts, job).exists()]
        progress(len(jobs) - len(missing), len(jobs))
        for done, _ in enumerate(
            _run(request, parts, missing, workers), len(jobs) - len(missing) + 1
        ):
            progress(done, len(jobs))
        with disk_errors(out, intact=f"all episodes are kept in {parts.folder}"):
            names = [behaviour.name for behaviour in mix]
            writer = StoreWriter(
                out, request.tasks, names, own=request.own, compress=request.compress
            )
            returns = _assemble(writer, order, parts)
            writer.finish(
                {
                    "source": "collect",
                    "planner_return": {} if request.policies else _summary(returns, mix, "planner"),
                    "random_return": _summary(returns, mix, "random"),
                    "provenance": {
                        "command": "fmbpo data collect",
                        "request": asked,
                        "planner": planner,
                        "fmbpo": fmbpo.__version__,
                        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
                    },
                }
            )
        shutil.rmtree(parts.folder)
    return out


Order = Mapping[str, Sequence[Behaviour]]
"""The behaviour of each episode, by task."""


def _checked(request: Request, workers: int) -> Request:
    """The request with the tasks' own names and the number of episodes for each task."""
    tasks = tuple(task_info(name, request.own).name for name in request.tasks)
    if not tasks or len(set(tasks)) < len(tasks):
        raise UserError("name at least one task, and each only once", where="tasks")
    asked = request.episodes
    episodes = {t: asked if isinstance(asked, int) else asked.get(t, 0) for t in tasks}
    least = {"episodes": 1, "workers": 1, "seed": 0, "explore": 0, "recover": 0}
    least |= {} if request.steps is None else {"steps": 1}
    smallest = {"episodes": min(episodes.values()), "workers": workers}
    given = asdict(request, recurse=False) | smallest
    for name, low in least.items():
        if given[name] < low:
            what, remedy = f"{given[name]} is too small", f"give at least {low}"
            raise UserError(what, where=name, remedy=remedy)
    for name, most in (
        ("episodes", max(episodes.values())),
        ("explore", request.explore),
        ("recover", request.recover),
    ):
        if most > MOST_EPISODES:
            what, remedy = f"{most:,} is too large", f"give at most {MOST_EPISODES:,} per task"
            raise UserError(what, where=name, remedy=remedy)
    return evolve(request, tasks=tasks, episodes=episodes)


def _scheduled(request: Request) -> tuple[list[Behaviour], Order]:
    """All behaviours of the request, each once, and the behaviour of each episode by task."""

    def named(behaviour: Behaviour) -> Behaviour:
        if request.policies is None:
            return behaviour
        return evolve(behaviour, name=behaviour.name.replace("planner", "policy"))

    assert isinstance(request.episodes, Mapping)
    mix = {b.name: named(b) for b in request.mix}
    first = schedule(list(mix.values()), max(request.episodes.values()))
    extra: list[Behaviour] = []
    for behaviour, count in ((EXPLORE, request.explore), (RECOVER, request.recover)):
        if count:
            extra += [mix.setdefault(behaviour.name, named(behaviour))] * count
    return list(mix.values()), {t: first[:n] + extra for t, n in request.episodes.items()}


def _planned(request: Request, order: Order) -> dict[str, dict[str, Any]]:
    """The planner's settings by task: of all tasks of MT30, and of others in which it acts.
    UserError if it cannot act in one, since the state of its environment cannot be set."""
    settings = {}
    for name, task in request.infos.items():
        if not isinstance(task, Mt30Task):
            if not any(behaviour.kind == "planner" for behaviour in order[name]):
                continue
            check_states(task)
        settings[name] = asdict(settings_of(task))
    return settings


def _bytes(request: Request, order: Order, row_bytes: int) -> int:
    """Peak disk use in bytes: the parts (compressed) and the store, at the end."""
    infos = request.infos
    steps = {task: request.steps or infos[task].episode_steps for task in order}
    rows = sum(len(order[task]) * (steps[task] + 1) for task in order)
    store = row_bytes // 2 if request.compress else row_bytes
    return rows * (row_bytes // 2 + store) + _FIXED


Job = tuple[TaskInfo, int, Behaviour]
"""One episode: its task, its number and its behaviour."""


def _part(parts: Parts, job: Job) -> Path:
    task, episode, behaviour = job
    return parts.file(task.name, episode, behaviour.name)


def _do(request: Request, parts: Parts, job: Job) -> None:
    """Simulate an episode and write it to the parts."""
    task, episode, behaviour = job
    expert = None
    if request.policies is not None and behaviour.kind == "planner":
        expert = request.policies.policy(task.name, episode)
    rows = collect_episode(task, episode, behaviour, request.seed, request.steps, expert)
    parts.write(_part(parts, job), rows)


def serve(descriptor: int) -> None:
    """Run a worker process; a request holds the arguments of `_do`."""
    answer(descriptor, lambda request: _do(*request))


def _run(request: Request, parts: Parts, jobs: Sequence[Job], workers: int) -> Iterator[None]:
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            _do(request, parts, job)
            yield
        return
    left = iter(jobs)
    with ExitStack() as stack:  # kills them: half an episode is of no use
        pool = [stack.enter_context(Worker(__name__)) for _ in range(min(workers, len(jobs)))]
        for worker, job in zip(pool, left, strict=False):
            worker.send((request, parts, job))
        busy = list(pool)
        while busy:
            ready = wait([worker.link for worker in busy])
            for worker in [one for one in busy if one.link in ready]:
                yield worker.receive()
                next_job = next(left, None)
                if next_job is None:
                    busy.remove(worker)
                else:
                    worker.send((request, parts, next_job))


def _assemble(writer: StoreWriter, order: Order, parts: Parts) -> dict[str, dict[str, list[float]]]:
    """Write all episodes; return their returns by task and behaviour."""
    returns: dict[str, dict[str, list[float]]] = {task: {} for task in order}
    for task, behaviours in order.items():
        for episode, behaviour in enumerate(behaviours):
            rows = parts.read(parts.file(task, episode, behaviour.name))
            writer.append(
                obs=rows["obs"],
                action=rows["action"],
                reward=rows["reward"],
                task=task,
                behaviour=behaviour.name,
                terminated=bool(rows["terminated"]),
            )
            total = float(rows["reward"].sum(dtype=np.float64))
            returns[task].setdefault(behaviour.name, []).append(total)
    return returns


def _summary(
    returns: Mapping[str, Mapping[str, Sequence[float]]], mix: Sequence[Behaviour], kind: str
) -> dict[str, dict[str, float]]:
    """Statistics of the returns of the first plain behaviour of this kind, by task."""
    name = next((b.name for b in mix if b.kind == kind and b.plain), "")
    return {
        task: {"mean": float(np.mean(r)), "std": float(np.std(r)), "episodes": len(r)}
        for task, by_name in returns.items()
        if (r := by_name.get(name, ()))
    }


def _asked(request: Request, mix: Sequence[Behaviour]) -> dict[str, Any]:
    """The request as recorded in the store's provenance."""
    recipe = {b.name: {k: v for k, v in asdict(b).items() if k != "name"} for b in mix}
    infos = request.infos.values()
    repeats = {info.action_repeat for info in infos}
    own = {name: plain(request.own[name]) for name in request.tasks if name in request.own}
    return {
        "tasks": list(request.tasks),
        "seed": request.seed,
        "recipe": recipe,
        "steps": request.steps or max(info.episode_steps for info in infos),
        "action_repeat": repeats.pop() if len(repeats) == 1 else None,
        **({"own_tasks": own} if own else {}),
        **({"policy": request.policies.provenance} if request.policies else {}),
        "episodes": request.episodes,
        "explore": request.explore,
        "recover": request.recover,
    }
