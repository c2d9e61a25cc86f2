import errno
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from fmbpo.base.metrics import Row, cell_series, read_metrics
from fmbpo.errors import UserError
from fmbpo.runs.sinks import JsonLines, MetricSinks, sinkimpl
from fmbpo.runs.wandb_sink import WandbSink


def train(sinks, steps):
    for step in steps:
        loss = {"loss": torch.tensor(1 / (step + 1))}
        sinks.log("policies", step, [Row(loss), Row(loss, "walker-stand", 42)])
        if step % 3 == 0:
            sinks.event("evaluated", {"step": step, "returns": [1.0, math.inf]})


def test_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricSinks([JsonLines(path)]) as sinks:
        sinks.begin("policy", 0, 10)
        values = {"loss": np.float32(0.5), "n": 3, "bad": math.nan, "far": -math.inf, "note": "x"}
        cell = Row({"loss": 0.25, "held_out/score": 2.0}, "walker-stand", 42)
        sinks.log("policies", 1, [Row({**values, "host/seconds": 3.2}), cell])
        sinks.log("policies", 2, [Row({"host/seconds": 3.2})])
        sinks.event("host/resumed", {"at": 1})
        sinks.event("reward model is constant", {"r2": math.nan, "by": {"a": [math.inf]}})
    lines = path.read_text().splitlines()
    assert json.loads(lines[0], parse_constant=pytest.fail) == {
        "stage": "policies", "step": 1, "loss": 0.5, "n": 3, "bad": "NaN", "far": "-Infinity",
        "note": "x",
    }  # fmt: skip
    assert json.loads(lines[1]) == {
        "stage": "policies", "step": 1, "task": "walker-stand", "seed": 42, "loss": 0.25,
        "held_out/score": 2.0,
    }  # fmt: skip
    assert json.loads(lines[2], parse_constant=pytest.fail)["payload"]["by"] == {"a": ["Infinity"]}
    assert len(lines) == 3
    first = next(read_metrics(path))
    assert math.isnan(first["bad"])
    assert first["far"] == -math.inf
    assert cell_series(path, "loss") == {"": {"": [(1, 0.5)]}, "walker-stand": {"42": [(1, 0.25)]}}
    assert cell_series(path, "absent") == {}


def test_a_record_of_version_0_1_0(tmp_path):
    """It has one row for all cells, whose metrics are called TASK/SEED/NAME."""
    path = tmp_path / "metrics.jsonl"
    old = {"stage": "policies", "step": 3, "return": 2.0, "grad_norm/net": 0.5}
    cells = {"a-b/1/return": 1.0, "a-b/1/held_out/score": 0.1, "a-b/2/return": "NaN"}
    path.write_text(json.dumps({**old, **cells}) + "\n")
    head = {"stage": "policies", "step": 3, "task": "a-b"}
    first, *rows = read_metrics(path)
    assert first == old
    assert rows[0] == {**head, "seed": 1, "return": 1.0, "held_out/score": 0.1}
    assert math.isnan(rows[1].pop("return"))
    assert rows[1:] == [{**head, "seed": 2}]


def test_resumed_file_is_byte_equal(tmp_path):
    with MetricSinks([JsonLines(tmp_path / "whole.jsonl")]) as sinks:
        train(sinks, range(20))
    path = tmp_path / "broken.jsonl"
    first = MetricSinks([JsonLines(path)])
    train(first, range(8))
    positions = json.loads(json.dumps(first.checkpoint()))
    assert positions == {"jsonl": path.stat().st_size}
    train(first, range(8, 13))
    first.close()
    with path.open("ab") as file:
        file.write(b'{"stage": "pol')  # what a kill leaves
    assert len(list(read_metrics(path))) == 31
    with MetricSinks([JsonLines(path)]) as second:
        second.truncate(positions)
        assert second.checkpoint() == positions
        train(second, range(8, 20))
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    with MetricSinks([JsonLines(path)]) as third:
        third.truncate({})
    assert path.read_bytes() == b""


def test_an_edited_record_is_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricSinks([JsonLines(path)]) as sinks:
        train(sinks, range(3))
        with pytest.raises(UserError, match="no line ends at byte 5,"):
            sinks.truncate({"jsonl": 5})
        with pytest.raises(UserError, match="no line ends at byte 100000,"):
            sinks.truncate({"jsonl": 100000})
    path.write_text("{}\nnonsense\n{}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: not a line of JSON"):
        list(read_metrics(path))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_metrics(tmp_path / "absent"))


def test_full_disk(tmp_path, monkeypatch):
    sinks = MetricSinks([JsonLines(tmp_path / "m.jsonl")])
    sinks.log("a", 1, [Row({"x": 1})])

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="disk is full"):
            sinks.checkpoint()
    sinks.close()
    sinks.close()


@pytest.mark.parametrize("name", ["step", "task"])
def test_reserved_names(name, tmp_path):
    with (
        MetricSinks([JsonLines(tmp_path / "m.jsonl")]) as sinks,
        pytest.raises(ValueError, match=name),
    ):
        sinks.log("a", 1, [Row({name: 1})])


def test_every_sink_in_the_order_given():
    calls = []

    class Sink:
        def __init__(self, name):
            self.name = name

        @sinkimpl
        def log(self, step, rows):
            calls.append((self.name, step, rows))

        @sinkimpl
        def checkpoint(self):
            return None

    sinks = MetricSinks([Sink("a"), Sink("b")])
    sinks.log("s", 3, [Row({"x": torch.tensor(2)})])
    assert calls == [("a", 3, [Row({"x": 2})]), ("b", 3, [Row({"x": 2})])]
    assert sinks.checkpoint() == {}


def test_steps_of_all_stages_on_one_axis(tmp_path):
    stages = {"world_model": 10, "policy/a": 5, "policy/b": 5}
    sink = WandbSink(
        mode="disabled", project="p", group="g", folder=tmp_path, config={}, stages=stages
    )
    assert sink.begins == {"world_model": 0, "policy/a": 11, "policy/b": 17}
    assert sink.end == 23


def wandb_sink(tmp_path, mode):
    return WandbSink(
        mode=mode, project="p", group="g", folder=tmp_path / "e__c__1__ff", config={"a": 1},
        stages={"policy": 10},
    )  # fmt: skip


def test_wandb_disabled_imports_nothing(tmp_path):
    code = """
import sys
from pathlib import Path
from fmbpo.base.metrics import Row
from fmbpo.runs.wandb_sink import WandbSink
nothing = {"project": "p", "group": "g", "config": {}, "stages": {"policy": 1}}
sink = WandbSink(mode="disabled", folder=Path("."), **nothing)
sink.log("policy", 1, [Row({"x": 1})])
sink.event("e", {})
sink.close()
heavy = {"wandb", "torch", "rich", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


class BrokenRun:
    def __init__(self):
        self.step, self.sent = 4, []

    def log(self, values, step):
        if step == 7:
            raise RuntimeError("backend died")
        self.sent.append((step, values))


def test_wandb_skips_known_steps_and_warns_once(tmp_path, capsys):
    sink = wandb_sink(tmp_path, "disabled")
    run = sink._run = BrokenRun()
    for step in range(3, 10):
        sink.log("policy", step, [Row({"x": step}), Row({"x": -1}, "a-b", 7)])
    assert [step for step, _ in run.sent] == [4, 5, 6]
    assert run.sent[0][1] == {"policy/step": 4, "policy/x": 4, "policy/a-b/7/x": -1}
    captured = capsys.readouterr()
    assert captured.err.count("backend died") == 1
    assert captured.out == ""


def test_wandb_offline(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    (tmp_path / "e__c__1__ff").mkdir()
    sink = wandb_sink(tmp_path, "offline")
    assert sink._run is not None, capfd.readouterr().err
    with MetricSinks([sink]) as sinks:
        sinks.begin("policy", 0, 10)
        for step in range(5):
            sinks.log("policy", step, [Row({"loss": 1.0 / (step + 1)})])
        sinks.event("note", {"x": 1})
    kept = list(tmp_path.glob("*/wandb/offline-run-*-e__c__1__ff/*.wandb"))
    assert len(kept) == 1
    assert capfd.readouterr().out == ""
