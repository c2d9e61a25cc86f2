"""Files of TD-MPC2 into a store: what arrives, what is the same, what is refused."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from same import same_files
from tdmpc2_files import TASKS, arrays, save, stored, tensors
from whole_store import load

from fmbpo.base.lock import Taken
from fmbpo.cli import main
from fmbpo.data.importing.into_store import Import, import_files
from fmbpo.data.importing.tdmpc2 import TdmpcFile
from fmbpo.data.store import info, verify
from fmbpo.errors import UserError
from fmbpo.tasks.mt30 import SUITE


def compare(out: Path, given: list[dict[str, np.ndarray]]) -> None:
    """Every episode of the files, once, in order, with the values that numpy finds."""
    data = load(out)
    expected = [episode for one in given for episode in stored(one)]
    assert len(data.episode_ends) == len(expected)
    for e, (obs, action, reward) in enumerate(expected):
        rows = slice(data.episode_starts[e], data.episode_ends[e])
        np.testing.assert_array_equal(data.obs[rows], obs)
        np.testing.assert_array_equal(data.action[rows], action)
        np.testing.assert_array_equal(data.reward[rows], reward)
    ids = np.concatenate([one["task"][:, 0] for one in given])
    assert [data.tasks[i] for i in data.episode_task] == [TASKS[i].name for i in ids]


@pytest.fixture
def given() -> list[dict[str, np.ndarray]]:
    return [arrays(7, seed=1), arrays(5, seed=2, tasks=(29, 3)), arrays(1, seed=3)]


@pytest.fixture
def files(tmp_path: Path, given: list[dict[str, np.ndarray]]) -> Path:
    (tmp_path / "mt30").mkdir()
    for number, one in enumerate(given):
        save(tmp_path / "mt30" / f"chunk_{number}.pt", one)
    return tmp_path / "mt30"


@pytest.mark.parametrize("block_rows", [1, 5, 12, 1000])
@pytest.mark.parametrize("compress", [False, True])
def test_every_episode_arrives_once(files, given, tmp_path, block_rows, compress):
    out = tmp_path / "mt30.zarr"
    seen: list[tuple[str, int, int]] = []
    asked = Import("tdmpc2", [files], block_rows=block_rows, chunk_rows=16, compress=compress)
    import_files(asked, out, progress=lambda *at: seen.append(at))
    compare(out, given)
    verify(out)
    assert seen[-1] == ("episodes", 13, 13)
    size = sum(path.stat().st_size for path in files.iterdir())
    assert [at for at in seen if "checking" in at[0]][-1][1:] == (size, size)


def test_the_manifest(files, given, tmp_path):
    out = import_files(Import("tdmpc2", [files]), tmp_path / "mt30.zarr")
    found = load(out).attributes
    assert found["tasks"] == [t.name for t in TASKS if t.index in (0, 3, 7, 16, 29)]
    assert found["episodes_per_task"]["pendulum-spin"] == 1 + 3
    assert found["rows_per_task"]["pendulum-spin"] == 5 * (1 + 3)
    assert [s["file"] for s in found["sources"]] == ["chunk_0.pt", "chunk_1.pt", "chunk_2.pt"]
    for source in found["sources"]:
        content = (files / source["file"]).read_bytes()
        assert source["bytes"] == len(content)
        assert source["sha256"] == hashlib.sha256(content).hexdigest()
    spans = [(s["first_episode"], s["end_episode"]) for s in found["sources"]]
    assert spans == [(0, 7), (7, 12), (12, 13)]
    about = info(out)
    assert about["sources"] == found["sources"]
    first = float(stored(given[1])[1][2].sum())
    assert about["mean_return"]["cheetah-run"]["replay"] == pytest.approx(
        np.mean([first, float(stored(given[1])[3][2].sum())])
    )


def test_info_adds_up_the_returns_in_pieces(files, tmp_path, monkeypatch):
    out = import_files(Import("tdmpc2", [files]), tmp_path / "mt30.zarr")
    whole = info(out)
    monkeypatch.setattr("fmbpo.data.store._PIECE_ROWS", 12)
    assert info(out) == whole


@pytest.mark.parametrize("version", ["0.1.2", "0.2.1", "0.3.2", "0.6.2"])
def test_files_of_old_versions_of_tensordict(version, repository, tmp_path):
    """Written by these releases (2023 to 2024), of which none can be installed any more."""
    file = repository / f"tests/golden/tdmpc2_data/tensordict-{version}.pt"
    generator = torch.Generator().manual_seed(0)
    obs = torch.zeros(2, 4, 24)
    obs[..., :3] = torch.rand(2, 4, 3, generator=generator)
    action = torch.rand(2, 4, 6, generator=generator)
    reward = torch.rand(2, 4, generator=generator)
    task = np.full((2, 4), 7)
    values = {"obs": obs.numpy(), "action": action.numpy(), "reward": reward.numpy(), "task": task}
    compare(import_files(Import("tdmpc2", [file]), tmp_path / "old.zarr"), [values])


def test_a_file_of_todays_tensordict(tmp_path):
    tensordict = pytest.importorskip("tensordict")
    given = arrays()
    content = tensordict.TensorDict(tensors(given), batch_size=[6, 5], device="cpu")
    torch.save(content, tmp_path / "now.pt")
    compare(import_files(Import("tdmpc2", [tmp_path / "now.pt"]), tmp_path / "now.zarr"), [given])


def test_other_types_layouts_and_arrays(tmp_path):
    given = arrays(seed=5)
    obs = torch.from_numpy(given["obs"]).half()
    content = {
        "obs": obs.transpose(0, 1).contiguous().transpose(0, 1),
        "action": torch.from_numpy(given["action"]).double(),
        "reward": torch.from_numpy(given["reward"]).bfloat16(),
        "task": torch.from_numpy(given["task"])[:, :1].to(torch.uint8).expand(6, 5),
        "episode": torch.arange(6),
        "more": {"nested": torch.zeros(3)},
    }
    torch.save(content, tmp_path / "other.pt")
    file = TdmpcFile(tmp_path / "other.pt", SUITE)
    assert file.ignored == ("episode", "more")
    expected = {
        **given,
        "obs": obs.float().numpy(),
        "reward": content["reward"].float().numpy(),
    }
    compare(
        import_files(Import("tdmpc2", [tmp_path / "other.pt"]), tmp_path / "x.zarr"), [expected]
    )


def test_mt80(tmp_path, capsys):
    """Episodes of 101 rows, observations 39 wide, tasks that MT30 does not have."""
    given = arrays(9, length=101, tasks=(0, 44, 16), width=39)
    file, out = save(tmp_path / "chunk_0.pt", given), tmp_path / "mt80.zarr"
    words = ["data", "import-tdmpc2", str(file), "--out", str(out)]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert f"{file}, array task, episode 1: unknown task id 44" in message
    assert "--skip-other-tasks" in message
    assert main([*words, "--skip-other-tasks"]) == 0
    assert (
        "6 episodes of 2 tasks from 1 files; 3 episodes of other tasks left out"
        in capsys.readouterr().err
    )
    kept = given["task"][:, 0] != 44
    compare(out, [{name: values[kept] for name, values in given.items()}])
    verify(out)
    (source,) = load(out).attributes["sources"]
    assert (source["episodes"], source["left_out"], source["end_episode"]) == (9, 3, 6)


def test_a_hostile_file_is_refused_by_name_and_not_executed(tmp_path, capsys):
    victim = tmp_path / "victim"

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {victim}",)

    content = {**tensors(arrays()), "more": Hostile()}
    torch.save(content, tmp_path / "hostile.pt")
    assert main(["data", "import-tdmpc2", str(tmp_path / "hostile.pt"),
                 "--out", str(tmp_path / "x.zarr")]) == 2  # fmt: skip
    message = capsys.readouterr().err
    assert "hostile.pt: asks for posix.system" in message
    assert not victim.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hostile.pt"]
    torch.load(tmp_path / "hostile.pt", weights_only=False)
    assert victim.exists(), "this file does no harm: the test shows nothing"


def test_a_finished_store_is_kept_and_another_refused(files, tmp_path):
    out = import_files(Import("tdmpc2", [files]), tmp_path / "mt30.zarr")
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    said: list[str] = []
    assert import_files(Import("tdmpc2", sorted(files.iterdir())), out, say=said.append) == out
    assert "nothing to do" in said[-1]
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    for change in ({"compress": True}, {"sources": [files / "chunk_0.pt"]}):
        with pytest.raises(UserError, match="already another data set here"):
            import_files(Import(**{"kind": "tdmpc2", "sources": [files], **change}), out)
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*")}


def stop_after(episodes: int):
    """A progress that ends the import as a kill would, without a process of its own."""

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "episodes" and done >= episodes:
            raise KeyboardInterrupt

    return progress


def test_sources_must_be_the_same_to_continue(files, tmp_path):
    out, options = tmp_path / "mt30.zarr", {"block_rows": 5, "chunk_rows": 16}
    with pytest.raises(KeyboardInterrupt):
        import_files(Import("tdmpc2", [files], **options), out, progress=stop_after(8))
    whole = (files / "chunk_2.pt").read_bytes()
    save(files / "chunk_2.pt", arrays(1, seed=4))
    with pytest.raises(UserError, match=r"partial store with another request .*\n.*remove"):
        import_files(Import("tdmpc2", [files], **options), out)
    (files / "chunk_2.pt").write_bytes(whole)
    import_files(Import("tdmpc2", [files], **options), out)
    other = import_files(Import("tdmpc2", [files], **options), tmp_path / "other.zarr")
    assert same_files(out, other)


def test_what_can_never_be_finished_is_not_left_behind(files, given, tmp_path):
    given[1]["obs"][3, 2, 0] = np.inf
    save(files / "chunk_1.pt", given[1])
    out = tmp_path / "mt30.zarr"
    with pytest.raises(UserError, match=r"chunk_1.pt, array obs, episode 3, row 2"):
        import_files(Import("tdmpc2", [files], block_rows=5, chunk_rows=16), out)
    assert not list(tmp_path.glob("*.zarr*"))


def test_a_second_import_into_the_same_store_waits(files, tmp_path):
    out = tmp_path / "mt30.zarr"

    def again(stage: str, done: int, total: int) -> None:
        if stage == "episodes" and 0 < done < total:
            with pytest.raises(Taken, match=r"mt30\.zarr: in use by process"):
                import_files(Import("tdmpc2", [files]), out)
            seen.append(done)

    seen: list[int] = []
    import_files(Import("tdmpc2", [files], block_rows=5), out, progress=again)
    assert seen
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mt30", "mt30.zarr"]


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.endurance)],
)
def test_a_signal_ends_it_and_the_same_command_continues(files, tmp_path, number, status):
    out = tmp_path / "mt30.zarr"
    program = (
        "import sys, time\n"
        "from fmbpo.data.importing import into_store\n"
        "from fmbpo.cli import main\n"
        "into_store.prepared = lambda *a: time.sleep(600)\n"  # the signal comes meanwhile
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["data", "import-tdmpc2", str(files), "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-c", program, *words],
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    while not (tmp_path / "mt30.zarr.partial").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == status
    assert "the same command continues" in said
    assert "Traceback" not in said
    assert main(words) == 0
    assert same_files(out, import_files(Import("tdmpc2", [files]), tmp_path / "other.zarr"))


def test_the_disk_that_is_needed_is_computed_first(files, tmp_path, monkeypatch, capsys):
    free = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    with pytest.raises(UserError, match=r"1\.06 MB needed on the disk, 1 kB free"):
        import_files(Import("tdmpc2", [files]), tmp_path / "mt30.zarr")
    with pytest.raises(
        UserError, match=r"needed on the disk \(estimate: its first rows compress to"
    ):
        import_files(Import("tdmpc2", [files], compress=True), tmp_path / "mt30.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["mt30"]


def test_the_memory_that_is_needed_is_computed_first(files, tmp_path):
    with pytest.raises(UserError, match=r"GB of memory are needed, 100 MB are free"):
        import_files(Import("tdmpc2", [files]), tmp_path / "mt30.zarr", memory=100_000_000)
    assert [p.name for p in tmp_path.iterdir()] == ["mt30"]


def test_progress_says_rate_and_time_to_finish(monkeypatch, capsys):
    from fmbpo.cli import data

    now = [100.0]
    monkeypatch.setattr(data.time, "monotonic", lambda: now[0])
    lines = data.Lines(of_bytes="checking the files")
    for seconds, done in ((0, 0), (1, 1000), (6, 6000), (8, 8000), (10, 10_000)):
        now[0] = 100.0 + seconds
        lines("episodes", done, 10_000)
    lines("checking the files", 10**9, 10**9)
    assert capsys.readouterr().err.splitlines() == [
        "episodes: 6,000 of 10,000, 1,000 per second, 0:00:04 left",
        "episodes: 10,000 of 10,000, 1,000 per second, 0:00:00 left",
        "checking the files: 1 GB of 1 GB, 0:00:00 left",
    ]


def test_the_end_of_a_stage_is_told_once(files, tmp_path, capsys):
    assert main(["data", "import-tdmpc2", str(files), "--out", str(tmp_path / "x.zarr")]) == 0
    ends = [x for x in capsys.readouterr().err.splitlines() if x.endswith("0:00:00 left")]
    assert [line.split(":")[0] for line in ends] == ["checking the files", "episodes"]


MEASURED = """
import sys
from pathlib import Path
from fmbpo.data.importing.into_store import Import, import_files
from fmbpo.tasks.mt30 import SUITE
asked = Import("tdmpc2", [Path(sys.argv[1])], block_rows=int(sys.argv[3]))
import_files(asked, Path(sys.argv[2]))
print(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1])
"""


def peak(file: Path, out: Path, block_rows: int) -> int:
    """kB of memory that a process needed at most that imported a file."""
    words = [sys.executable, "-c", MEASURED, str(file), str(out), str(block_rows)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    def file(megabytes: int) -> Path:
        episodes = megabytes * 10**6 // (501 * 132)
        values = tensors(arrays(1, length=501, tasks=(0,)))
        content = {name: v.repeat(episodes, *[1] * (v.ndim - 1)) for name, v in values.items()}
        torch.save(content, tmp_path / f"{megabytes}.pt")
        return tmp_path / f"{megabytes}.pt"

    block, rows = 4, 2**15  # MB
    small = peak(file(40), tmp_path / "small.zarr", rows)
    large = peak(file(240), tmp_path / "large.zarr", rows)
    # Beside blocks, a piece of a chunk more or less of each array can be waiting.
    assert large - small < (10 * block + 100) * 1000
    assert large < 1_000_000
