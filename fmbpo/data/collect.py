"""Data of one's own: episodes of planner and random behaviour in the real tasks, into a store.

Every finished episode is kept as a small file beside the store until all are there, so that an
interrupted collection continues. Each episode has random streams of its own, derived from seed,
task and number: the result does not depend on the number of workers.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from attrs import asdict
from numpy.typing import NDArray

import fmbpo
from fmbpo.data.behaviour import EXPLORE, RECOVER, Behaviour, behaviours, make_policy, schedule
from fmbpo.data.planner_tasks import plan_task
from fmbpo.data.store import open_store
from fmbpo.data.store_writer import StoreWriter
from fmbpo.errors import UserError
from fmbpo.tasks.env import ACTION_REPEAT, EPISODE_STEPS, SimulationError, TaskEnv
from fmbpo.tasks.mt30 import ACTION_WIDTH, OBS_WIDTH, task_info

Progress = Callable[[int, int], None]
_ATTEMPTS = 3
_PACKAGES = ("mujoco", "dm_control", "numpy")


def collect(
    out: Path | str,
    tasks: Sequence[str],
    episodes: int | Mapping[str, int],
    seed: int = 0,
    recipe: Mapping[str, Mapping[str, Any]] | str = "default",
    workers: int = 1,
    progress: Progress | None = None,
    *,
    explore: int = 0,
    recover: int = 0,
    steps: int = EPISODE_STEPS,
    compress: bool = False,
) -> Path:
    """Collect episodes of every task and write the store ``out``.

    Given again after an interruption, it continues; a finished store is returned as it is.

    Args:
        out: the store's folder; ``<out>.parts`` holds finished episodes until the end.
        tasks: names of tasks that the planner knows.
        episodes: a task; or by task, for some need more start states than others.
        seed: of all random streams.
        recipe: name of a recipe, or behaviours by name (see `fmbpo.data.behaviour`).
        workers: processes, one core each; 1 works in this process.
        progress: called with (finished episodes, all episodes).
        explore: episodes a task of `EXPLORE`, beyond ``episodes``.
        recover: episodes a task of `RECOVER`, behind those.
        steps: agent steps an episode.
        compress: see `StoreWriter`.

    Raises:
        UserError: a task or recipe that does not exist, a number out of range, or ``out`` or its
            parts come from a different request.
    """
    out, tasks = Path(out), tuple(task_info(name).name for name in tasks)
    count = {t: episodes if isinstance(episodes, int) else episodes.get(t, 0) for t in tasks}
    _check_numbers(tasks, episodes=min(count.values(), default=1), workers=workers, steps=steps)
    for name, value in (("seed", seed), ("explore", explore), ("recover", recover)):
        if value < 0:
            raise UserError(f"{value} is negative", where=name, remedy="give 0 or more")
    mix = behaviours(recipe)
    further = [(b, n) for b, n in ((EXPLORE, explore), (RECOVER, recover)) if n]
    behind = [len(mix) + i for i, (_, n) in enumerate(further) for _ in range(n)]
    planned, mix = len(mix), mix + [b for b, _ in further]
    for task in tasks:
        plan_task(task)
    request = _request(tasks, seed, mix, steps)
    if out.exists():
        _check_finished(out, {**request, "episodes": count, "explore": explore, "recover": recover})
        return out
    parts = out.with_name(out.name + ".parts")
    _claim(parts, request)
    longest = schedule(mix[:planned], max(count.values()))
    order = {task: longest[:n] + behind for task, n in count.items()}
    # Episode by episode through the tasks, so that an early stop has some of each.
    jobs = [
        (task, e, mix[which], seed, steps, parts)
        for e in range(len(longest) + len(behind))
        for task in tasks
        for which in order[task][e : e + 1]
    ]
    missing = [job for job in jobs if not _part(parts, job[0], job[1], job[2]).exists()]
    done = len(jobs) - len(missing)
    if progress is not None:
        progress(done, len(jobs))
    for _ in _run(missing, workers):
        done += 1
        if progress is not None:
            progress(done, len(jobs))
    stated = {**request, "episodes": count, "explore": explore, "recover": recover}
    _assemble(out, order, mix, parts, stated, compress)
    shutil.rmtree(parts)
    return out


def collect_episode(
    task: str, episode: int, behaviour: Behaviour, seed: int, steps: int = EPISODE_STEPS
) -> dict[str, NDArray[np.float32]]:
    """One episode of ``steps`` + 1 rows: obs [T, 24], action [T, 6], reward [T], float32.

    The action is the executed one (with noise, clipped), the reward the environment's. Should the
    simulation diverge, the episode is drawn anew from streams that are as fixed as the first.

    Raises:
        UserError: it diverged three times.
    """
    for attempt in range(_ATTEMPTS):
        name = f"{seed}/{task}/{episode}" + (f"/{attempt}" if attempt else "")
        entropy = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
        try:
            return _simulate(task, behaviour, np.random.SeedSequence(entropy), steps)
        except SimulationError as error:
            if attempt == _ATTEMPTS - 1:
                raise UserError(
                    str(error),
                    where=f"episode {episode}, drawn {_ATTEMPTS} times",
                    remedy="choose another --seed, or another --recipe",
                ) from error
    raise AssertionError("unreachable")


def _simulate(
    task: str, behaviour: Behaviour, entropy: np.random.SeedSequence, steps: int
) -> dict[str, NDArray[np.float32]]:
    start, noise = entropy.spawn(2)
    env = TaskEnv(task)
    policy = make_policy(behaviour, task, env.action_dim, np.random.default_rng(noise))
    obs = np.zeros((steps + 1, OBS_WIDTH), np.float32)
    action = np.zeros((steps + 1, ACTION_WIDTH), np.float32)
    reward = np.zeros(steps + 1, np.float32)
    obs[0, : env.obs_dim] = env.reset(int(start.generate_state(1)[0]))
    for t in range(1, steps + 1):
        action[t, : env.action_dim] = np.clip(policy(env.env), -1.0, 1.0)
        obs[t, : env.obs_dim], reward[t] = env.step(action[t])
    return {"obs": obs, "action": action, "reward": reward}


_Job = tuple[str, int, Behaviour, int, int, Path]


def _run(jobs: Sequence[_Job], workers: int) -> Iterable[None]:
    if workers == 1 or len(jobs) < 2:
        yield from map(_collect_part, jobs)
        return
    # A fresh interpreter each (a fork would copy the threads of numerical libraries), one
    # thread each, since the processes already fill the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _leave_signals) as pool:
        futures = [pool.submit(_collect_part, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _leave_signals() -> None:
    """What a scheduler sends to all processes is this one's parent's to answer."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _collect_part(job: _Job) -> None:
    task, episode, behaviour, seed, steps, parts = job
    rows = collect_episode(task, episode, behaviour, seed, steps)
    path = _part(parts, task, episode, behaviour)
    aside = path.with_suffix(".tmp")
    with aside.open("wb") as file:
        np.savez_compressed(file, obs=rows["obs"], action=rows["action"], reward=rows["reward"])
    os.replace(aside, path)


def _part(parts: Path, task: str, episode: int, behaviour: Behaviour) -> Path:
    return parts / f"{task}-{episode:06d}-{behaviour.name}.npz"


def _assemble(
    out: Path,
    order: Mapping[str, Sequence[int]],
    mix: Sequence[Behaviour],
    parts: Path,
    request: Mapping[str, Any],
    compress: bool,
) -> None:
    returns: dict[str, dict[str, list[float]]] = {}
    tasks = list(order)
    with StoreWriter(out, tasks, [b.name for b in mix], compress=compress) as writer:
        for task in tasks:
            of_task = returns.setdefault(task, {})
            for episode, which in enumerate(order[task]):
                path = _part(parts, task, episode, mix[which])
                try:
                    with np.load(path) as rows:
                        part = {key: rows[key] for key in ("obs", "action", "reward")}
                except Exception as error:
                    raise UserError(
                        f"a damaged episode file ({type(error).__name__})",
                        where=str(path),
                        remedy="remove the file and give the same command again",
                    ) from error
                writer.append(**part, task=task, behaviour=mix[which].name)
                total = float(part["reward"].sum(dtype=np.float64))
                of_task.setdefault(mix[which].name, []).append(total)
        writer.finish(
            {
                "source": "collect",
                "planner_return": _summary(returns, _name(mix, "planner")),
                "random_return": _summary(returns, _name(mix, "random")),
                "provenance": _provenance(tasks, request),
            }
        )


def _name(mix: Sequence[Behaviour], kind: str) -> str | None:
    """The behaviour that a reference return is taken from: without noise, or white noise."""
    plain = [
        b for b in mix if b.kind == kind and not (b.noise or b.smooth or b.bursts or b.interrupted)
    ]
    names = [b.name for b in plain]
    return names[0] if names else None


def _summary(
    returns: Mapping[str, Mapping[str, Sequence[float]]], name: str | None
) -> dict[str, dict[str, float]]:
    return {
        task: {"mean": float(np.mean(r)), "std": float(np.std(r)), "episodes": len(r)}
        for task, by_name in returns.items()
        if (r := by_name.get(name or "", ()))
    }


def _provenance(tasks: Sequence[str], request: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "command": "fmbpo data collect",
        "request": dict(request),
        "planner": {task: asdict(plan_task(task).settings) for task in tasks},
        "fmbpo": fmbpo.__version__,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _request(
    tasks: Sequence[str], seed: int, mix: Sequence[Behaviour], steps: int
) -> dict[str, Any]:
    # Without the number of episodes: more of them can be asked for while parts are there.
    return {
        "tasks": list(tasks),
        "seed": seed,
        "recipe": {b.name: {k: v for k, v in asdict(b).items() if k != "name"} for b in mix},
        "steps": steps,
        "action_repeat": ACTION_REPEAT,
    }


def _claim(parts: Path, request: Mapping[str, Any]) -> None:
    path = parts / "request.json"
    if path.exists():
        if json.loads(path.read_text()) != request:
            raise UserError(
                "holds episodes of another collection (other tasks, seed, recipe or steps)",
                where=str(parts),
                remedy="give that command again to finish it, or remove the folder",
            )
        return
    parts.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(request, indent=1))
    os.replace(aside, path)


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
