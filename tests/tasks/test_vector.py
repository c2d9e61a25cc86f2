from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import fmbpo
from fmbpo.base import worker
from fmbpo.errors import UserError
from fmbpo.tasks.env import TaskEnv
from fmbpo.tasks.mt30 import SUITE
from fmbpo.tasks.suite import SimulationError
from fmbpo.tasks.vector import EpisodeRunner

TASKS = ["cheetah-run", "cup-spin", "reacher-easy", "cheetah-run", "finger-turn-hard"]
SEEDS = [4, 0, 9]
STEPS = 40


def act(obs: NDArray[np.float32], t: int) -> NDArray[np.float32]:
    """Actions that depend on the observations, the row and the step."""
    rows = np.arange(len(obs), dtype=np.float32)[:, None, None]
    return np.sin(3 * obs[..., : SUITE.action_width] + obs[..., 6:12] + rows + 0.3 * t)


def alone(row: int, seed: int) -> list[float]:
    env = TaskEnv(TASKS[row])
    obs, rewards = env.reset(seed), []
    for t in range(STEPS):
        padded = np.zeros((len(TASKS), 1, SUITE.obs_width), np.float32)
        padded[row, 0, : env.obs_dim] = obs
        obs, reward = env.step(act(padded, t)[row, 0])
        rewards.append(reward)
    return rewards


def test_rewards_are_those_of_single_environments_whatever_the_number_of_workers() -> None:
    expected = np.array([[alone(row, seed) for seed in SEEDS] for row in range(len(TASKS))])
    assert (expected.sum(-1).std(axis=1) > 0).any()
    for workers in (0, 1, 2, 3):
        with EpisodeRunner(workers, SUITE) as runner:
            rewards = runner.run(act, TASKS, SEEDS, STEPS)
            assert rewards.dtype == np.float64
            np.testing.assert_array_equal(rewards, expected)
            # Environments are used again, in other numbers and places.
            runner.run(act, TASKS[:1], [1, 2], 3)
            np.testing.assert_array_equal(runner.run(act, TASKS, SEEDS, STEPS), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_policy_sees_padded_batches_and_progress_is_told(workers: int) -> None:
    seen, told = [], []

    def remember(obs: NDArray[np.float32], t: int) -> NDArray[np.float32]:
        seen.append((obs, t))
        return np.zeros((*obs.shape[:2], SUITE.action_width), np.float32)

    with EpisodeRunner(workers, SUITE) as runner:
        tasks = ["reacher_easy", "dmcontrol-walker-walk"]
        runner.run(remember, tasks, [7], 3, lambda done, steps: told.append((done, steps)))
        assert runner.run(remember, tasks, [], 1).shape == (2, 0, 1)
        assert runner.run(remember, tasks, [1], 0).shape == (2, 1, 0)
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert [t for _, t in seen] == [0, 1, 2]
    first = seen[0][0]
    assert first.shape == (2, 1, SUITE.obs_width)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first[0, 0, :6], TaskEnv("reacher-easy").reset(7))
    assert (first[0, 0, 6:] == 0).all()
    np.testing.assert_array_equal(first[1, 0], TaskEnv("walker-walk").reset(7))
    assert (seen[1][0] != first).any()  # each batch is the policy's own to keep


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_name_task_and_seed_and_the_runner_goes_on(workers: int) -> None:
    def poison(obs: NDArray[np.float32], t: int) -> NDArray[np.float32]:
        actions = act(obs, t)
        if t == 2:
            actions[1, 2, 0] = np.nan
        return actions

    with EpisodeRunner(workers, SUITE) as runner:
        with pytest.raises(SimulationError, match=r"cup-spin, step 2: .*not finite.*seed 9"):
            runner.run(poison, TASKS, SEEDS, STEPS)
        with pytest.raises(ValueError, match="act returned shape"):
            runner.run(lambda obs, t: obs, TASKS, SEEDS, STEPS)
        with pytest.raises(UserError, match="cup-spni"):
            runner.run(act, ["cup-spni"], SEEDS, STEPS)
        with pytest.raises(ValueError, match="501"):
            runner.run(act, TASKS, SEEDS, 501)
        with pytest.raises(KeyboardInterrupt):
            runner.run(_interrupted, TASKS, SEEDS, STEPS)
        with pytest.raises(MemoryError) as kept:
            runner.run(act, TASKS[:1], [1], 3, _out_of_memory)
        assert kept.traceback  # whose frames must not hold the workers in the middle of a step
        assert runner.run(act, TASKS, SEEDS, 2).shape == (5, 3, 2)


def _out_of_memory(done: int, steps: int) -> None:
    raise MemoryError


def _interrupted(obs: NDArray[np.float32], t: int) -> NDArray[np.float32]:
    raise KeyboardInterrupt


def test_a_killed_worker_is_reported() -> None:
    with EpisodeRunner(2, SUITE) as runner:
        runner.run(act, TASKS, SEEDS, 1)
        workers = [one._process for one in runner._workers]

        def kill(obs: NDArray[np.float32], t: int) -> NDArray[np.float32]:
            if t == 1:
                workers[1].kill()
            return act(obs, t)

        with pytest.raises(UserError, match=r"ended unexpectedly \(exit status -9\)\n.*memory"):
            runner.run(kill, TASKS, SEEDS, STEPS)
        assert workers[0].poll() is not None
        assert runner.run(act, TASKS, SEEDS, 1).shape == (5, 3, 1)


def spoilt(folder: Path, *names: str) -> Path:
    """A folder of modules that cannot be imported."""
    for name in names:
        (folder / f"{name}.py").write_text("raise ImportError('the wrong one')")
    return folder


@pytest.mark.parametrize("first", ["", "{here}", "/elsewhere"])
def test_workers_take_nothing_from_the_working_directory(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(spoilt(tmp_path, "random", "signal", "dm_control", "fmbpo"))
    ours = [first.format(here=tmp_path), *filter(None, sys.path)]
    monkeypatch.setattr(sys, "path", ours)  # as of `python -c`, of `python -m`, of a command
    with EpisodeRunner(1, SUITE) as runner:
        assert runner.run(act, TASKS[2:3], SEEDS[:1], 2).shape == (1, 1, 2)


def test_workers_find_what_this_process_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(fmbpo.__file__).parents[1]
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(home), ""])
    monkeypatch.chdir(tmp_path)
    assert worker.search_path() == str(home)
    monkeypatch.chdir(home)
    assert worker.search_path() == f"{tmp_path}{os.pathsep}{home}"
    sys.path[0] = str(home)  # `python -m fmbpo` in a clone that is not installed
    assert worker.search_path() == f"{home}{os.pathsep}{home}"
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert worker.search_path() == f"{home}{os.pathsep}{home}"


def test_a_worker_that_cannot_simulate_tells_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(spoilt(tmp_path, "dm_control")))
    with EpisodeRunner(1, SUITE) as runner, pytest.raises(UserError) as caught:
        runner.run(act, TASKS, SEEDS, 1)
    assert str(caught.value).splitlines() == [
        "MT30's simulator cannot be imported: ImportError: the wrong one",
        "  -> repair or reinstall dm_control and mujoco",
    ]
    assert capfd.readouterr().err == ""
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: os.open("/no such", os.O_RDONLY))
    with (
        EpisodeRunner(1, SUITE) as runner,
        pytest.raises(UserError, match=r"cannot be started.*No such"),
    ):
        runner.run(act, TASKS, SEEDS, 1)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(worker.SIGNALS)


_PARENT = """
import signal, sys, time
import numpy as np
from fmbpo.tasks.mt30 import SUITE
from fmbpo.tasks.vector import EpisodeRunner

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it

def act(obs, t):
    if t == 3:
        try:
            print(*(w._process.pid for w in runner._workers), flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    return np.zeros((*obs.shape[:2], 6), np.float32)

with EpisodeRunner(2, SUITE) as runner:
    print(runner.run(act, ["cheetah-run"], [0, 1, 2], 5).shape, flush=True)
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_outlive_signals_but_not_their_parent() -> None:
    def start() -> tuple[subprocess.Popen[str], list[int]]:
        process = subprocess.Popen(
            [sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, [int(pid) for pid in process.stdout.readline().split()]

    process, workers = start()
    with process:
        for pid in workers:
            for number in worker.SIGNALS:
                os.kill(pid, number)
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=300)
    assert output.splitlines() == ["interrupted", "(1, 3, 5)"]

    process, workers = start()
    with process:
        assert len(workers) == 2
        assert all(_alive(pid) for pid in workers)
        process.kill()
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_alive(pid) for pid in workers)
