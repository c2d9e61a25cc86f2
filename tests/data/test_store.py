from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from same import same_files
from whole_store import load

from fmbpo.data.store import Store, held_out, info, open_store, verify
from fmbpo.data.store_format import DATA_ARRAYS, layout_of, seal
from fmbpo.data.store_writer import StoreWriter
from fmbpo.errors import UserError
from fmbpo.tasks.mt30 import SUITE

TASKS = ("reacher-easy", "pendulum-swingup")
BEHAVIOURS = ("planner", "random")
WIDTHS = {"reacher-easy": (6, 2), "pendulum-swingup": (3, 1)}


def episode(number: int, task: str, length: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    obs_dim, action_dim = WIDTHS[task]
    return {
        "obs": rng.standard_normal((length, obs_dim)).astype(np.float32),
        "action": rng.uniform(-1, 1, (length, action_dim)).astype(np.float32),
        "reward": rng.uniform(0, 2, length).astype(np.float32),
        "task": task,
        "behaviour": BEHAVIOURS[number % 2],
    }


EPISODES = [episode(n, TASKS[n % 2], 7 + n % 3) for n in range(9)]


def write(out: Path, scale: float = 1, **options: Any) -> Path:
    writer = StoreWriter(out, TASKS, BEHAVIOURS, chunk_rows=16, **options)
    for one in EPISODES[writer.episodes :]:
        each = {**one, "reward": scale * one["reward"]}
        writer.append(**each)
    return writer.finish({"planner_return": {"reacher-easy": {"mean": 1.0}}})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write(tmp_path / "set.zarr")


@pytest.mark.parametrize("compress", [False, True])
def test_what_was_written_is_read(tmp_path: Path, compress: bool) -> None:
    data = load(write(tmp_path / "set.zarr", compress=compress))
    assert data.tasks == TASKS
    assert data.behaviours == BEHAVIOURS
    assert data.attributes["obs_dims"] == [6, 3]
    assert data.attributes["action_dims"] == [2, 1]
    assert data.attributes["planner_return"] == {"reacher-easy": {"mean": 1.0}}
    assert data.episode_ends[-1] == len(data.obs) == len(data.action) == len(data.reward)
    for e, each in enumerate(EPISODES):
        rows = slice(data.episode_starts[e], data.episode_ends[e])
        obs_dim, action_dim = WIDTHS[each["task"]]
        np.testing.assert_array_equal(data.obs[rows, :obs_dim], each["obs"])
        np.testing.assert_array_equal(data.action[rows, :action_dim][1:], each["action"][1:])
        np.testing.assert_array_equal(data.reward[rows][1:], each["reward"][1:])
        assert not data.obs[rows, obs_dim:].any()
        assert not data.action[rows, action_dim:].any()
        assert data.reward[rows][0] == 0
        assert not data.action[rows][0].any()
        assert data.tasks[data.episode_task[e]] == each["task"]
        assert data.behaviours[data.episode_behaviour[e]] == each["behaviour"]


def test_id_is_of_the_content_alone(tmp_path: Path, store: Path) -> None:
    other = write(tmp_path / "other.zarr", compress=True)
    assert verify(store) == verify(other) == load(store).id
    obs = zarr.open_group(other, mode="r+")["data/obs"]
    obs[3, 2] = 0.5
    with pytest.raises(UserError, match="content has changed"):
        verify(other)


def test_the_range_of_rewards_is_recorded(tmp_path: Path, store: Path) -> None:
    rewards = np.concatenate([[0], *(each["reward"][1:] for each in EPISODES)])
    assert load(store).attributes["rewards"] == [rewards.min(), rewards.max()]
    large = load(write(tmp_path / "large.zarr", -1e6)).attributes["rewards"]
    assert large == [pytest.approx(-1e6 * rewards.max()), 0]


def test_info(store: Path) -> None:
    found = info(store)
    rewards = np.concatenate([[0], *(each["reward"][1:] for each in EPISODES)])
    assert found["rewards"] == [rewards.min(), rewards.max()]
    assert found["rows"] == sum(len(e["obs"]) for e in EPISODES)
    assert found["episodes"]["reacher-easy"] == {"all": 5, "planner": 5}
    returns = [float(e["reward"][1:].sum()) for e in EPISODES[::2]]
    assert found["mean_return"]["reacher-easy"]["planner"] == pytest.approx(np.mean(returns))


@pytest.mark.parametrize("kept", [0, 1, 4, 8])
def test_an_interrupted_writer_continues_and_ends_the_same(
    tmp_path: Path, store: Path, kept: int
) -> None:
    out = tmp_path / "again.zarr"
    writer = StoreWriter(out, TASKS, BEHAVIOURS, chunk_rows=16)
    for each in EPISODES[:kept]:
        writer.append(**each)
    with pytest.raises(UserError, match="no data set here"):
        load(out)
    # A kill can leave more rows and episodes than ends, and ends still of the fill value.
    group = zarr.open_group(writer.partial, mode="r+")
    for name, array in (("obs", group["data/obs"]), ("ends", group["meta/episode_ends"])):
        array.resize((array.shape[0] + (5 if name == "obs" else 1), *array.shape[1:]))
    assert same_files(write(out, resume=True), store)


def test_an_interrupted_store_is_refused(tmp_path: Path, store: Path) -> None:
    StoreWriter(tmp_path / "x.zarr", TASKS, BEHAVIOURS)
    with pytest.raises(UserError, match="not complete"):
        open_store(tmp_path / "x.zarr.partial")
    with pytest.raises(UserError, match="already exists"):
        StoreWriter(store, TASKS, BEHAVIOURS)
    with pytest.raises(UserError, match="other tasks"):
        StoreWriter(tmp_path / "x.zarr", TASKS[:1], BEHAVIOURS, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": np.zeros((7, 25))}, "episode 0, obs"),
        ({"action": np.zeros((7, 7))}, "episode 0, action"),
        ({"reward": np.zeros(6)}, "data/reward"),
        ({"obs": np.full((7, 6), np.nan)}, "data/obs has a value that is not finite"),
        ({"action": np.full((7, 2), 1.1)}, "data/action has a magnitude of 1.1"),
        ({"task": "cup-catch"}, "'cup-catch' is not one of"),
        ({"behaviour": "expert"}, "'expert' is not one of"),
    ],
)
def test_a_bad_episode_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    writer = StoreWriter(tmp_path / "x.zarr", TASKS, BEHAVIOURS)
    with pytest.raises(UserError, match=message):
        writer.append(**{**EPISODES[0], **change})


def attribute(path: Path, **values: Any) -> None:
    zarr.open_group(path, mode="r+").attrs.update(values)


def replace(path: Path, name: str, values: np.ndarray[Any, Any]) -> None:
    shutil.rmtree(path / name)
    zarr.open_group(path, mode="r+").create_array(name, data=values)


def put(path: Path, name: str, at: Any, value: float) -> None:
    zarr.open_group(path, mode="r+")[name][at] = value


def chunk(path: Path, name: str) -> Path:
    return sorted(p for p in (path / name / "c").rglob("*") if p.is_file())[1]


def truncate(path: Path, name: str) -> None:
    file = chunk(path, name)
    file.write_bytes(file.read_bytes()[:-10])


ENDS = np.cumsum([len(e["obs"]) for e in EPISODES])
BROKEN = {
    "not-zarr": (lambda p: (p / "zarr.json").unlink(), "not a Zarr v3 group"),
    "garbage": (lambda p: (p / "zarr.json").write_text("{"), "not a Zarr v3 group"),
    "another-group": (lambda p: attribute(p, format="x"), "not a data set"),
    "newer": (lambda p: attribute(p, format_version=3), "format version 3"),
    "incomplete": (lambda p: attribute(p, complete=False), "not complete"),
    "task-typo": (
        lambda p: attribute(p, tasks=["reacher-esy", "pendulum-swingup"]),
        "(?s)attribute tasks.*reacher-esy.*reacher-easy",
    ),
    "missing": (lambda p: shutil.rmtree(p / "data/reward"), "data/reward: the array is missing"),
    "truncated": (lambda p: truncate(p, "data/obs"), "data/obs: truncated or damaged"),
    "chunk-gone": (
        lambda p: chunk(p, "data/action").unlink(),
        "data/action: truncated: 1 of 5 chunks missing",
    ),
    "nan": (
        lambda p: put(p, "data/obs", (20, 1), np.nan),
        r"data/obs: .*not finite.* in episode 2, row 20",
    ),
    "inf": (lambda p: put(p, "data/reward", 9, np.inf), "data/reward: .*in episode 1, row 9"),
    "action": (
        lambda p: put(p, "data/action", (20, 0), -3.5),
        r"data/action: a magnitude of 3.5, the largest, .* at most 1 .* in episode 2, row 20",
    ),
    "width": (
        lambda p: replace(p, "data/obs", np.zeros((ENDS[-1], 20), np.float32)),
        r"data/obs: shape \(\d+, 20\), not \[N, 24\]",
    ),
    "type": (
        lambda p: replace(p, "data/reward", np.zeros(ENDS[-1])),
        "data/reward: type float64, not float32",
    ),
    "ends-fall": (
        lambda p: put(p, "meta/episode_ends", 3, 5),
        "meta/episode_ends: not increasing at episode 3",
    ),
    "ends-short": (
        lambda p: replace(p, "meta/episode_ends", ENDS - 1),
        "meta/episode_ends: the last episode ends at row",
    ),
    "task-index": (
        lambda p: put(p, "meta/episode_task", 4, 2),
        "meta/episode_task: episode 4 has index 2",
    ),
    "behaviour-count": (
        lambda p: replace(p, "meta/episode_behaviour", np.ones(3, np.int8)),
        "meta/episode_behaviour: 3 entries for 9 episodes",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_store_is_named(store: Path, case: str) -> None:
    damage, message = BROKEN[case]
    damage(store)
    with pytest.raises(UserError, match=message) as caught:
        load(store)
    assert str(store) in str(caught.value)
    assert caught.value.remedy


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data set here"):
        load(tmp_path / "none.zarr")
    (tmp_path / "file").write_text(json.dumps({}))
    with pytest.raises(UserError, match="not a Zarr v3 group"):
        load(tmp_path / "file")


def split(episodes: int, name: str = "sha256:0", tasks: int = 2) -> np.ndarray[Any, Any]:
    ends = np.arange(1, episodes + 1, dtype=np.int64)
    index = (np.arange(episodes) % tasks).astype(np.int16)
    none = np.zeros(episodes, np.int8)
    attributes = {"id": name, "tasks": list("ab"[:tasks])}
    return held_out(
        Store(Path("none"), layout_of(SUITE), attributes, {}, ends, index, none, none > 0)
    )


@pytest.mark.parametrize(
    ("episodes", "held"),
    [(1000, 20), (500, 10), (249, 4), (9, 4), (8, 4), (7, 3), (4, 2), (3, 1), (2, 1), (1, 0)],
)
def test_four_episodes_of_every_task_are_held_out_or_two_percent_but_never_more_than_half(
    episodes: int, held: int
) -> None:
    chosen = split(2 * episodes)
    assert [int(chosen[t::2].sum()) for t in range(2)] == [held, held]
    assert split(episodes, tasks=1).sum() == held


def test_the_split_is_fixed_by_the_id() -> None:
    chosen = split(1000)
    np.testing.assert_array_equal(chosen, split(1000))
    assert (chosen != split(1000, "sha256:1")).any()


def flipped(path: Path, name: str, at: int) -> None:
    file = sorted(p for p in (path / name / "c").rglob("*") if p.is_file())[0]
    data = bytearray(file.read_bytes())
    data[at % len(data)] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", [*DATA_ARRAYS, "meta/episode_task", "meta/episode_ends"])
def test_verify_finds_a_flipped_byte(tmp_path: Path, compress: bool, name: str) -> None:
    """The first chunk is full of rows, or a compressed whole."""
    path = write(tmp_path / "set.zarr", compress=compress)
    verify(path)
    for at in (0, 30, 55):
        shutil.copytree(path, copy := tmp_path / f"{at}.zarr")
        flipped(copy, name, at)
        with pytest.raises(UserError) as caught:
            verify(copy)
        assert str(copy) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"mean": 1.0', '"mean": 2.0'),
        ('"action_repeat": 2', '"action_repeat": 4'),
        ('"rows": 72', '"rows": 73'),
        ('"reacher-easy": 40', '"reacher-easy": 41'),
        ('"reacher-easy": 5', '"reacher-easy": 6'),
    ],
)
def test_verify_finds_a_changed_attribute(store: Path, old: str, new: str) -> None:
    file = store / "zarr.json"
    text = file.read_text()
    assert text.count(old) == 1, text
    file.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=r"metadata .* have changed"):
        verify(store)
    # A seal that fits does not help where the arrays say something else.
    attribute(store, seal=seal(store))
    if "mean" not in old and "repeat" not in old:
        with pytest.raises(UserError, match=r"attribute .*: .*but the arrays have"):
            verify(store)


def test_verify_finds_changed_metadata_of_an_array(store: Path) -> None:
    file = store / "data/reward/zarr.json"
    file.write_text(file.read_text().replace('"NaN"', "0.0"))
    with pytest.raises(UserError, match=r"metadata .* have changed"):
        verify(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"end_episode": 8}, "does not have the episodes 0 to 8"), ({"episodes": 10}, "episodes 0 to"),
     ({"end_episode": 8, "episodes": 8}, "8 episodes, but there are 9")],
)  # fmt: skip
def test_verify_counts_the_episodes_of_the_sources(
    store: Path, change: dict[str, int], message: str
) -> None:
    source = {"file": "a", "first_episode": 0, "end_episode": 9, "episodes": 9, "left_out": 0}
    attribute(store, sources=[source])
    attribute(store, seal=seal(store))
    verify(store)
    attribute(store, sources=[{**source, **change}])
    attribute(store, seal=seal(store))
    with pytest.raises(UserError, match=message):
        verify(store)


def test_blocks_of_episodes_are_the_same_as_one_at_a_time(tmp_path: Path, store: Path) -> None:
    data = load(store)
    writer = StoreWriter(tmp_path / "b.zarr", TASKS, BEHAVIOURS, chunk_rows=16)
    for e in (slice(0, 5), slice(5, 9)):
        first, last = data.episode_starts[e][0], data.episode_ends[e][-1]
        writer.extend(
            *(values[first:last] for values in (data.obs, data.action, data.reward)),
            lengths=(data.episode_ends - data.episode_starts)[e],
            task=data.episode_task[e],
            behaviour=data.episode_behaviour[e],
            terminated=np.zeros(len(data.episode_ends[e])),
        )
    out = writer.finish({"planner_return": {"reacher-easy": {"mean": 1.0}}})
    assert same_files(out, store)


def test_a_kill_after_a_kill_loses_no_row(tmp_path: Path, store: Path) -> None:
    """The second comes when the first is mended, before anything new is written."""
    out = tmp_path / "again.zarr"
    writer = StoreWriter(out, TASKS, BEHAVIOURS, chunk_rows=16)
    for each in EPISODES[:7]:
        writer.append(**each)
    for _ in range(3):
        StoreWriter(out, TASKS, BEHAVIOURS, chunk_rows=16, resume=True)
    assert same_files(write(out, resume=True), store)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_store_killed_while_it_was_made(tmp_path: Path, store: Path, kept: int) -> None:
    out = tmp_path / "again.zarr"
    writer = StoreWriter(out, TASKS, BEHAVIOURS, chunk_rows=16)
    for name in list(layout_of(SUITE).arrays)[kept:]:
        shutil.rmtree(writer.partial / name)
    if not kept:
        (writer.partial / "zarr.json").unlink()
    assert same_files(write(out, resume=True), store)


def test_rows_read_again_are_told_and_partial_stores_of_other_requests_refused(
    tmp_path: Path,
) -> None:
    out = tmp_path / "x.zarr"
    given: dict[str, Any] = {"provenance": {"request": {"files": 1}}, "chunk_rows": 16}
    writer = StoreWriter(out, TASKS, BEHAVIOURS, **given)
    for each in EPISODES:
        writer.append(**each)
    seen: list[tuple[int, int]] = []
    StoreWriter(out, TASKS, BEHAVIOURS, resume=True, reread=lambda *at: seen.append(at), **given)
    rows = seen[-1][1]
    assert seen == [(min(at, rows), rows) for at in range(16, rows + 16, 16)]
    with pytest.raises(UserError, match="another request"):
        StoreWriter(out, TASKS, BEHAVIOURS, resume=True, provenance={"request": {"files": 2}})


def test_a_busy_machine_ends_without_a_traceback():
    """Zarr waits 0.2 s for its thread, which may take longer."""
    code = (
        "import time, fmbpo; from zarr.core import sync; print(fmbpo.open_data().rows); "
        "sync.loop[0].call_soon_threadsafe(time.sleep, 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "362724\n", "")
