"""Checks the environments against resets, trajectories and probes recorded elsewhere.

    python -m fmbpo.testing.tasks FILE.npz

prints one line per task. The exit status is 1 if an error exceeds its bound, and 2 if the file is
not such a recording.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from fmbpo.base.files import path_of
from fmbpo.errors import UserError
from fmbpo.tasks.env import TaskEnv, flat
from fmbpo.tasks.mt30 import ACTION_REPEAT, mt30_task

Arrays = Mapping[str, NDArray[Any]]

# The largest allowed absolute difference of each quantity.
BOUNDS: dict[str, float] = {
    "reset": 0.0,
    "step obs": 1e-5,
    "step reward": 1e-6,
    "path obs": 1e-4,
    "path reward": 1e-6,
    "probe obs": 1e-6,
    "probe reward": 1e-9,
    "probe step obs": 1e-5,
    "probe step reward": 1e-8,
}


@frozen
class TaskReport:
    """The largest absolute errors of a task, by the names of ``BOUNDS``."""

    name: str
    errors: dict[str, float] = field(factory=dict)

    def compare(self, key: str, ours: Any, recorded: Any) -> None:
        """Add a comparison; its error is infinite if the shapes differ."""
        ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
        error = float("inf")
        if ours.shape == recorded.shape:
            error = float(np.abs(ours - recorded).max(initial=0.0))
        self.errors[key] = float(np.maximum(self.errors.get(key, 0.0), error))  # keeps NaN

    @property
    def failures(self) -> list[str]:
        """The quantities whose error exceeds its bound or is NaN."""
        return [key for key, error in self.errors.items() if not error <= BOUNDS[key]]

    def __str__(self) -> str:
        values = "  ".join(f"{key} {error:.1e}" for key, error in self.errors.items())
        verdict = "FAILED: " + ", ".join(self.failures) if self.failures else "ok"
        return f"{self.name:<24} {values}  {verdict}"


def check_task(name: str, golden: Arrays, seed: int) -> TaskReport:
    """The errors of a task's resets, trajectory, single steps and probes.

    ``golden``: the recorded arrays, by their names without the task's; ``seed``: theirs.
    """
    env, report = TaskEnv(name), TaskReport(name)
    for i, recorded in enumerate(golden["resets_obs"]):
        report.compare("reset", env.reset() if i else env.reset(seed), recorded)
    report.compare("reset", env.reset(seed), golden["obs"][0])
    _check_steps(env, golden, "path", report)
    if "reset2_obs" in golden:
        report.compare("reset", env.reset(), golden["reset2_obs"])
    env.reset(seed)
    _check_steps(env, golden, "step", report)
    _check_probes(env, golden, report)
    return report


def _check_steps(env: TaskEnv, golden: Arrays, kind: str, report: TaskReport) -> None:
    """Compare steps from each recorded state (kind ``step``), or in sequence (kind ``path``)."""
    for t, action in enumerate(golden["action"]):
        if kind == "step":
            _set_state(env, golden["qpos"][t], golden["qvel"][t])
        obs, reward = env.step(action)
        report.compare(f"{kind} obs", obs, golden["obs"][t + 1])
        report.compare(f"{kind} reward", reward, golden["reward"][t])


def _check_probes(env: TaskEnv, golden: Arrays, report: TaskReport) -> None:
    physics, task = env.env.physics, env.env.task
    for i, control in enumerate(golden["probe_ctrl"]):
        env.reset()
        _set_target(env, golden, i)
        state = golden["probe_qpos"][i], golden["probe_qvel"][i]
        _set_state(env, *state)
        physics.set_control(control)
        physics.forward()
        obs = flat(task.get_observation(physics))
        report.compare("probe obs", obs, golden["probe_obs_static"][i])
        report.compare("probe reward", task.get_reward(physics), golden["probe_reward_static"][i])
        _set_state(env, *state)
        result = env.env.step(control)
        report.compare("probe step obs", flat(result.observation), golden["probe_obs_step"][i])
        report.compare("probe step reward", result.reward, golden["probe_reward_step"][i])


def _set_state(env: TaskEnv, qpos: NDArray[Any], qvel: NDArray[Any]) -> None:
    physics = env.env.physics
    wanted = (physics.model.nq,), (physics.model.nv,)
    if (qpos.shape, qvel.shape) != wanted:
        what = f"a recorded state has qpos {qpos.shape} and qvel {qvel.shape}, not {wanted}"
        raise UserError(what, where=env.name, remedy="record it again with this task's model")
    with physics.reset_context():
        physics.data.qpos[:] = qpos
        physics.data.qvel[:] = qvel


def _set_target(env: TaskEnv, golden: Arrays, probe: int) -> None:
    """Set what a reset draws in the model: target (reacher, fish, finger) and hinge damping."""
    model = env.env.physics.named.model
    for kind in ("geom", "site"):
        if f"probe_target_{kind}_pos" in golden:
            position = golden[f"probe_target_{kind}_pos"][probe]
            getattr(model, f"{kind}_pos")["target"] = position
            size = golden[f"probe_target_{kind}_size0"][probe]
            getattr(model, f"{kind}_size")["target", 0] = size
    if "probe_hinge_dof_damping" in golden:
        model.dof_damping["hinge"] = golden["probe_hinge_dof_damping"][probe]


def golden_tasks(file: Path) -> tuple[int, dict[str, dict[str, NDArray[Any]]]]:
    """A recording's seed, and the arrays of each task by their names without the task's.

    Raises ``UserError`` if the file is missing, damaged, not an ``.npz`` or of another layout, or
    if a task is not in MT30.
    """
    try:
        with np.load(file) as arrays:
            found = dict(arrays)
        content = json.loads(str(found.pop("meta", "{}")))
        meta = content if isinstance(content, dict) else {}
        seed, names = meta.get("seed"), meta.get("tasks")
        alike = isinstance(names, list) and meta.get("action_repeat") == ACTION_REPEAT
        if not alike or type(seed) is not int or not 0 <= seed < 2**32:
            raise ValueError(f"meta has no seed, tasks or action_repeat {ACTION_REPEAT}: {meta}")
        tasks: dict[str, dict[str, NDArray[Any]]] = {n: {} for n in names or () if mt30_task(n)}
        for key, array in found.items():
            task, _, name = key.partition("/")
            if task not in tasks:
                raise ValueError(f"{key} belongs to no task that meta lists")
            tasks[task][name] = array
        for name, golden in tasks.items():
            _check_layout(name, golden)
    except UserError:
        raise
    except Exception as error:  # numpy, zip and JSON raise many kinds
        what = f"not a recording of MT30 tasks, or a damaged one ({error})"
        remedy = "copy it again, or name another file; docs/tasks.md describes the layout"
        raise UserError(what, where=str(file), remedy=remedy) from error
    return seed, tasks


def _check_layout(task: str, golden: Arrays) -> None:
    """``ValueError`` if an array is missing or its shape does not fit the others."""
    obs, act = mt30_task(task).obs_dim, mt30_task(task).action_dim
    steps, probes = (len(np.atleast_1d(golden.get(k, ()))) for k in ("action", "probe_ctrl"))
    shapes: dict[str, tuple[int | None, ...]] = {
        "resets_obs": (None, obs),
        "action": (steps, act),
        "obs": (steps + 1, obs),
        "reward": (steps,),
        "qpos": (steps + 1, None),
        "qvel": (steps + 1, None),
        "probe_ctrl": (probes, act),
        "probe_qpos": (probes, None),
        "probe_qvel": (probes, None),
        "probe_obs_static": (probes, obs),
        "probe_reward_static": (probes,),
        "probe_obs_step": (probes, obs),
        "probe_reward_step": (probes,),
    }
    for name, shape in shapes.items():
        array = golden.get(name, np.array("missing"))
        sides = zip_longest(shape, array.shape, fillvalue=-1)
        fits = all(have == (have if want is None else want) for want, have in sides)
        if not fits or array.size == 0 or array.dtype.kind not in "fi":
            wanted = str(shape).replace("None", "any")
            raise ValueError(f"{task}/{name} is {array.dtype} {array.shape}, not numbers {wanted}")


def main(arguments: list[str] | None = None) -> int:
    """Check a recording from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="fmbpo.testing.tasks", description="Check the environments against a recording."
    )
    parser.add_argument("file", type=path_of, help="the recording, an .npz")
    failed = False
    try:
        seed, tasks = golden_tasks(parser.parse_args(arguments).file)
        for name, golden in tasks.items():
            report = check_task(name, golden, seed)
            failed |= bool(report.failures)
            print(report, flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
