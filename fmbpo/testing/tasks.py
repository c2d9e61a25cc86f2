"""Checks the environments against recorded resets, trajectories and probes of other MT30 ones.

    python -m fmbpo.testing.tasks FILE.npz

prints a line for each task and exits with 1 where an error exceeds its bound.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from fmbpo.tasks.env import ACTION_REPEAT, TaskEnv

Arrays = Mapping[str, NDArray[Any]]

# The largest absolute difference that each quantity may have.
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
    """The largest errors of a task, by the names of ``BOUNDS``."""

    name: str
    errors: dict[str, float] = field(factory=dict)

    @property
    def failures(self) -> list[str]:
        """The quantities whose error exceeds its bound (or is not a number)."""
        return [key for key, error in self.errors.items() if not error <= BOUNDS[key]]

    def __str__(self) -> str:
        values = "  ".join(f"{key} {error:.1e}" for key, error in self.errors.items())
        verdict = "FAILED: " + ", ".join(self.failures) if self.failures else "ok"
        return f"{self.name:<24} {values}  {verdict}"


def check_task(name: str, golden: Arrays, seed: int) -> TaskReport:
    """Compare a task with its recording.

    Args:
        name: the task.
        golden: the recorded arrays by their names without the task's.
        seed: the random seed that they were recorded with.

    Returns:
        The largest absolute errors of resets, of steps from each recorded state, of the whole
        trajectory, and of the probes (static, and after one control step).
    """
    env = TaskEnv(name)
    worst = _Worst()
    worst.of("reset", env.reset(seed), golden["resets_obs"][0])
    for recorded in golden["resets_obs"][1:]:
        worst.of("reset", env.reset(), recorded)
    _check_path(env, golden, seed, worst)
    _check_steps(env, golden, seed, worst)
    _check_probes(env, golden, worst)
    return TaskReport(name, worst.errors)


def _check_path(env: TaskEnv, golden: Arrays, seed: int, worst: _Worst) -> None:
    worst.of("reset", env.reset(seed), golden["obs"][0])
    for t, action in enumerate(golden["action"]):
        obs, reward = env.step(action)
        worst.of("path obs", obs, golden["obs"][t + 1])
        worst.of("path reward", reward, golden["reward"][t])
    if "reset2_obs" in golden:
        worst.of("reset", env.reset(), golden["reset2_obs"])


def _check_steps(env: TaskEnv, golden: Arrays, seed: int, worst: _Worst) -> None:
    env.reset(seed)
    for t, action in enumerate(golden["action"]):
        _set_state(env, golden["qpos"][t], golden["qvel"][t])
        obs, reward = env.step(action)
        worst.of("step obs", obs, golden["obs"][t + 1])
        worst.of("step reward", reward, golden["reward"][t])


def _check_probes(env: TaskEnv, golden: Arrays, worst: _Worst) -> None:
    physics, task = env.env.physics, env.env.task
    for i, control in enumerate(golden["probe_ctrl"]):
        env.reset()
        _set_target(env, golden, i)
        state = golden["probe_qpos"][i], golden["probe_qvel"][i]
        _set_state(env, *state)
        physics.set_control(control)
        physics.forward()
        obs = _flat(task.get_observation(physics))
        worst.of("probe obs", obs, golden["probe_obs_static"][i])
        worst.of("probe reward", task.get_reward(physics), golden["probe_reward_static"][i])
        _set_state(env, *state)
        result = env.env.step(control)
        worst.of("probe step obs", _flat(result.observation), golden["probe_obs_step"][i])
        worst.of("probe step reward", result.reward, golden["probe_reward_step"][i])


def _set_state(env: TaskEnv, qpos: NDArray[Any], qvel: NDArray[Any]) -> None:
    physics = env.env.physics
    with physics.reset_context():
        physics.data.qpos[:] = qpos
        physics.data.qvel[:] = qvel


def _set_target(env: TaskEnv, golden: Arrays, probe: int) -> None:
    """Write what a reset writes into the model: target (reacher, fish, finger), hinge damping."""
    model = env.env.physics.named.model
    for kind in ("geom", "site"):
        if f"probe_target_{kind}_pos" in golden:
            position = golden[f"probe_target_{kind}_pos"][probe]
            getattr(model, f"{kind}_pos")["target"] = position
            size = golden[f"probe_target_{kind}_size0"][probe]
            getattr(model, f"{kind}_size")["target", 0] = size
    if "probe_hinge_dof_damping" in golden:
        model.dof_damping["hinge"] = golden["probe_hinge_dof_damping"][probe]


def _flat(observation: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    flat = np.concatenate([np.ravel(value) for value in observation.values()])
    return flat.astype(np.float32)


class _Worst:
    """The largest absolute error seen of each quantity; infinite where shapes differ."""

    def __init__(self) -> None:
        self.errors: dict[str, float] = {}

    def of(self, key: str, ours: Any, recorded: Any) -> None:
        """Take one more comparison into account."""
        ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
        error = float("inf")
        if ours.shape == recorded.shape:
            error = float(np.abs(ours - recorded).max(initial=0.0))
        self.errors[key] = float(np.maximum(self.errors.get(key, 0.0), error))  # keeps NaN


def golden_tasks(file: Path) -> tuple[int, dict[str, dict[str, NDArray[Any]]]]:
    """Read a recording: its seed, and the arrays of each task by their names without the task's."""
    with np.load(file) as archive:
        meta = json.loads(str(archive["meta"]))
        tasks: dict[str, dict[str, NDArray[Any]]] = {name: {} for name in meta["tasks"]}
        for key in archive.files:
            task, _, array = key.partition("/")
            if array:
                tasks[task][array] = archive[key]
    repeat = meta["action_repeat"]
    if repeat != ACTION_REPEAT:
        raise ValueError(f"{file}: recorded with action repeat {repeat}, not {ACTION_REPEAT}")
    return int(meta["seed"]), tasks


def main(arguments: list[str] | None = None) -> int:
    """Check a recording from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="fmbpo.testing.tasks", description=__doc__)
    parser.add_argument("file", type=Path, help="the recording, an .npz")
    seed, tasks = golden_tasks(parser.parse_args(arguments).file)
    failed = False
    for name, golden in tasks.items():
        report = check_task(name, golden, seed)
        failed |= bool(report.failures)
        print(report, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
