import errno
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fmbpo.base import files
from fmbpo.errors import UserError
from fmbpo.runs import checkpoint as cp

MANIFEST = {"kind": "policy", "step": 7, "plugins": {"policy": ["mlp", "0.1.0"]}, "seeds": (1, 2)}


def save(path, value=1.0, state=None, **manifest):
    weights = {"b": torch.full((4, 3), value), "a": torch.arange(5, dtype=torch.int64)}
    cp.save_checkpoint(path, manifest={**MANIFEST, **manifest}, weights=weights, state=state)


def test_round_trip(tmp_path):
    state = {"optimiser": {0: (torch.ones(3), 1)}, "none": None}
    save(tmp_path / "sub" / "last", state=state)
    loaded = cp.load_checkpoint(tmp_path / "sub" / "last", expect_kind="policy")
    assert loaded.manifest == {**MANIFEST, "seeds": [1, 2]}
    assert list(loaded.weights) == ["a", "b"]
    assert torch.equal(loaded.weights["b"], torch.ones(4, 3))
    assert torch.equal(loaded.state["optimiser"][0][0], torch.ones(3))
    loaded.weights["b"].add_(1)  # the tensors are the caller's own
    again = cp.load_checkpoint(tmp_path / "sub" / "last.safetensors", with_state=False)
    assert again.state is None
    assert again.weights["b"].sum() == 12
    assert cp.read_manifest(tmp_path / "sub" / "last") == loaded.manifest
    names = {"weights/a", "weights/b", "state/optimiser/0/0"}
    assert load_file(tmp_path / "sub" / "last.safetensors").keys() == names


def test_shared_and_strided_tensors_of_every_type(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    weights = {
        "whole": base,
        "again": base,
        "row": base[1],
        "turned": base.T,
        "empty": torch.zeros(0, 2),
        "scalar": torch.tensor(2.5, dtype=torch.bfloat16, requires_grad=True),
        "wide": torch.ones(1).expand(5),
        **{name: torch.arange(-1, 2).to(getattr(torch, name)) for name in cp._DTYPES},
    }
    cp.save_checkpoint(
        tmp_path / "c", manifest=MANIFEST, weights=weights, state={"twice": [base, base.T]}
    )
    loaded = cp.load_checkpoint(tmp_path / "c")
    for name, tensor in weights.items():
        assert torch.equal(loaded.weights[name], tensor), name
        assert loaded.weights[name].dtype == tensor.dtype
    assert torch.equal(loaded.state["twice"][1], base.T)


def test_the_hash_of_the_weights_is_theirs_alone(tmp_path):
    save(tmp_path / "a", state={"x": 1})
    save(tmp_path / "b", step=9)
    save(tmp_path / "c", 2.0)
    a, b, c = (cp.weights_sha256(tmp_path / name) for name in "abc")
    assert a == b != c


def test_names_with_and_without_the_ending(tmp_path):
    for name in ("v1.5", "d.safetensors"):
        assert not cp.checkpoint_exists(tmp_path / name)
        save(tmp_path / name)
        assert cp.checkpoint_exists(tmp_path / name)
    (tmp_path / ".x.host-1.aside.safetensors").touch()
    found = [tmp_path / "d.safetensors", tmp_path / "v1.5.safetensors"]
    assert cp.list_checkpoints(tmp_path) == found
    assert cp.list_checkpoints(tmp_path / "nothing") == []


def test_replaces_and_leaves_nothing_aside(tmp_path):
    save(tmp_path / "last", 1.0, state={"x": 1})
    (tmp_path / ".last.host-1.aside.safetensors").write_text("of a killed process")
    save(tmp_path / "last", 2.0)
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]
    loaded = cp.load_checkpoint(tmp_path / "last")
    assert loaded.weights["b"][0, 0] == 2
    assert loaded.state is None


def test_every_bit_is_checked(tmp_path):
    """Flipped anywhere but in the header's last spaces, it is noticed."""
    save(tmp_path / "c", state={"x": torch.ones(4), "y": [1, 2]})
    file = tmp_path / "c.safetensors"
    whole = file.read_bytes()
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        file.write_bytes(flipped)
        with pytest.raises(UserError, match=r"c\.safetensors: (corrupt|written in)"):
            cp.load_checkpoint(tmp_path / "c")


def test_truncated_foreign_and_missing(tmp_path):
    save(tmp_path / "c", state={"x": torch.ones(4)})
    file = tmp_path / "c.safetensors"
    whole = file.read_bytes()
    for length in (0, 5, 300, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match="corrupt file"):
            cp.read_manifest(tmp_path / "c")
    save_file({"weights/a": torch.ones(1)}, file)
    with pytest.raises(UserError, match="corrupt file: fmbpo did not write it"):
        cp.load_checkpoint(tmp_path / "c")
    torch.save({"b": torch.ones(1)}, file)  # no pickle is read
    with pytest.raises(UserError, match="corrupt file"):
        cp.load_checkpoint(tmp_path / "c")
    file.unlink()
    with pytest.raises(UserError, match="there is no checkpoint here"):
        cp.load_checkpoint(tmp_path / "c")
    file.mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        cp.load_checkpoint(tmp_path / "c")


def test_other_kind_and_other_formats(tmp_path, monkeypatch):
    save(tmp_path / "c")
    with pytest.raises(UserError, match="kind 'policy'; 'world_model' is needed"):
        cp.load_checkpoint(tmp_path / "c", expect_kind="world_model")
    monkeypatch.setattr(cp, "FORMAT", 3)
    save(tmp_path / "c")
    monkeypatch.undo()
    with pytest.raises(UserError, match="written in checkpoint format 3; this fmbpo knows"):
        cp.read_manifest(tmp_path / "c")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "manifest.json").write_text("{}")
    assert cp.checkpoint_exists(tmp_path / "old")  # else a run would begin anew
    with pytest.raises(UserError, match=r"an older format(.|\n)*train again"):
        cp.load_checkpoint(tmp_path / "old")


def test_only_what_is_asked_for_is_read(tmp_path):
    """A reader of the weights ignores a damaged state; a reader of the manifest, both."""
    save(tmp_path / "c", state={"x": torch.ones(4)})
    file = tmp_path / "c.safetensors"
    content = bytearray(file.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])

    def harm(name):
        content[8 + length + header[name]["data_offsets"][0]] ^= 1
        file.write_bytes(content)

    harm("state/x")
    cp.load_checkpoint(tmp_path / "c", with_state=False)
    with pytest.raises(UserError, match="its state do not match"):
        cp.load_checkpoint(tmp_path / "c")
    harm("weights/a")
    cp.read_manifest(tmp_path / "c")
    with pytest.raises(UserError, match="its weights do not match"):
        cp.load_checkpoint(tmp_path / "c", with_state=False)


def test_full_disk_leaves_the_last_one(tmp_path, monkeypatch):
    save(tmp_path / "c", 1.0)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, victim in ((cp, "_bytes"), (files, "fsync_path"), (os, "replace")):
        with monkeypatch.context() as patch:
            if victim == "_bytes":
                patch.setattr(cp, "_tensors_sha256", lambda _: "")
            patch.setattr(module, victim, full)
            with pytest.raises(UserError, match="disk is full; the last checkpoint is intact"):
                save(tmp_path / "c", 2.0)
        assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]
        assert cp.load_checkpoint(tmp_path / "c").weights["b"][0, 0] == 1


FULL_DISK = """
import sys, torch
from pathlib import Path
from fmbpo.errors import UserError
from fmbpo.runs.checkpoint import load_checkpoint, save_checkpoint
path = Path(sys.argv[1]) / "c"
for size in (1_000, 3_000_000):
    try:
        save_checkpoint(path, manifest={"kind": "k", "step": size},
                        weights={"w": torch.zeros(size)}, state=None)
    except UserError as error:
        print(error)
print(load_checkpoint(path).manifest["step"])
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
    with pytest.raises(TypeError, match="complex128"):
        save(tmp_path / "c", state={"x": torch.ones(1, dtype=torch.complex128)})
    assert not list(tmp_path.iterdir())


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
path, draw = Path(sys.argv[1]), random.Random(0)

def write_for_ever(announce):
    step = load_checkpoint(path).manifest["step"] if checkpoint_exists(path) else 0
    while True:
        step += 1
        tensor = torch.full((30_000,), float(step))
        save_checkpoint(path, manifest={"kind": "k", "step": step}, weights={"w": tensor},
                        state={"step": step, "t": tensor})
        os.write(announce, f"{step} ".encode())

announced = 0
for kill in range(int(sys.argv[2])):
    reader, announce = os.pipe()
    child = os.fork()
    if child == 0:
        write_for_ever(announce)
    os.close(announce)
    # Two of three have saved once, however slow the machine; the third may die at any moment.
    head = os.read(reader, 4096).decode() if kill % 3 else ""
    time.sleep(draw.uniform(0.0, float(sys.argv[3])))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader) as lines:
        announced = max([announced, *map(int, (head + lines.read()).split())])
    if announced or checkpoint_exists(path):
        loaded = load_checkpoint(path)
        step = loaded.manifest["step"]
        assert announced <= step <= announced + 1, (announced, step)
        assert loaded.state["step"] == step
        assert torch.equal(loaded.weights["w"], torch.full((30_000,), float(step)))
        assert torch.equal(loaded.state["t"], loaded.weights["w"])
        announced = step
print(announced)
"""


@pytest.mark.parametrize(
    ("kills", "seconds", "least"),
    [(12, 0.05, 8), pytest.param(40, 0.15, 30, marks=pytest.mark.endurance)],
)
def test_kills_never_lose_the_checkpoint(tmp_path, kills, seconds, least):
    """Kills at random instants; each new process continues from the checkpoint that it finds."""
    command = [sys.executable, "-c", KILLS, str(tmp_path / "last"), str(kills), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= least
