"""Data of one's own: episodes of planner and random behaviour in the real tasks, into a store.

Every finished episode is kept as a small file beside the store until all are there, so that an
interrupted collection continues. Each episode has random streams of its own, derived from seed,
task and number: the result does not depend on the number of workers.
"""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from attrs import asdict, evolve, frozen

import fmbpo
from fmbpo.base.disk import check_disk
from fmbpo.base.files import disk_errors
from fmbpo.data.collecting.behaviour import Agent
from fmbpo.data.collecting.episode import collect_episode
from fmbpo.data.collecting.parts import Parts
from fmbpo.data.collecting.planner_tasks import plan_task
from fmbpo.data.collecting.recipes import EXPLORE, RECOVER, Behaviour, schedule
from fmbpo.data.store import open_store
from fmbpo.data.store_format import ROW_BYTES
from fmbpo.data.store_writer import StoreWriter
from fmbpo.errors import UserError
from fmbpo.tasks.env import ACTION_REPEAT, EPISODE_STEPS
from fmbpo.tasks.mt30 import task_info

Progress = Callable[[int, int], None]
_FIXED = 2**20  # bytes of what has no rows
_PACKAGES = ("mujoco", "dm_control", "numpy")


def collect(
    out: Path | str,
    tasks: Sequence[str],
    episodes: int | Mapping[str, int],
    mix: Sequence[Behaviour],
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
    *,
    explore: int = 0,
    recover: int = 0,
    steps: int = EPISODE_STEPS,
    compress: bool = False,
    agent: Agent | None = None,
) -> Path:
    """Collect episodes of every task and write the store ``out``.

    Given again after an interruption, it continues; a finished store is returned as it is.

    Args:
        out: the store's folder; ``<out>.parts`` holds finished episodes until the end.
        tasks: names of tasks that the planner knows.
        episodes: a task; or by task, for some need more start states than others.
        mix: the behaviours (see `fmbpo.data.collecting.recipes`).
        seed: of all random streams.
        workers: processes, one core each; 1 works in this process.
        progress: called with (finished episodes, all episodes).
        explore: episodes a task of `EXPLORE`, beyond ``episodes``.
        recover: episodes a task of `RECOVER`, behind those.
        steps: agent steps an episode.
        compress: see `StoreWriter`.
        agent: a trained policy that acts wherever the mix says planner.

    Raises:
        UserError: a task that does not exist, a number out of range, a disk that is full, or
            ``out`` or its parts come from a different request.
    """
    out, tasks = Path(out), tuple(task_info(name).name for name in tasks)
    count = {t: episodes if isinstance(episodes, int) else episodes.get(t, 0) for t in tasks}
    _check_numbers(tasks, episodes=min(count.values(), default=1), workers=workers, steps=steps)
    for name, value in (("seed", seed), ("explore", explore), ("recover", recover)):
        if value < 0:
            raise UserError(f"{value} is negative", where=name, remedy="give 0 or more")
    further = [(b, n) for b, n in ((EXPLORE, explore), (RECOVER, recover)) if n]
    plan = _plan(mix, further, count, agent is not None)
    request = _request(tasks, seed, plan.mix, steps, agent)
    asked = {**request, "episodes": count, "explore": explore, "recover": recover}
    if out.exists():
        _check_finished(out, asked)
        return out
    planner = {} if agent else {t: asdict(plan_task(t).settings) for t in tasks}
    parts = Parts.beside(out)
    check_disk(max(_bytes(plan, steps, compress) - parts.bytes, 0), out, "--out")
    parts.claim({**request, "planner": planner})
    jobs = [
        _Job(task, e, plan.mix[which], seed, steps, parts, agent)
        for e, task, which in plan.by_episode()
    ]
    missing = [job for job in jobs if not parts.has(job.task, job.episode, job.behaviour.name)]
    done = len(jobs) - len(missing)
    if progress is not None:
        progress(done, len(jobs))
    for _ in _run(missing, workers):
        done += 1
        if progress is not None:
            progress(done, len(jobs))
    with disk_errors(out, intact=f"all episodes are kept in {parts.folder}"):
        _assemble(out, plan, parts, {**asked, "planner": planner}, compress)
    parts.remove()
    return out


def _bytes(plan: _Plan, steps: int, compress: bool) -> int:
    """Most bytes at a time, in the end: the parts, which are compressed, and the store."""
    rows = sum(map(len, plan.order.values())) * (steps + 1)
    return rows * (ROW_BYTES // 2 + (ROW_BYTES // 2 if compress else ROW_BYTES)) + _FIXED


@frozen
class _Plan:
    """Which behaviour each episode of each task has."""

    mix: tuple[Behaviour, ...]
    order: Mapping[str, Sequence[int]]

    def by_episode(self) -> Iterable[tuple[int, str, int]]:
        """(episode, task, behaviour), through all tasks first: an early stop has some of each."""
        for e in range(max(len(order) for order in self.order.values())):
            for task, order in self.order.items():
                if e < len(order):
                    yield e, task, order[e]


def _plan(
    mix: Sequence[Behaviour],
    further: Sequence[tuple[Behaviour, int]],
    count: Mapping[str, int],
    by_policy: bool,
) -> _Plan:
    whole, behind = list(mix), []
    for behaviour, episodes in further:
        if behaviour.name not in [b.name for b in whole]:
            whole.append(behaviour)
        behind += [[b.name for b in whole].index(behaviour.name)] * episodes
    longest = schedule(mix, max(count.values()))
    if by_policy:
        whole = [evolve(b, name=b.name.replace("planner", "policy")) for b in whole]
    return _Plan(tuple(whole), {task: longest[:n] + behind for task, n in count.items()})


@frozen
class _Job:
    """One episode; it is sent to a worker."""

    task: str
    episode: int
    behaviour: Behaviour
    seed: int
    steps: int
    parts: Parts
    agent: Agent | None

    def do(self) -> None:
        """Simulate it and keep it."""
        expert = None
        if self.agent is not None and self.behaviour.kind == "planner":
            expert = self.agent.policy(self.task, self.episode)
        rows = collect_episode(
            self.task, self.episode, self.behaviour, self.seed, self.steps, expert
        )
        self.parts.write(self.task, self.episode, self.behaviour.name, rows)


def _run(jobs: Sequence[_Job], workers: int) -> Iterable[None]:
    if workers == 1 or len(jobs) < 2:
        yield from map(_Job.do, jobs)
        return
    # A fresh interpreter each (a fork would copy the threads of numerical libraries), one
    # thread each, since the processes already fill the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _leave_signals)
    try:
        for future in as_completed([pool.submit(_Job.do, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker died, perhaps for want of memory; finished episodes are kept",
            where="collecting",
            remedy="give the same command again, with fewer --workers",
        ) from error
    finally:
        # At once: an episode that is half done is of no use to anyone.
        for child in multiprocessing.active_children():
            child.kill()
        pool.shutdown(cancel_futures=True)


def _leave_signals() -> None:
    """What a scheduler sends to all processes is this one's parent's to answer."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _assemble(
    out: Path, plan: _Plan, parts: Parts, request: Mapping[str, Any], compress: bool
) -> None:
    returns: dict[str, dict[str, list[float]]] = {}
    tasks = list(plan.order)
    with StoreWriter(out, tasks, [b.name for b in plan.mix], compress=compress) as writer:
        for task in tasks:
            of_task = returns.setdefault(task, {})
            for episode, which in enumerate(plan.order[task]):
                name = plan.mix[which].name
                part = parts.read(task, episode, name)
                writer.append(**part, task=task, behaviour=name)
                total = float(part["reward"].sum(dtype=np.float64))
                of_task.setdefault(name, []).append(total)
        by_planner = "planner" if "policy" not in request else None
        writer.finish(
            {
                "source": "collect",
                "planner_return": _summary(returns, _plain(plan.mix, by_planner)),
                "random_return": _summary(returns, _plain(plan.mix, "random")),
                "provenance": _provenance(request),
            }
        )


def _plain(mix: Sequence[Behaviour], kind: str | None) -> str:
    """The behaviour that a reference return is taken from."""
    return next((b.name for b in mix if b.kind == kind and b.plain), "")


def _summary(
    returns: Mapping[str, Mapping[str, Sequence[float]]], name: str
) -> dict[str, dict[str, float]]:
    return {
        task: {"mean": float(np.mean(r)), "std": float(np.std(r)), "episodes": len(r)}
        for task, by_name in returns.items()
        if (r := by_name.get(name, ()))
    }


def _provenance(request: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "command": "fmbpo data collect",
        "request": {key: value for key, value in request.items() if key != "planner"},
        "planner": request["planner"],
        "fmbpo": fmbpo.__version__,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _request(
    tasks: Sequence[str], seed: int, mix: Sequence[Behaviour], steps: int, agent: Agent | None
) -> dict[str, Any]:
    # Without the number of episodes: more of them can be asked for while parts are there.
    return {
        "tasks": list(tasks),
        "seed": seed,
        "recipe": {b.name: {k: v for k, v in asdict(b).items() if k != "name"} for b in mix},
        "steps": steps,
        "action_repeat": ACTION_REPEAT,
        **({"policy": agent.provenance} if agent else {}),
    }


def _check_finished(out: Path, request: Mapping[str, Any]) -> None:
    found = open_store(out).attributes.get("provenance", {}).get("request")
    if found != request:
        raise UserError(
            "another data set is here already",
            where=str(out),
            remedy="choose another name, or remove the folder",
        )


def _check_numbers(tasks: Sequence[str], **numbers: int) -> None:
    if not tasks or len(set(tasks)) < len(tasks):
        raise UserError("name at least one task, and each only once", where="tasks")
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"{value} is too small", where=name, remedy="give at least 1")
