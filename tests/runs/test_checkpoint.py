import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from fmbpo.errors import UserError
from fmbpo.runs import checkpoint as cp
from fmbpo.runs import checkpoint_files

MANIFEST = {"kind": "policy", "step": 7, "plugins": {"policy": ["mlp", "0.1.0"]}, "seeds": (1, 2)}


def save(folder, value=1.0, state=None, **manifest):
    weights = {"b": torch.full((4, 3), value), "a": torch.arange(5, dtype=torch.int64)}
    cp.save_checkpoint(folder, manifest={**MANIFEST, **manifest}, weights=weights, state=state)


def edit(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip(tmp_path):
    state = {"optimiser": {0: (torch.ones(3), 1)}, "none": None}
    save(tmp_path / "sub" / "last", state=state)
    loaded = cp.load_checkpoint(tmp_path / "sub" / "last", expect_kind="policy")
    assert loaded.manifest["step"] == 7
    assert loaded.manifest["seeds"] == [1, 2]
    assert set(loaded.manifest["files"]) == {
        "weights.safetensors",
        "state.safetensors",
        "state.json",
    }
    assert list(loaded.weights) == ["a", "b"]
    assert torch.equal(loaded.weights["b"], torch.ones(4, 3))
    assert torch.equal(loaded.state["optimiser"][0][0], torch.ones(3))
    loaded.weights["b"].add_(1)  # the tensors are the caller's own
    assert cp.load_checkpoint(tmp_path / "sub" / "last", with_state=False).state is None
    assert cp.read_manifest(tmp_path / "sub" / "last") == loaded.manifest


def test_shared_and_strided_tensors(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    weights = {
        "whole": base,
        "again": base,
        "row": base[1],
        "turned": base.T,
        "empty": torch.zeros(0, 2),
        "scalar": torch.tensor(2.5, dtype=torch.bfloat16, requires_grad=True),
        "wide": torch.ones(1).expand(5),
    }
    state = {"twice": [base, base.T]}
    cp.save_checkpoint(tmp_path / "c", manifest=MANIFEST, weights=weights, state=state)
    loaded = cp.load_checkpoint(tmp_path / "c")
    for name, tensor in weights.items():
        assert torch.equal(loaded.weights[name], tensor), name
        assert loaded.weights[name].dtype == tensor.dtype
    assert torch.equal(loaded.state["twice"][1], base.T)
    assert (tmp_path / "c" / "weights.safetensors").stat().st_size < 1000


def test_replaces_and_leaves_nothing_aside(tmp_path):
    save(tmp_path / "last", 1.0, state={"x": 1})
    save(tmp_path / "last", 2.0)
    assert [p.name for p in tmp_path.iterdir()] == ["last"]
    loaded = cp.load_checkpoint(tmp_path / "last")
    assert loaded.weights["b"][0, 0] == 2
    assert loaded.state is None


def test_missing_incomplete_and_foreign(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint here"):
        cp.load_checkpoint(tmp_path / "nothing")
    save(tmp_path / "c", state={"x": 1})
    (tmp_path / "c" / "state.json").unlink()
    with pytest.raises(UserError, match=r"not a complete checkpoint: state\.json"):
        cp.load_checkpoint(tmp_path / "c")
    cp.load_checkpoint(tmp_path / "c", with_state=False)
    (tmp_path / "c" / "manifest.json").unlink()
    with pytest.raises(UserError, match="not a complete checkpoint"):
        cp.load_checkpoint(tmp_path / "c")
    (tmp_path / "c" / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="not a checkpoint's manifest"):
        cp.load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("name", ["weights.safetensors", "state.safetensors", "state.json"])
def test_every_byte_is_checked(tmp_path, name):
    folder = tmp_path / "c"
    save(folder, state={"x": torch.ones(4), "y": [1, 2]})
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"corrupt file.*bytes where the manifest says"):
        cp.load_checkpoint(folder)
    for at in (0, len(whole) // 2, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[at] ^= 1
        (folder / name).write_bytes(flipped)
        with pytest.raises(UserError, match="SHA-256"):
            cp.load_checkpoint(folder)


def test_edited_manifest_newer_format_other_kind(tmp_path):
    save(tmp_path / "c")
    with pytest.raises(UserError, match="kind 'policy' where 'world_model' is needed"):
        cp.load_checkpoint(tmp_path / "c", expect_kind="world_model")
    edit(tmp_path / "c", step=8)
    with pytest.raises(UserError, match="SHA-256"):
        cp.load_checkpoint(tmp_path / "c")
    edit(tmp_path / "c", format=cp.FORMAT + 1)
    with pytest.raises(UserError, match=f"format {cp.FORMAT + 1}"):
        cp.read_manifest(tmp_path / "c")


def test_no_pickle_is_read(tmp_path):
    folder = tmp_path / "c"
    save(folder)
    torch.save({"b": torch.ones(1)}, folder / "weights.safetensors")
    with pytest.raises(UserError, match="corrupt"):
        cp.load_checkpoint(folder)


def test_full_disk_leaves_the_last_one(tmp_path, monkeypatch):
    save(tmp_path / "c", 1.0, state={"x": torch.ones(3)})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for victim in ("_write_tensors", "fsync_path"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_files, victim, full)
            with pytest.raises(UserError, match="disk is full; the last checkpoint is intact"):
                save(tmp_path / "c", 2.0, state={"x": torch.ones(3)})
        assert [p.name for p in tmp_path.iterdir()] == ["c"]
        assert cp.load_checkpoint(tmp_path / "c").weights["b"][0, 0] == 1


FULL_DISK = """
import sys, torch
from pathlib import Path
from fmbpo.errors import UserError
from fmbpo.runs.checkpoint import load_checkpoint, save_checkpoint
folder = Path(sys.argv[1]) / "c"
for size in (1_000, 3_000_000):
    try:
        save_checkpoint(folder, manifest={"kind": "k", "step": size},
                        weights={"w": torch.zeros(size)}, state=None)
    except UserError as error:
        print(error)
print(load_checkpoint(folder).manifest["step"])
"""


def test_a_really_full_disk(tmp_path):
    mount = f"mount -t tmpfs -o size=4m none {tmp_path} && exec {sys.executable} -c"
    command = ["unshare", "-m", "sh", "-c", f'{mount} "$0" {tmp_path}', FULL_DISK]
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs a mount of its own")
    done = subprocess.run(command, capture_output=True, text=True)
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip("no mount allowed here")
    assert "disk is full; the last checkpoint is intact" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "1000"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="no permission"):
        save(tmp_path / "c")


def test_permission_error_is_explained(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="no permission to write"):
        save(tmp_path / "c")


def test_unknown_state_and_thin_manifest_are_programming_errors(tmp_path):
    with pytest.raises(TypeError, match="state/x"):
        save(tmp_path / "c", state={"x": object()})
    with pytest.raises(ValueError, match="step"):
        cp.save_checkpoint(tmp_path / "c", manifest={"kind": "k"}, weights={}, state=None)
    assert not list(tmp_path.iterdir())


def test_backup_is_loaded_listed_and_recovered(tmp_path):
    save(tmp_path / "c", 1.0)
    save(tmp_path / "d", 3.0)
    (tmp_path / "c").rename(tmp_path / ".c.previous")
    (tmp_path / ".c.partial").mkdir()
    assert cp.checkpoint_exists(tmp_path / "c")
    assert cp.list_checkpoints(tmp_path) == [tmp_path / "c", tmp_path / "d"]
    assert cp.load_checkpoint(tmp_path / "c").weights["b"][0, 0] == 1
    save(tmp_path / "c", 2.0)
    assert cp.load_checkpoint(tmp_path / "c").weights["b"][0, 0] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "d"]
    cp.remove_checkpoint(tmp_path / "c")
    assert cp.list_checkpoints(tmp_path) == [tmp_path / "d"]
    assert cp.list_checkpoints(tmp_path / "nothing") == []


def test_readers_never_see_a_half(tmp_path):
    save(tmp_path / "c", 0.0, step=0, state={"v": 0})
    stop = threading.Event()
    seen, failures = [], []

    def read():
        while not stop.is_set():
            try:
                loaded = cp.load_checkpoint(tmp_path / "c")
            except UserError as error:
                failures.append(error)
                continue
            v = loaded.manifest["step"]
            assert loaded.state["v"] == v == loaded.weights["b"][0, 0]
            seen.append(v)

    reader = threading.Thread(target=read)
    reader.start()
    for value in range(1, 40):
        save(tmp_path / "c", float(value), step=value, state={"v": value})
    stop.set()
    reader.join()
    assert not failures
    assert seen


KILLS = """
import os, random, signal, sys, time, torch, safetensors.torch
from pathlib import Path
from fmbpo.runs.checkpoint import checkpoint_exists, load_checkpoint, save_checkpoint

torch.set_num_threads(1)
folder, draw = Path(sys.argv[1]), random.Random(0)

def write_for_ever(announce):
    step = load_checkpoint(folder).manifest["step"] if checkpoint_exists(folder) else 0
    while True:
        step += 1
        tensor = torch.full((30_000,), float(step))
        save_checkpoint(folder, manifest={"kind": "k", "step": step}, weights={"w": tensor},
                        state={"step": step, "t": tensor})
        os.write(announce, f"{step} ".encode())

announced = backups = 0
for kill in range(40):
    reader, announce = os.pipe()
    child = os.fork()
    if child == 0:
        write_for_ever(announce)
    os.close(announce)
    # Three of four have saved once, however slow the machine; the fourth may die at any moment.
    head = os.read(reader, 4096).decode() if kill % 4 else ""
    time.sleep(draw.uniform(0.0, 0.15))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader) as lines:
        announced = max([announced, *map(int, (head + lines.read()).split())])
    backups += not folder.exists()
    if announced or checkpoint_exists(folder):
        loaded = load_checkpoint(folder)
        step = loaded.manifest["step"]
        assert announced <= step <= announced + 1, (announced, step)
        assert loaded.state["step"] == step
        assert torch.equal(loaded.weights["w"], torch.full((30_000,), float(step)))
        assert torch.equal(loaded.state["t"], loaded.weights["w"])
        announced = step
print(announced, backups)
"""


def test_kills_never_lose_the_checkpoint(tmp_path):
    """40 kills at random instants; each new process continues from what it finds."""
    command = [sys.executable, "-c", KILLS, str(tmp_path / "last")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 30


@pytest.mark.parametrize("at", range(1, 7))
def test_killed_at_every_change_of_names(tmp_path, monkeypatch, at):
    """Dies exactly before the at-th rename or removal of the second and third save."""

    class Killed(BaseException):
        pass

    save(tmp_path / "c", 1.0)
    calls = 0

    def counted(real):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == at:
                raise Killed
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(cp.os, "rename", counted(os.rename))
        patch.setattr(cp, "remove_tree", counted(cp.remove_tree))
        written = 1.0
        try:
            for value in (2.0, 3.0):
                save(tmp_path / "c", value)
                written = value
        except Killed:
            pass
    found = cp.load_checkpoint(tmp_path / "c").weights["b"][0, 0].item()
    assert written <= found <= written + 1
    save(tmp_path / "c", 9.0)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
