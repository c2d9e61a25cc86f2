"""Data of one's own from ``.npz`` files: what arrives, and what is refused."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_store import load

from fmbpo.cli import main
from fmbpo.data.importing.into_store import Import, import_files
from fmbpo.data.store import info, verify
from fmbpo.errors import UserError

ENDS = np.array([4, 6, 13])
NAMES = ["reacher-easy", "pendulum-swingup", "reacher-easy"]


def arrays(seed: int = 0) -> dict[str, Any]:
    """Three episodes of 4, 2 and 7 rows of two tasks."""
    rng = np.random.default_rng(seed)
    obs = rng.standard_normal((13, 6))
    obs[4:6, 3:] = 0
    return {
        "obs": obs,
        "action": rng.uniform(-1, 1, (13, 2)).astype(np.float32),
        "reward": rng.uniform(0, 2, 13).astype(np.float32),
        "episode_ends": ENDS,
        "task": np.array(NAMES),
    }


def save(path: Path, content: dict[str, Any], packed: bool = False) -> Path:
    (np.savez_compressed if packed else np.savez)(path, **content)
    return path


def check(out: Path, content: dict[str, Any]) -> None:
    data = load(out)
    verify(out)
    begin = np.array([0, 4, 6])
    obs, action = np.zeros((13, 24), np.float32), np.zeros((13, 6), np.float32)
    obs[:, :6], action[:, :2] = content["obs"], content["action"]
    action[4:6, 1] = 0
    reward = np.array(content["reward"])
    action[begin], reward[begin] = 0, 0
    np.testing.assert_array_equal(data.obs, obs)
    np.testing.assert_array_equal(data.action, action)
    np.testing.assert_array_equal(data.reward, reward)
    np.testing.assert_array_equal(data.episode_ends, ENDS)
    assert [data.tasks[i] for i in data.episode_task] == NAMES


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("block_rows", [1, 3, 6, 100])
def test_what_was_saved_is_read(tmp_path, packed, block_rows):
    file = save(tmp_path / "a.npz", arrays(), packed)
    check(import_files(Import("npz", [file], block_rows=block_rows), tmp_path / "x.zarr"), arrays())


def test_padded_arrays_one_name_and_several_files(tmp_path, capsys):
    for number in range(2):
        content = arrays(number)
        content["obs"] = np.pad(content["obs"], ((0, 0), (0, 18))).astype(np.float16)
        content["action"] = np.pad(content["action"], ((0, 0), (0, 4)), constant_values=7)
        content["task"] = np.array("dmcontrol-reacher_easy")
        content["extra"] = np.zeros(3)
        save(tmp_path / f"{number}.npz", content)
    out = tmp_path / "own.zarr"
    assert main(["data", "import-npz", str(tmp_path), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "6 episodes of 1 tasks from 2 files" in said.err
    assert "arrays not used: extra" in said.err
    assert said.out == f"{out}\n"
    data = load(out)
    assert data.tasks == ("reacher-easy",)
    assert data.episode_ends.tolist() == [4, 6, 13, 17, 19, 26]
    assert not data.action[:, 2:].any()


def test_actions_may_be_rescaled_and_odd_rewards_are_named(tmp_path, capsys):
    content = arrays()
    out, words = tmp_path / "own.zarr", ["data", "import-npz", str(tmp_path), "--action-scale"]
    reward = np.where(np.arange(13) == 8, -500, content["reward"])
    save(tmp_path / "a.npz", {**content, "action": 4 * content["action"], "reward": reward})
    for scale in ("0", "nan", "x"):
        with pytest.raises(SystemExit):
            main([*words, scale, "--out", str(out)])
    assert main([*words, "4", "--out", str(out)]) == 0
    check(out, {**content, "reward": reward})
    said = capsys.readouterr().err
    assert f"WARNING: rewards from -500 to {info(out)['rewards'][1]:g}; the simulators' own" in said
    assert main([*words, "3", "--out", str(out)]) == 2
    assert "another data set here" in capsys.readouterr().err


def write_raw(file: Path, name: str, text: bytes) -> None:
    """The file with other bytes for one of its arrays."""
    save(file, arrays())
    aside = file.with_suffix(".aside")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(aside, "w") as new:
        for member in old.namelist():
            new.writestr(member, text if member == f"{name}.npy" else old.read(member))
    os.replace(aside, file)


def member(file: Path, name: str) -> bytes:
    save(file, arrays())
    with zipfile.ZipFile(file) as archive:
        return archive.read(f"{name}.npy")


def flipped(file: Path, packed: bool) -> None:
    save(file, arrays(), packed)
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("obs.npy")
    data = bytearray(file.read_bytes())
    data[info.header_offset + 60 + info.compress_size // 2] ^= 1
    file.write_bytes(data)


class Touches:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def content(**change: Any) -> Any:
    """A maker of a file with other arrays; None leaves one out."""

    def make(file: Path) -> None:
        with_change = {**arrays(), **change}
        save(file, {name: v for name, v in with_change.items() if v is not None})

    return make


def changed(name: str, at: Any, value: float) -> Any:
    values = arrays()[name].copy()
    values[at] = value
    return content(**{name: values})


BAD: dict[str, tuple[Any, list[str]]] = {
    "empty": (lambda f: f.write_bytes(b""), ["bad.npz: truncated or damaged"]),
    "text": (lambda f: f.write_text("x"), ["bad.npz: truncated or damaged"]),
    "missing": (lambda f: None, ["bad.npz: there is no such file"]),
    "half": (lambda f: f.write_bytes(save(f, arrays()).read_bytes()[:700]), ["bad.npz: truncated"]),
    "an-npy": (lambda f: np.save(f.open("wb"), np.zeros(3)), ["bad.npz: truncated or damaged"]),
    "flipped": (lambda f: flipped(f, False), ["damaged", "obs.npy"]),
    "flipped-packed": (lambda f: flipped(f, True), ["array obs: truncated or damaged"]),
    "no-obs": (content(obs=None), ["no array obs; the file has action, episode_ends, reward"]),
    "no-ends": (content(episode_ends=None), ["no array episode_ends", "docs/data.md"]),
    "obs-flat": (content(obs=np.zeros(13)), ["array obs: shape [13], not [N, width of obs]"]),
    "obs-integers": (content(obs=np.zeros((13, 6), int)), ["array obs: type int64, not float32"]),
    "obs-wide": (content(obs=np.ones((13, 30))), ["array obs, episode 0, row 0", "beyond the 6"]),
    "obs-narrow": (content(obs=np.zeros((13, 5))), ["array obs, episode 0: 5 wide", "has 6"]),
    "obs-short": (content(obs=np.zeros((12, 6))), ["array obs: 12 rows, but reward has 13"]),
    "obs-columns": (content(obs=np.asfortranarray(np.zeros((13, 6)))), ["Fortran order"]),
    "obs-nan": (changed("obs", (7, 1), np.nan), ["array obs, episode 2, row 1: ", "not finite"]),
    "action-inf": (changed("action", (5, 0), np.inf), ["array action, episode 1, row 1"]),
    "reward-nan": (changed("reward", 12, np.nan), ["array reward, episode 2, row 6"]),
    "action-large": (content(action=np.linspace(-3, 2, 26).reshape(13, 2)),
                     ["array action, episode 0, row 1", "a magnitude of 2.6, the largest",
                      "--action-scale"]),
    "padding": (changed("obs", (5, 4), 1.0), ["episode 1, row 1", "3 columns of pendulum-swingup"]),
    "reward-deep": (content(reward=np.zeros((13, 1))), ["array reward: shape [13, 1], not [N]"]),
    "ends-float": (content(episode_ends=ENDS * 1.0), ["episode_ends: float64 [3], not integers"]),
    "ends-fall": (content(episode_ends=np.array([6, 4, 13])), ["episode 1 has fewer than two"]),
    "ends-one-row": (content(episode_ends=np.array([4, 5, 13])), ["episode 1 has fewer than two"]),
    "ends-short": (content(episode_ends=ENDS - 1), ["ends at row 12, but there are 13 rows"]),
    "ends-none": (content(episode_ends=ENDS[:0]), ["array episode_ends: no episode"]),
    "task-unknown": (content(task=np.array([*NAMES[:2], "reacher-eazy"])),
                     ["array task, episode 2: there is no task 'reacher-eazy'", "'reacher-easy'?"]),
    "task-number": (content(task=np.array(4)), ["array task: int64 [], not one name"]),
    "task-two": (content(task=np.array(NAMES[:2])), ["array task: <U16 [2], not one name or [3]"]),
    "task-objects": (content(task=np.array([Touches()] * 3, object)), ["task: holds pickled"]),
    "obs-objects": (content(obs=np.array([[Touches()]] * 13, object)), ["obs: holds pickled"]),
    "header": (lambda f: write_raw(f, "obs", b"\x93NUMPY\1\0\4\0{}  "), ["obs: truncated or"]),
    "magic": (lambda f: write_raw(f, "reward", b"hello"), ["array reward: truncated or damaged"]),
    "cut-array": (lambda f: write_raw(f, "obs", member(f, "obs")[:-8]), ["obs: truncated or"]),
    "long-array": (lambda f: write_raw(f, "obs", member(f, "obs") + b"12345678"),
                   ["array obs: truncated or damaged: 760 bytes, but shape [13, 6] needs 752"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make, words = BAD[case]
    make(tmp_path / "bad.npz")
    arguments = ["data", "import-npz", "bad.npz", "--out", str(tmp_path / "out.zarr")]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    assert "bad.npz" in message
    for word in words:
        assert word in message, message
    assert {p.name for p in tmp_path.iterdir()} <= {"bad.npz"}


@settings(max_examples=100)
@given(st.data())
def test_any_damage(tmp_path_factory, data):
    """Cut anywhere, or any byte changed: a message, or a store that is right."""
    folder = tmp_path_factory.mktemp("damaged")
    file = save(folder / "a.npz", arrays(), data.draw(st.booleans(), "packed"))
    text = bytearray(file.read_bytes())
    if data.draw(st.booleans(), "cut"):
        text = text[: data.draw(st.integers(0, len(text) - 1), "length")]
    else:
        for _ in range(data.draw(st.integers(1, 3), "changes")):
            text[data.draw(st.integers(0, len(text) - 1), "at")] ^= data.draw(st.integers(1, 255))
    file.write_bytes(text)
    refusal = ""
    try:
        import_files(Import("npz", [file]), folder / "out.zarr")
    except UserError as error:
        refusal = str(error)
    if refusal:
        assert "a.npz" in refusal
        assert not list(folder.glob("out*"))
    else:
        check(folder / "out.zarr", arrays())
    shutil.rmtree(folder)


def test_the_ten_lines_of_the_documentation(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (repository / "docs/data.md").read_text(encoding="utf-8")
    program = text.split("```python\n")[1].split("```")[0]
    assert program.count("\n") <= 12
    exec(compile(program, "docs/data.md", "exec"), {})
    assert main(["data", "import-npz", "own.npz", "--out", "own.zarr"]) == 0
    data = load(tmp_path / "own.zarr")
    assert len(data.episode_ends) > 1
    assert data.reward.any()
    assert main(["data", "verify", "own.zarr"]) == 0
