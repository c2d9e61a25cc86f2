"""Bad files end in one message that names file, array and episode; nothing is left behind."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tdmpc2_files import arrays, save, stored, tensors
from whole_store import load

from fmbpo.cli import main
from fmbpo.data.importing.into_store import Import, import_files
from fmbpo.data.store import verify
from fmbpo.errors import UserError

Change = Callable[[dict[str, Any]], None]


def put(name: str, at: Any, value: float) -> Change:
    def change(content: dict[str, Any]) -> None:
        content[name][at] = value

    return change


def become(name: str, value: Callable[[Any], Any]) -> Change:
    def change(content: dict[str, Any]) -> None:
        content[name] = value(content[name])

    return change


def drop(*names: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        for name in names:
            del content[name]

    return change


def both(*changes: Change) -> Change:
    def change(content: dict[str, Any]) -> None:
        for one in changes:
            one(content)

    return change


KEYS = ("obs", "action", "reward", "task")
NAN, INF = float("nan"), float("inf")
CONTENT: dict[str, tuple[Change, list[str]]] = {
    "no-obs": (drop("obs"), ["bad.pt: no array obs; the file has action, reward, task"]),
    "no-action": (drop("action"), ["bad.pt: no array action"]),
    "no-reward": (drop("reward"), ["bad.pt: no array reward"]),
    "no-task": (drop("task"), ["bad.pt: no array task"]),
    "no-two": (drop("obs", "task"), ["no array obs, task; the file has action, reward"]),
    "nothing": (drop("obs", "action", "reward", "task"), ["the file has none"]),
    "obs-narrow": (become("obs", lambda v: v[..., :23]),
                   ["array obs, episode 0: 23 wide, but walker-stand has 24"]),
    "obs-narrow-later": (become("obs", lambda v: torch.cat([v[1:], v[:1]])[..., :20]),
                         ["array obs, episode 0: 20 wide, but walker-stand has 24"]),
    "action-narrow": (become("action", lambda v: v[..., :2]),
                      ["array action, episode 0: 2 wide, but walker-stand has 6"]),
    "obs-flat": (become("obs", lambda v: v[..., 0]), ["array obs: shape [6, 5]", "width"]),
    "obs-deep": (become("obs", lambda v: v[None]), ["array obs: shape [1, 6, 5, 24]"]),
    "reward-deep": (become("reward", lambda v: v[..., None]), ["array reward: shape [6, 5, 1]"]),
    "task-flat": (become("task", lambda v: v[:, 0]), ["array task: shape [6]"]),
    "action-flat": (become("action", lambda v: v[..., 0]), ["array action: shape [6, 5]"]),
    "short-reward": (become("reward", lambda v: v[:, :4]), ["6 episodes of 5 rows", "6 of 4"]),
    "short-obs": (become("obs", lambda v: v[:, :4]), ["array obs: 6 episodes of 4 rows"]),
    "short-action": (become("action", lambda v: v[:, 1:]), ["array action: 6 episodes of 4 rows"]),
    "fewer-tasks": (become("task", lambda v: v[:5]), ["array task: 5 episodes of 5 rows"]),
    "no-episode": (both(*(become(n, lambda v: v[:0]) for n in KEYS)),
                   ["bad.pt: 0 episodes of 5 rows"]),
    "one-row": (both(*(become(n, lambda v: v[:, :1]) for n in KEYS)),
                ["bad.pt: 6 episodes of 1 rows"]),
    "task-high": (put("task", 3, 30), ["array task, episode 3: unknown task id 30"]),
    "task-mt80": (put("task", 5, 79), ["array task, episode 5: unknown task id 79"]),
    "task-negative": (put("task", 2, -1), ["array task, episode 2: unknown task id -1"]),
    "task-changes": (put("task", (4, 2), 1), ["array task, episode 4, row 2", "task changes"]),
    "task-float": (become("task", lambda v: v.float()), ["array task: type torch.float32"]),
    "task-bool": (become("task", lambda v: v > 0), ["array task: type torch.bool"]),
    "obs-nan": (put("obs", (2, 3, 1), NAN), ["array obs, episode 2, row 3", "not finite"]),
    "obs-nan-in-row-0": (put("obs", (2, 0, 1), NAN), ["array obs, episode 2, row 0"]),
    "obs-inf": (put("obs", (5, 4, 0), INF), ["array obs, episode 5, row 4"]),
    "action-nan": (put("action", (0, 1, 5), NAN), ["array action, episode 0, row 1"]),
    "action-inf": (put("action", (4, 4, 0), -INF), ["array action, episode 4, row 4"]),
    "reward-nan": (put("reward", (1, 2), NAN), ["array reward, episode 1, row 2"]),
    "reward-last": (put("reward", (5, 4), NAN), ["array reward, episode 5, row 4"]),
    "too-large": (both(become("obs", lambda v: v.double()), put("obs", (0, 2, 3), 1e39)),
                  ["array obs, episode 0, row 2", "too large for float32"]),
    "padding": (put("obs", (1, 2, 3), 0.5),
                ["array obs, episode 1, row 2", "beyond the 3 columns of pendulum-swingup"]),
    "padding-nan": (put("obs", (1, 1, 23), NAN), ["array obs, episode 1, row 1", "beyond the 3"]),
    "obs-integers": (become("obs", lambda v: v.int()), ["array obs: type torch.int32"]),
    "reward-complex": (become("reward", lambda v: v.cfloat()), ["reward: type torch.complex64"]),
    "obs-sparse": (become("obs", lambda v: v.to_sparse()), ["obs: a Tensor, not a plain tensor"]),
    "obs-list": (become("obs", lambda v: [1, 2]), ["array obs: a list, not a plain tensor"]),
    "obs-none": (become("obs", lambda v: None), ["array obs: a NoneType, not a plain tensor"]),
    "obs-meta": (become("obs", lambda v: v.to("meta")), ["array obs: "]),
}  # fmt: skip


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


def raw(file: Path, text: bytes) -> None:
    """A file whose pickle is this text."""
    save(file, arrays())
    aside = file.with_suffix(".aside")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(aside, "w") as new:
        for member in old.infolist():
            new.writestr(member, text if member.filename.endswith("data.pkl") else old.read(member))
    os.replace(aside, file)


def cut(file: Path, share: float) -> None:
    data = save(file, arrays()).read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


def flip(file: Path, part: str) -> None:
    """One bit of a member's content."""
    save(file, arrays())
    with zipfile.ZipFile(file) as archive:
        wanted = archive.read(next(n for n in archive.namelist() if n.endswith(part)))
    data = bytearray(file.read_bytes())
    data[data.index(wanted) + len(wanted) // 2] ^= 1
    file.write_bytes(data)


def compressed(file: Path) -> None:
    save(file, arrays())
    aside = file.with_suffix(".aside")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    os.replace(aside, file)


def missing_record(file: Path) -> None:
    save(file, arrays())
    aside = file.with_suffix(".aside")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(aside, "w") as new:
        for member in old.infolist():
            if not member.filename.endswith("data/0"):
                new.writestr(member, old.read(member))
    os.replace(aside, file)


HOSTILE = {
    "system": (Hostile(os.system, "true"), "posix.system"),
    "eval": (Hostile(eval, "1"), "eval"),
    "getattr": (Hostile(getattr, "x", "upper"), "getattr"),
    "numpy": (np.zeros(3), "numpy"),
    "path": (Path("x"), "pathlib"),
}
FILES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "empty": (lambda f: f.write_bytes(b""), ["bad.pt: the file is empty"]),
    "text": (lambda f: f.write_text("no torch"), ["bad.pt: not a torch file"]),
    "one-byte": (lambda f: f.write_bytes(b"P"), ["bad.pt: not a torch file"]),
    "pickle": (lambda f: f.write_bytes(pickle.dumps({"obs": 1})), ["bad.pt: not a torch file"]),
    "old-format": (
        lambda f: torch.save(tensors(arrays()), f, _use_new_zipfile_serialization=False),
        ["bad.pt: not a torch file, or in the format before torch 1.6", "torch.save it again"],
    ),
    "missing": (lambda f: None, ["bad.pt: there is no such file"]),
    "folder-without": (lambda f: f.mkdir(), ["bad.pt: there is no .pt file in this folder"]),
    "folder-in-folder": (
        lambda f: (f / "x.pt").mkdir(parents=True),
        ["x.pt: a folder instead of a"],
    ),
    "no-permission": (lambda f: save(f, arrays()).chmod(0), ["bad.pt: cannot be read (Permission"]),
    "a-zip": (lambda f: zipfile.ZipFile(f, "w").writestr("x", "y"), ["bad.pt: "]),
    "a-list": (lambda f: torch.save([1, 2], f), ["bad.pt: holds a list, not a dictionary"]),
    "a-tensor": (lambda f: torch.save(torch.zeros(3), f), ["bad.pt: holds a Tensor"]),
    "weights": (
        lambda f: torch.save(OrderedDict(w=torch.zeros(3)), f),
        ["bad.pt: no array obs, action, reward, task; the file has w"],
    ),
    "compressed": (compressed, ["bad.pt: ", "is compressed"]),
    "missing-record": (missing_record, ["bad.pt: truncated or damaged"]),
    "pickle-empty": (lambda f: raw(f, b""), ["bad.pt: truncated or damaged"]),
    "pickle-garbage": (lambda f: raw(f, b"\xff" * 40), ["bad.pt: "]),
    "pickle-cut": (lambda f: raw(f, b"\x80\x02}q\x00("), ["bad.pt: truncated or damaged"]),
    "flipped-data": (
        lambda f: flip(f, "data/1"),
        ["bad.pt: truncated or damaged (Bad CRC", "data/1"],
    ),
    "flipped-tasks": (
        lambda f: flip(f, "data/3"),
        ["bad.pt: truncated or damaged (Bad CRC", "data/3"],
    ),
    "flipped-pickle": (lambda f: flip(f, "data.pkl"), ["bad.pt: truncated or damaged (Bad CRC"]),
    **{
        f"cut-{share}": (lambda f, share=share: cut(f, share), ["bad.pt: truncated or damaged"])
        for share in (0.01, 0.3, 0.5, 0.9, 0.99, 0.9999)
    },
    **{
        f"hostile-{name}": (
            lambda f, value=value: torch.save({**tensors(arrays()), "more": value}, f),
            [f"bad.pt: asks for {word}" if "." in word else word, "it was not executed"],
        )
        for name, (value, word) in HOSTILE.items()
    },
}


def refused(tmp_path: Path, words: list[str], capsys: Any, kind: str = "tdmpc2") -> None:
    """The command ends in one message with these words and leaves nothing behind."""
    file = tmp_path / ("bad.npz" if kind == "npz" else "bad.pt")
    assert main(["data", f"import-{kind}", str(file), "--out", str(tmp_path / "out.zarr")]) == 2
    message = capsys.readouterr().err
    said = message[message.index("error: ") :]
    assert message.count("error: ") == 1
    assert "Traceback" not in message
    for word in words:
        assert word in said, said
    assert {p.name for p in tmp_path.iterdir()} <= {file.name}


@pytest.mark.parametrize("case", CONTENT)
def test_bad_content(case, tmp_path, capsys):
    change, words = CONTENT[case]
    content = tensors(arrays())
    change(content)
    torch.save(content, tmp_path / "bad.pt")
    refused(tmp_path, words, capsys)


@pytest.mark.parametrize("case", FILES)
def test_bad_files(case, tmp_path, capsys):
    make, words = FILES[case]
    if case == "no-permission" and os.geteuid() == 0:
        pytest.skip("everything may be read by this user")
    make(tmp_path / "bad.pt")
    refused(tmp_path, words, capsys)


def test_an_unreadable_disk(tmp_path, monkeypatch, capsys):
    save(tmp_path / "bad.pt", arrays())
    whole, calls = Path.open, []

    def failing(self, *arguments, **options):
        calls.append(self)
        file = whole(self, *arguments, **options)
        if self.name == "bad.pt" and len(calls) > 1:
            monkeypatch.setattr(Path, "open", whole)
            file.close()
            return Broken(self)
        return file

    class Broken(io.FileIO):
        def read(self, *_):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", failing)
    refused(tmp_path, ["bad.pt: cannot be read (Input/output error)"], capsys)


def test_files_that_do_not_belong_together(tmp_path):
    save(tmp_path / "a.pt", arrays(length=5))
    save(tmp_path / "b.pt", arrays(length=6))
    with pytest.raises(UserError, match=r"b\.pt: episodes of 6 rows, but those of a\.pt have 5"):
        import_files(Import("tdmpc2", [tmp_path]), tmp_path / "x.zarr")
    shutil.copy(tmp_path / "a.pt", tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"b\.pt: has the same content as .*a\.pt"):
        import_files(Import("tdmpc2", [tmp_path]), tmp_path / "x.zarr")
    with pytest.raises(UserError, match=r"a\.pt: given twice"):
        import_files(Import("tdmpc2", [tmp_path / "a.pt", tmp_path]), tmp_path / "x.zarr")
    save(tmp_path / "b.pt", arrays(2, tasks=(40,)))
    with pytest.raises(UserError, match="no episode belongs to a task of MT30"):
        import_files(
            Import("tdmpc2", [tmp_path / "b.pt"], skip_other_tasks=True), tmp_path / "x.zarr"
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_a_file_that_changes_meanwhile(tmp_path):
    file = save(tmp_path / "a.pt", arrays())

    def change(stage, done, total):
        if (stage, done) == ("episodes", 0):
            os.utime(file, ns=(1, 1))

    with pytest.raises(UserError, match=r"a\.pt: the file changed while it was being read"):
        import_files(Import("tdmpc2", [file]), tmp_path / "x.zarr", progress=change)


def test_places_that_cannot_be_written(tmp_path, capsys):
    file = save(tmp_path / "a.pt", arrays())
    for out in (file / "x.zarr", Path("/proc/x.zarr")):
        assert main(["data", "import-tdmpc2", str(file), "--out", str(out)]) == 2
        assert "error: " in capsys.readouterr().err


def half_written(tmp_path: Path) -> tuple[Path, Path]:
    file = save(tmp_path / "a.pt", arrays(20))

    def stop(stage, done, total):
        if stage == "episodes" and done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_files(Import("tdmpc2", [file], **SMALL), tmp_path / "x.zarr", progress=stop)
    return file, tmp_path / "x.zarr.partial"


SMALL = {"block_rows": 10, "chunk_rows": 16}


def test_a_half_written_store_is_no_data_set(tmp_path, capsys):
    _, partial = half_written(tmp_path)
    for command in ("info", "verify"):
        assert main(["data", command, str(partial)]) == 2
        message = capsys.readouterr().err
        assert "x.zarr.partial" in message
        assert "not complete" in message
        assert "run the same command again" in message


@pytest.mark.parametrize(
    "damage",
    [
        lambda chunk: chunk.write_bytes(b""),
        lambda chunk: chunk.write_bytes(chunk.read_bytes()[:-4]),
        lambda chunk: chunk.unlink(),
        lambda chunk: chunk.write_bytes(b"\xff" * chunk.stat().st_size),
    ],
)
def test_a_damaged_half_written_store(damage, tmp_path):
    """As a crash of the whole machine could leave it."""
    file, partial = half_written(tmp_path)
    damage(partial / "data" / "reward" / "c" / "0")
    with pytest.raises(UserError, match=r"(?s)damaged rows \(array data/reward.*remove the folder"):
        import_files(Import("tdmpc2", [file], **SMALL), tmp_path / "x.zarr")


@settings(max_examples=100)
@given(st.data())
def test_any_damage_to_a_pt_file(tmp_path_factory, data):
    """Cut anywhere, or any byte changed: a message, or a store that is right."""
    folder = tmp_path_factory.mktemp("damaged")
    values = arrays(3)
    file = save(folder / "a.pt", values)
    damage(file, data)
    right_or_refused("tdmpc2", file, stored(values))
    shutil.rmtree(folder)


def damage(file: Path, data: Any) -> None:
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans(), "cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1), "length")]
    else:
        for _ in range(data.draw(st.integers(1, 3), "changes")):
            at = data.draw(st.integers(0, len(content) - 1), "at")
            content[at] ^= data.draw(st.integers(1, 255), "by")
    file.write_bytes(content)


def right_or_refused(kind: str, file: Path, expected: list[list[np.ndarray]]) -> None:
    out = file.parent / "out.zarr"
    refusal = ""
    try:
        import_files(Import(kind, [file]), out)
    except UserError as error:
        refusal = str(error)
    if refusal:
        assert file.name in refusal
        assert not list(file.parent.glob("out*"))
        return
    found = load(out)
    verify(out)
    for name, values in zip(("obs", "action", "reward"), zip(*expected, strict=True), strict=True):
        np.testing.assert_array_equal(getattr(found, name), np.concatenate(values))
