"""The data sent to W&B, read back from the files of an offline run."""

import json
import os
import struct

import pytest

from fmbpo.base.metrics import Row
from fmbpo.cli import main
from fmbpo.runs.wandb_sink import WandbSink
from fmbpo.training.policies import PolicyTraining

wandb = pytest.importorskip("wandb")
wandb_pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
BLOCK, W_AND_B_HEADER, HEADER = 32768, 7, 7


def records(file):
    """The records of a ``.wandb`` file: LevelDB's log format behind a header of its own."""
    data, place, whole = file.read_bytes(), W_AND_B_HEADER, b""
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + HEADER : place + HEADER + size]
        place += HEADER + size
        if kind in (1, 4):  # full, last
            record = wandb_pb.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


class Written:
    """One offline run as W&B would take it in."""

    def __init__(self, file):
        found = list(records(file))
        kinds = [record.WhichOneof("record_type") for record in found]
        (self.run,) = [r.run for r, k in zip(found, kinds, strict=True) if k == "run"][-1:]
        self.history = [
            {(item.key or "/".join(item.nested_key)): json.loads(item.value_json)
             for item in record.history.item}
            for record, kind in zip(found, kinds, strict=True) if kind == "history"
        ]  # fmt: skip
        self.summary = {}
        for record, kind in zip(found, kinds, strict=True):
            if kind == "summary":
                for item in record.summary.update:
                    self.summary[item.key or "/".join(item.nested_key)] = json.loads(
                        item.value_json
                    )
        requests = [r.request for r, k in zip(found, kinds, strict=True) if k == "request"]
        artefacts = [q.log_artifact.artifact for q in requests if q.HasField("log_artifact")]
        artefacts += [r.artifact for r, k in zip(found, kinds, strict=True) if k == "artifact"]
        self.artefacts = {a.name: {e.path for e in a.manifest.contents} for a in artefacts}

    @property
    def steps(self):
        return [line["_step"] for line in self.history]


@pytest.fixture
def go(repository, tmp_path, small_store, tiny_policy, monkeypatch, capfd):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    arguments = ["run", str(repository / "experiments/phase3.toml"), "--scale", "laptop"]
    arguments += ["--data", str(small_store), "--json"]
    pretrained = "protocol.checkpoint=made"
    overrides = ["wandb.mode=offline", "policy_learning.checkpoint_every=2", pretrained]
    for override in [*tiny_policy, *overrides]:
        arguments += ["-o", override]

    def go():
        status = main(arguments)
        out, err = capfd.readouterr()
        return status, out and json.loads(out), err

    return go


@pytest.fixture
def made(tmp_path, repository, small_store, tiny, monkeypatch, capfd):
    """A pretrained world model at ``made``, in the working directory."""
    monkeypatch.chdir(tmp_path)
    words = ["run", str(repository / "experiments/phase8_pretrain_mlpwm.toml")]
    words += ["--scale", "laptop", "--data", str(small_store), "--runs", "first"]
    for override in tiny:
        words += ["-o", override]
    assert main(words) == 0
    (best,) = tmp_path.glob("first/*/checkpoints/best.safetensors")
    best.rename(tmp_path / "made.safetensors")
    capfd.readouterr()


def runs_of(tmp_path):
    """Offline runs by their ids, each id's in the order in which they were made."""
    found = {}
    for file in sorted(tmp_path.glob("runs/*/wandb/offline-run-*/*.wandb"), key=os.path.getmtime):
        one = Written(file)
        found.setdefault(one.run.run_id, []).append(one)
    return found


def test_a_study_as_w_and_b_takes_it_in(go, made, tmp_path):
    status, summaries, said = go()
    assert status == 0, said
    found = runs_of(tmp_path)
    assert {one.run.run_group for runs in found.values() for one in runs} == {"phase3"}
    assert {one.run.project for runs in found.values() for one in runs} == {"MT30-Detailed"}
    assert sorted(runs[0].run.display_name for runs in found.values()) == [
        "phase3_flowpolicy mlp-flow 1", "phase3_mlppolicy mlp-mlp 1",
    ]  # fmt: skip
    for name, (one,) in found.items():
        steps = one.steps
        assert steps == sorted(set(steps))
        (cell,) = [s for n, s in summaries.items() if n in name]
        results = {k: v for k, v in one.summary.items() if k.startswith("results")}
        text = json.dumps(results)
        task = cell["tasks"]["reacher-easy"]["seeds"]
        mean = sum(seed["return_mean"] for seed in task.values()) / 2
        assert json.dumps(mean) in text
        (files,) = [files for a, files in one.artefacts.items() if a == name]
        assert {"summary.json", "config.json", "curves.png"} <= files
        kinds = {key: value for line in one.history for key, value in line.items()}
        assert kinds["results/returns/_type"] == "table-file"
        assert kinds["results/returns/nrows"] == 4
        assert kinds["results/curves/_type"] == "image-file"


def test_the_environment_wins_and_without_a_key_nothing_is_lost(tmp_path, monkeypatch, capsys):
    wandb.teardown()  # it reads the environment once
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.netrc, and no settings
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    given = {"MODE": "online", "PROJECT": "ours", "ENTITY": "us", "DIR": "~/there"}
    for name, value in given.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    (tmp_path / "there").mkdir()
    folder = tmp_path / "name__1__00ff"
    folder.mkdir()
    about = {"project": "theirs", "group": "g", "folder": folder, "config": {}, "stages": {"s": 2}}
    sink = WandbSink(mode="disabled", **about)
    sink.log("s", 1, [Row({"x": 1.0})])
    sink.close()
    wandb.teardown()  # the file is complete
    assert list(folder.iterdir()) == []
    (file,) = (tmp_path / "there").glob("wandb/offline-run-*/*.wandb")
    one = Written(file)
    assert (one.run.project, one.run.entity, one.run.run_id) == ("ours", "us", folder.name)
    assert one.history[0]["s/x"] == 1.0
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "API key" in said
    assert f"wandb sync {tmp_path}/there/wandb/offline-run-*" in said
    monkeypatch.setenv("WANDB_MODE", "disabled")
    WandbSink(mode="online", **about).close()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("WANDB_MODE", "of\x1bline")
    WandbSink(mode="online", **about).close()
    assert r"off for this run (WANDB_MODE is 'of\x1bline', not online," in capsys.readouterr().err
    assert list(folder.iterdir()) == []


class Killed(BaseException):
    """Nobody catches it, as nobody catches a kill."""


def test_a_resumed_run_continues_its_run_and_its_steps(go, made, tmp_path, monkeypatch):
    step = PolicyTraining.step

    def dies(self, iteration):
        if iteration == 5:
            raise Killed
        return step(self, iteration)

    monkeypatch.setattr(PolicyTraining, "step", dies)
    with pytest.raises(Killed):
        go()
    monkeypatch.setattr(PolicyTraining, "step", step)
    status, _, said = go()
    assert status == 0, said
    name, parts = next((n, p) for n, p in runs_of(tmp_path).items() if len(p) == 2)
    assert "mlppolicy" in name
    first, second = parts
    assert first.run.run_id == second.run.run_id
    assert second.steps == sorted(set(second.steps))
    assert min(second.steps) > 4  # what was saved is not sent again
    logged = {s for part in parts for s in part.steps}
    assert {2, 4, 6} <= logged
