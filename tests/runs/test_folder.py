import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmbpo.base.lock import RunLock, Taken, holder_of
from fmbpo.errors import UserError
from fmbpo.runs.folder import RunFolder, check_place, differing_keys, run_name, worker
from fmbpo.runs.summary import Summary

CONFIG = {"policy": {"lr": 5e-4, "sizes": (512, 512)}, "seeds": [1], "device": "cpu"}
NAME = run_name("phase8", "mlp-flow", [42, 123], "0123456789abcdef")


def make(root, config=CONFIG, name=NAME):
    return RunFolder.create_or_resume(root, name, config, {"device": "base.toml"})


def test_names():
    assert NAME == "phase8__mlp-flow__42-123__0123456789"
    assert run_name("phase8_mlpwm_mlppolicy", "a", [1], "ff") == "phase8_mlpwm_mlppolicy__a__1__ff"
    for bad in ("a/b", "", "a__b", "..", "a b", ".hidden"):
        with pytest.raises(ValueError, match="part of a run's name"):
            run_name(bad, "cell", [1], "ff")


@pytest.mark.parametrize("seeds", [range(1, 61), range(2**63, 2**63 + 11)])
def test_names_stay_short(seeds):
    """A file system takes 255 characters, W&B 128."""
    name = run_name("phase8_mlpwm_mlppolicy", "mlp-mlp", list(seeds), "0123456789ab")
    assert name == f"phase8_mlpwm_mlppolicy__mlp-mlp__{len(seeds)}seeds__0123456789"
    with pytest.raises(ValueError, match="has more than 128 characters"):
        run_name("x" * 110, "mlp-mlp", list(seeds), "0123456789ab")


def test_a_name_of_allowed_length_has_every_seed():
    name = run_name("x" * 104, "mlp", [1, 2, 3], "0123456789ab")
    assert (len(name), name.split("__")[2]) == (128, "1-2-3")


def test_a_place_is_tried_without_writing(tmp_path):
    run, before = tmp_path / NAME, sorted(tmp_path.rglob("*"))
    check_place(run)
    assert sorted(tmp_path.rglob("*")) == before
    make(tmp_path).close()
    check_place(run)
    (run / "config.json").write_text("null")
    with pytest.raises(UserError, match="not a JSON object"):
        check_place(run)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").touch()
    with pytest.raises(UserError, match="there is a file in place of a folder"):
        check_place(run)
    deep = tmp_path.joinpath(*["d" * 200] * 20)  # 4096 bytes are the most
    with pytest.raises(UserError, match=r"too long.*\n  -> choose a shorter name"):
        check_place(deep / NAME)


def test_create_then_resume(tmp_path):
    with make(tmp_path / "deep" / "runs") as run:
        assert run.path.name == NAME
        assert run.config() == json.loads(json.dumps(CONFIG))
        assert json.loads((run.path / "origins.json").read_text()) == {"device": "base.toml"}
        assert run.checkpoints.is_dir()
        assert worker(run.path) == f"process {os.getpid()} on {socket.gethostname()}"
        assert not run.is_complete
        with pytest.raises(UserError, match="no such file"):
            Summary.of_run(run)
    with make(tmp_path / "deep" / "runs") as run:
        run.write_summary({"experiment": "x"})
        assert run.is_complete
        assert json.loads((run.path / "summary.json").read_text()) == {"experiment": "x"}
    assert worker(run.path) == ""
    assert not [p for p in run.path.iterdir() if "aside" in p.name]


def test_open_needs_a_run(tmp_path):
    with pytest.raises(UserError, match="no run here"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("text", ["null", "5", "[]", "[[1, 2]]", '"text"'])
def test_json_that_is_no_object(text, tmp_path):
    make(tmp_path).close()
    run = RunFolder.open(tmp_path / NAME)
    for file, read in (("config.json", run.config), ("summary.json", lambda: Summary.of_run(run))):
        (run.path / file).write_text(text)
        with pytest.raises(UserError, match=rf"{file}: not a JSON object\n  -> .*restore it"):
            read()
    with pytest.raises(UserError, match=r"config\.json: not a JSON object"):
        make(tmp_path)


def test_another_configuration_is_refused_by_key(tmp_path):
    make(tmp_path).close()
    other = {"policy": {"lr": 1e-3, "sizes": [512, 512]}, "seeds": [1], "extra": None}
    with pytest.raises(UserError) as caught:
        make(tmp_path, other)
    message = str(caught.value)
    assert "policy.lr: 0.0005 -> 0.001" in message
    assert 'device: "cpu" -> absent' in message
    assert "extra: absent -> null" in message
    assert "sizes" not in message
    make(tmp_path).close()  # the refusal gave the lock back


def test_differing_keys_knows_types():
    assert differing_keys({"a": 1, "b": float("nan")}, {"a": 1, "b": float("nan")}) == []
    assert differing_keys({"a": 1}, {"a": 1.0}) == ["a: 1 -> 1.0"]
    assert differing_keys({"a": 1}, {"a": True}) == ["a: 1 -> true"]


def test_killed_before_the_configuration_was_written(tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "run.lock").touch()
    (tmp_path / NAME / "origins.json").write_text("{}")
    (tmp_path / NAME / ".config.1.aside.json").write_text("{")
    with make(tmp_path) as run:
        assert run.config()["device"] == "cpu"


def test_foreign_things_are_left_alone(tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "holiday.jpg").touch()
    with pytest.raises(UserError, match=r"is not a run; it holds holiday\.jpg"):
        make(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="there is a file in place of a folder"):
        make(tmp_path, name="file")
    with pytest.raises(UserError, match="there is a file in place of a folder"):
        make(tmp_path / "file")


def test_unwritable_root(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="no permission to write"):
        make(tmp_path / "x")


HOLD = """
import sys, json
from pathlib import Path
from fmbpo.runs.folder import RunFolder
run = RunFolder.create_or_resume(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), {})
print("held", flush=True)
sys.stdin.readline()
"""


def test_two_processes_on_one_run(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), NAME, json.dumps(CONFIG)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    assert worker(tmp_path / NAME) == f"process {holder.pid} on {socket.gethostname()}"
    with pytest.raises(Taken, match=f"in use by process {holder.pid} on "):
        make(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert worker(tmp_path / NAME) == ""
    make(tmp_path).close()


def test_a_forked_worker_does_not_keep_the_lock(tmp_path):
    lock = RunLock(tmp_path / "run.lock", tmp_path)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(lock._descriptor)  # as when this process dies
    lock._descriptor = -1
    time.sleep(0.05)
    assert not holder_of(tmp_path / "run.lock")
    os.close(writer)
    os.waitpid(child, 0)
    os.close(reader)
