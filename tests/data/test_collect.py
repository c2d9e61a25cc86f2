from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from attrs import evolve
from same import same_files
from whole_store import load

from fmbpo.data.collecting.collector import Request, collect
from fmbpo.data.collecting.episode import Policy, collect_episode, make_policy
from fmbpo.data.collecting.parts import Parts
from fmbpo.data.collecting.planner import Planner
from fmbpo.data.collecting.planner_tasks import PLAN_TASKS
from fmbpo.data.collecting.recipes import EXPLORE, RECOVER, behaviours, recipe_named
from fmbpo.data.embedded import store_path
from fmbpo.data.store import held_out, verify
from fmbpo.errors import UserError
from fmbpo.tasks.env import TaskEnv
from fmbpo.tasks.mt30 import MT30
from fmbpo.tasks.suite import SimulationError

TASKS = ["pendulum-swingup", "reacher-easy"]
RECIPE = {
    "planner": {"kind": "planner", "share": 1.0, "effort": 0.2},
    "planner-noise": {"kind": "planner", "share": 1.0, "noise": 0.6, "effort": 0.2},
    "random": {"kind": "random", "share": 1.0},
}
MIX = behaviours(RECIPE)
SIZE: dict[str, Any] = {"episodes": 3, "seed": 4, "mix": MIX, "steps": 12}

KILLED = """
import os
from fmbpo.data.collecting.collector import Request, collect
from fmbpo.data.collecting.recipes import behaviours
from tests_request import OUT, TASKS, SIZE, RECIPE
SIZE["mix"] = behaviours(RECIPE)
collect(OUT, Request(TASKS, **SIZE), progress=lambda done, all: os._exit(9) if done == 4 else None)
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collect(tmp_path_factory.mktemp("small") / "set.zarr", Request(TASKS, **SIZE))


def test_the_rows_are_what_happened(small: Path) -> None:
    data = load(small)
    assert np.diff(data.episode_ends, prepend=0).tolist() == [13] * 6
    assert data.episode_task.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.episode_behaviour.tolist() == [0, 1, 2] * 2
    assert not data.action[data.episode_starts].any()
    assert np.abs(data.action).max() <= 1
    assert (np.abs(data.action[data.episode_behaviour.repeat(13) == 1]) == 1).any()  # clipped
    for e, task in enumerate(np.array(TASKS)[data.episode_task]):
        start = data.episode_starts[e]
        again = collect_episode(MT30[task], e % 3, MIX[e % 3], seed=4, steps=12)
        width = again["obs"].shape[1]
        np.testing.assert_array_equal(again["obs"], data.obs[start : start + 13, :width])
        assert not data.obs[start : start + 13, width:].any()
        np.testing.assert_array_equal(again["reward"], data.reward[start : start + 13])
    assert set(data.attributes["planner_return"]) == set(TASKS)
    assert data.attributes["planner_return"]["reacher-easy"]["episodes"] == 1
    assert data.attributes["provenance"]["request"]["seed"] == 4


def test_the_recorded_actions_lead_to_the_recorded_rows() -> None:
    rows = collect_episode(MT30["reacher-easy"], 0, MIX[1], seed=1, steps=15)
    env = TaskEnv("reacher-easy")
    env.reset(0)
    physics = env.env.physics
    # The recorded angles, velocities and target are the whole state of this task.
    with physics.reset_context():
        physics.data.qpos[:], physics.data.qvel[:] = rows["obs"][0, :2], rows["obs"][0, 4:6]
    finger = physics.named.data.geom_xpos["finger", :2]
    physics.named.model.geom_pos["target", :2] = finger + rows["obs"][0, 2:4]
    for t in range(1, 16):
        obs, reward = env.step(rows["action"][t])
        np.testing.assert_allclose(obs, rows["obs"][t, :6], atol=1e-4)
        assert reward == rows["reward"][t]


def test_a_diverged_episode_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    reset = TaskEnv.reset

    def diverge(self: TaskEnv, seed: int | None = None) -> Any:
        seeds.append(seed or 0)
        if len(seeds) == 1 or len(seeds) > 2:
            raise SimulationError("the simulation diverged")
        return reset(self, seed)

    monkeypatch.setattr(TaskEnv, "reset", diverge)
    random = recipe_named("random").mix[0]
    assert collect_episode(MT30["cup-catch"], 0, random, seed=0, steps=3)["obs"].shape == (4, 8)
    assert seeds[0] != seeds[1]
    with pytest.raises(UserError, match="diverged"):
        collect_episode(MT30["cup-catch"], 0, random, seed=0, steps=3)
    assert seeds[2] == seeds[0]


def test_interruptions_and_the_planner_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[bool] = []
    monkeypatch.setattr(Planner, "act", lambda *_: planned.append(True) or np.zeros(2))
    env, rng = TaskEnv("reacher-easy"), np.random.default_rng(0)
    policy = make_policy(RECOVER, MT30["reacher-easy"], rng)
    turns = []
    for _ in range(400):
        planned.append(False)
        policy(env, np.zeros(6, np.float32))
        if not turns or turns[-1][0] != planned[-1]:
            turns.append([planned[-1], 0])
        turns[-1][1] += 1
    assert turns[0][0] is False
    assert all(20 <= steps <= 60 for _, steps in turns[:-1])
    assert len(turns) > 5


def test_further_episodes_leave_the_others_as_they_are(tmp_path: Path, small: Path) -> None:
    one = {**SIZE, "mix": recipe_named("random").mix}
    plain = load(collect(tmp_path / "plain.zarr", Request(TASKS[:1], **one)))
    more = collect(tmp_path / "more.zarr", Request(TASKS[:1], **one, explore=1, recover=2))
    data = load(more)
    names = [data.behaviours[i] for i in data.episode_behaviour]
    assert names[3:] == ["random-bursts", "planner-interrupted", "planner-interrupted"]
    np.testing.assert_array_equal(data.obs[: len(plain.obs)], plain.obs)
    with pytest.raises(UserError, match="another data set"):
        collect(tmp_path / "more.zarr", Request(TASKS[:1], **one, explore=1, recover=1))


def test_further_episodes_of_a_behaviour_that_the_mix_has(tmp_path: Path) -> None:
    mix = [*recipe_named("random").mix, EXPLORE]
    data = load(
        collect(
            tmp_path / "x.zarr", Request(TASKS[:1], **{**SIZE, "mix": mix, "steps": 3}, explore=2)
        )
    )
    assert data.behaviours == ("random", "random-smooth", "random-bursts")
    assert data.episode_behaviour.tolist()[3:] == [2, 2]


class Still:
    """Policies that push a little less each episode."""

    provenance: ClassVar[dict[str, str]] = {"run": "still"}

    def policy(self, task: str, episode: int) -> Policy:
        assert task in TASKS
        return lambda env, obs: np.full(env.action_dim, 0.5 / (1 + episode) + 0 * obs.sum())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_policy_acts_in_the_planners_place(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Planner, "act", lambda *_: pytest.fail("the planner was asked"))
    out = tmp_path / "x.zarr"
    data = load(collect(out, Request(TASKS, **SIZE, policies=Still()), workers=workers))
    assert data.behaviours == ("policy", "policy-noise", "random")
    assert data.attributes["provenance"]["request"]["policy"] == {"run": "still"}
    assert data.attributes["planner_return"] == {}
    assert data.attributes["provenance"]["planner"] == {}
    start = data.episode_starts[data.episode_behaviour == 0]
    assert (data.action[start[0] + 1 : start[0] + 13, 0] == 0.5).all()
    noisy = data.episode_starts[data.episode_behaviour == 1][0]
    assert np.unique(data.action[noisy + 1 : noisy + 13, 0]).size > 6
    with pytest.raises(UserError, match="another data set"):
        collect(out, Request(TASKS, **SIZE))


def test_a_planner_of_other_settings_does_not_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.zarr"
    monkeypatch.setattr(Parts, "write", lambda *_: pytest.fail("enough"))
    with pytest.raises(pytest.fail.Exception):
        collect(out, Request(TASKS, **SIZE))
    task = PLAN_TASKS[TASKS[0]]
    changed = evolve(task, settings=evolve(task.settings, samples=5))
    monkeypatch.setitem(PLAN_TASKS, TASKS[0], changed)
    with pytest.raises(UserError, match="planner"):
        collect(out, Request(TASKS, **SIZE))


def test_workers_do_not_change_the_result(tmp_path: Path, small: Path) -> None:
    seen: list[tuple[int, int]] = []
    out = collect(
        tmp_path / "set.zarr", Request(TASKS, **SIZE), workers=2, progress=lambda *n: seen.append(n)
    )
    assert same_files(out, small)
    assert seen == [(n, 6) for n in range(7)]


def test_another_seed_changes_it(tmp_path: Path, small: Path) -> None:
    other = collect(tmp_path / "set.zarr", Request(TASKS, **{**SIZE, "seed": 5}))
    assert load(other).id != load(small).id


def test_a_killed_collection_continues_and_ends_the_same(tmp_path: Path, small: Path) -> None:
    out = tmp_path / "set.zarr"
    size = {key: value for key, value in SIZE.items() if key != "mix"}
    request = f"OUT, TASKS, SIZE, RECIPE = {str(out)!r}, {TASKS!r}, {size!r}, {RECIPE!r}"
    (tmp_path / "tests_request.py").write_text(request)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment)
    assert killed.returncode == 9
    assert not out.exists()
    parts = tmp_path / "set.zarr.parts"
    kept = {p: p.stat().st_mtime_ns for p in parts.glob("*.npz")}
    assert len(kept) == 4
    (parts / "reacher-easy-000002.tmp").write_bytes(b"half")
    with pytest.raises(UserError, match="another collection"):
        collect(out, Request(TASKS, **{**SIZE, "seed": 5}))
    seen: list[int] = []

    def progress(done: int, _all: int) -> None:
        seen.append(done)
        assert {p: p.stat().st_mtime_ns for p in kept} == kept

    assert same_files(collect(out, Request(TASKS, **SIZE), progress=progress), small)
    assert seen == [4, 5, 6]
    assert not parts.exists()


def test_a_finished_store_is_kept(small: Path) -> None:
    assert collect(small, Request(TASKS, **SIZE)) == small
    with pytest.raises(UserError, match="another data set"):
        collect(small, Request(TASKS, **{**SIZE, "seed": 5}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ["reacher-esy"]}, "reacher-easy"),
        ({"tasks": []}, "at least one task"),
        ({"episodes": 0}, "episodes: 0 is too small"),
        ({"workers": 0}, "workers: 0 is too small"),
        ({"explore": -1}, "explore: -1 is too small"),
    ],
)
def test_bad_requests(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    fields = {"tasks": TASKS, **SIZE, **change}
    workers = fields.pop("workers", 1)
    with pytest.raises(UserError, match=message):
        collect(tmp_path / "x.zarr", Request(**fields), workers)
    assert not list(tmp_path.iterdir())


def test_the_embedded_set() -> None:
    data = load(store_path("embedded"))
    assert verify(store_path("embedded")) == data.id
    provenance = data.attributes["provenance"]
    assert provenance["request"]["seed"] == 0
    assert provenance["request"]["recipe"].keys() == set(data.behaviours)
    assert provenance["planner"].keys() == set(data.tasks)
    assert provenance["packages"].keys() == {"mujoco", "dm_control", "numpy"}
    assert (np.diff(data.episode_ends, prepend=0) == 501).all()
    for index, task in enumerate(data.tasks):
        assert held_out(data)[data.episode_task == index].sum() == 4
        planner, random = (
            data.attributes["planner_return"][task],
            data.attributes["random_return"][task],
        )
        assert planner["mean"] - planner["std"] > random["mean"] + random["std"]
    size = sum(p.stat().st_size for p in store_path("embedded").rglob("*") if p.is_file())
    assert size < 9e6


SLOW = """
import sys
from fmbpo.cli import main
if __name__ == "__main__":
    sys.exit(main(["data", "collect", "--out", sys.argv[1], "--tasks", "acrobot-swingup",
                   "--episodes", "4", "--noise", "0", "--workers", "2"]))
"""


def workers_in(folder: Path) -> list[int]:
    """Workers there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd") != str(folder):
                continue
            if b"import serve" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("by", ["SIGTERM", "worker"])
def test_workers_end_with_the_collection(tmp_path: Path, by: str) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, "slow.py", str(tmp_path / "out.zarr")]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    while len(workers_in(tmp_path)) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1.0)
    if by == "SIGTERM":
        process.terminate()
    else:
        os.kill(workers_in(tmp_path)[0], 9)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (75 if by == "SIGTERM" else 2)
    assert ("the same command continues" if by == "SIGTERM" else "use fewer workers") in said
    assert "Traceback" not in said
    assert "leaked" not in said
    assert workers_in(tmp_path) == []


def test_the_disk_is_looked_at_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(UserError, match=r"too full: .* needed, 1 MB free\n.*--out"):
        collect(tmp_path / "x.zarr", Request(TASKS, **SIZE))
    assert not list(tmp_path.iterdir())
