"""Where rows are sampled from: the choice, what it takes, and what a run records of it."""

import json

import attrs
import pytest
import torch
from numbered import TASKS, write_store

from fmbpo.base import free_memory
from fmbpo.cli import main
from fmbpo.config import load_experiment
from fmbpo.config.schema import DataConfig
from fmbpo.data.store import open_store
from fmbpo.errors import UserError
from fmbpo.training import residence_choice as residence
from fmbpo.training.dataset import load_dataset
from fmbpo.training.own_models import check_learning

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def store(small_store):
    return open_store(small_store)


@pytest.mark.parametrize(
    ("device", "gpu", "host", "expected"),
    [
        (CPU, 0.0, 1.3, "device"),
        (CPU, 0.0, 1.2, "stream"),
        (GPU, 1.7, 0.1, "device"),
        (GPU, 1.6, 1.3, "host"),
        (GPU, 1.6, 1.2, "stream"),
    ],
)
def test_auto_is_the_first_that_fits(device, gpu, host, expected, store, monkeypatch):
    """Rows may take 0.6 of a GPU's memory and 0.8 of the host's."""
    size = store.rows * 124
    monkeypatch.setattr(free_memory, "device_total", lambda _: int(gpu * size))
    monkeypatch.setattr(free_memory, "host_total", lambda: int(host * size))
    assert residence.choose(DataConfig(), store, device) == expected
    assert residence.choose(DataConfig(residence="host"), store, device) == "host"


def test_auto_does_not_depend_on_what_is_free(store, monkeypatch):
    monkeypatch.setattr(free_memory, "host_free", lambda: 0)
    assert residence.choose(DataConfig(), store, CPU) == "device"


@pytest.fixture
def command(repository, small_store, tiny, tmp_path, monkeypatch, capsys):
    """``command(what, *overrides)`` with the small store: status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    file = repository / "experiments" / "phase8_pretrain_mlpwm.toml"

    def command(what, *overrides):
        arguments = [what, str(file), "--scale", "laptop", "--data", str(small_store), "--json"]
        arguments += [x for o in (*tiny, *overrides) for x in ("-o", o)]
        status = main(arguments)
        return status, *capsys.readouterr()

    return command


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_run_records_its_residence_which_is_part_of_it_from_the_disk_alone(command, tmp_path):
    folders = {}
    for asked, kind in (("auto", "device"), ("host", "host"), ("stream", "stream")):
        before = set(tmp_path.glob("runs/*__*"))
        status, _, said = command("run", f"data.residence={asked}")
        assert status == 0
        (folder,) = set(tmp_path.glob("runs/*__*")) - before or {folders.get("device")}
        config = json.loads((folder / "config.json").read_text())
        folders[kind] = folder
        assert f"residence {kind}" in said
        assert ("is complete" in said) == (asked == "host")
        assert config["data"]["residence"] == ("stream" if kind == "stream" else "device")
    assert folders["host"] == folders["device"] != folders["stream"]
    # Its only block is all of it, so that even the order is the same.
    assert losses(folders["stream"]) == losses(folders["device"])


def test_host_and_device_learn_the_same_bits(command, tmp_path):
    found = []
    for kind in ("device", "host"):
        assert command("run", f"data.residence={kind}")[0] == 0
        (folder,) = tmp_path.glob("runs/*__*")
        found.append(losses(folder))
        folder.rename(tmp_path / kind)
    assert found[0] == found[1] != []


def test_the_table_says_where_the_rows_are_and_counts_the_windows(command, monkeypatch, store):
    needs = {}
    for kind in ("device", "host", "stream"):
        status, out, _ = command("check", f"data.residence={kind}")
        assert status == 0
        rows = {row["subject"]: row["detail"] for row in json.loads(out)["checks"]}
        said = {"device": "on cpu", "host": "memory (host)", "stream": "in windows (stream)"}
        assert said[kind] in rows["data"]
        needs[kind] = rows["memory"].split(", ")[0]  # not what is free, which changes
    assert needs["device"] == needs["host"]
    assert residence.streaming_bytes(store, 2) == 2 * store.rows * 124 + 2 * 6_291_456
    assert needs["stream"] != needs["host"]
    monkeypatch.setattr(residence, "window_bytes", lambda *_: 10**12)
    status, out, _ = command("check", "data.residence=stream")
    assert status == 2
    assert "1 TB needed" in out
    monkeypatch.setattr(free_memory, "host_free", lambda: 1_000)
    status, _, said = command("run", "data.residence=host")
    assert status == 2
    assert "choose data.residence = stream" in said


def test_learning_models_refuse_compressed_rows_on_the_disk(repository, tmp_path, tiny_policy):
    file = repository / "experiments" / "base" / "demo_scratch.toml"
    for compress in (False, True):
        path = write_store(tmp_path / f"{compress}.zarr", compress=compress)
        e = load_experiment(file, scale="laptop", data=str(path), overrides=tiny_policy)
        data = load_dataset(attrs.evolve(e.data, residence="stream"), CPU)
        if not compress:
            check_learning(e, data)
            continue
        with pytest.raises(UserError, match="decode a compressed chunk"):
            check_learning(e, data)


def test_weights_reach_the_sampler_and_wrong_ones_are_named(tmp_path):
    path = str(write_store(tmp_path / "set.zarr"))
    assert load_dataset(DataConfig(path=path), CPU).weight_K is None
    data = load_dataset(DataConfig(path=path, weights={TASKS[0]: 2.5}), CPU)
    assert sorted(data.weight_K.tolist()) == [1.0] * 29 + [2.5]
    for tasks, name in (([], "humanoid-walk"), ([TASKS[1]], TASKS[0])):
        config = DataConfig(path=path, tasks=tasks, weights={name: 1.0})
        with pytest.raises(UserError, match=f"data.weights names task '{name}'"):
            load_dataset(config, CPU)
    with pytest.raises(ValueError, match="must be in"):
        DataConfig(weights={TASKS[0]: 0.0})
