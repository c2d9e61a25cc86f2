"""The benchmark runs and writes what it measured; the times themselves are not judged."""

import importlib.util
import json
import socket
import statistics
import subprocess
import sys

import attrs
import pytest
import torch
from members import together


@pytest.fixture(scope="module")
def benchmark(repository):
    spec = importlib.util.spec_from_file_location("bench", repository / "benchmarks" / "update.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY = ["--size", "tiny", "--batch", "4", "--horizon", "3", "--repeats", "1", "--device", "cpu"]


def test_one_pair(benchmark, tmp_path, capsys):
    file = tmp_path / "result.json"
    command = ["--world-model", "flow", "--policy", "mlp", "--cells", "1", "2", *TINY]
    assert benchmark.main([*command, "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert "ms/update" in out
    assert "GFLOP/s" in out
    result = json.loads(file.read_text())
    assert set(result) == {
        "settings", "machine", "load_average", "versions", "updates", "ratios",
    }  # fmt: skip
    assert set(result["machine"]) >= {"cpu", "cores", "threads", "gpu"}
    assert result["versions"]["torch"]
    assert len(result["load_average"]) == 3
    assert socket.gethostname() not in file.read_text()
    names = ("update", "world_model", "policy", "cells", "mode")
    modes = "eager", "graph"
    assert [tuple(update[name] for name in names) for update in result["updates"]] == [
        *(("world model", "flow", None, 1, mode) for mode in modes),
        *(("policy", "flow", "mlp", 1, mode) for mode in modes),
        *(("policy", "flow", "mlp", 2, mode) for mode in modes),
    ]
    for update in result["updates"]:
        assert len(update["milliseconds"]) == 1
        assert update["median_milliseconds"] == update["milliseconds"][0] > 0
        assert update["gflop"] > 0
        assert update["gflop_per_second"] > 0
        assert update["parameters"] > 0
    one, two = result["updates"][2::2]
    assert two["gflop"] == pytest.approx(2 * one["gflop"])
    ratios = {ratio["what"].partition(":")[0]: ratio for ratio in result["ratios"][::-1]}
    assert set(ratios) == {"graph / eager", "stacked / 2 times one cell"}
    ratio = ratios["stacked / 2 times one cell"]
    expected = two["median_milliseconds"] / one["median_milliseconds"] / 2
    assert ratio["ratio"] == pytest.approx(expected)


def test_every_ratio(benchmark):
    job = benchmark.Job
    jobs = [
        job("policy", world, policy, 1, mode, 1, 1.0, None, None, [time])
        for world, policy, mode, time in [
            ("mlp", "mlp", "eager", 2.0),
            ("flow", "mlp", "eager", 8.0),
            ("flow", "flow", "eager", 16.0),
            ("flow", "flow", "compiled", 4.0),
        ]
    ]
    found = {r["what"].partition(":")[0]: r["ratio"] for r in benchmark.all_ratios(jobs)}
    assert found == {
        "flow / mlp world model": 4.0, "flow / mlp policy": 2.0, "compiled / eager": 0.25,
    }  # fmt: skip


@pytest.fixture(scope="module")
def neighbours(repository):
    """Benchmarks that import ``update``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(repository / "benchmarks")
        yield importlib.import_module


@pytest.fixture(scope="module")
def gpu(neighbours):
    return neighbours("gpu")


@pytest.fixture(scope="module")
def scaling(neighbours):
    return neighbours("scaling")


TINY_GPU = ["--device", "cpu", "--size", "tiny", "--batch", "4", "4", "--horizon", "3"]


@pytest.mark.endurance
def test_a_dry_run_of_the_gpu_benchmark(gpu, tmp_path, monkeypatch, capsys):
    """All sections but the waits, whose stages have laptop scale."""
    file = tmp_path / "gpu.json"
    monkeypatch.setattr(gpu, "waits", lambda report, options: None)
    assert gpu.main([*TINY_GPU, "--cells", "1", "--repeats", "1", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert len(found["ceilings"]) == 4  # two precisions, copies, launches
    assert [row["off"] for row in found["parity"]] == [0.0] * 6
    (beside,) = found["overlap"]
    assert beside["steps"] == 5
    assert 0 < beside["evaluation_s"] < beside["both_s"]
    # 2 precisions, 2 modes; 2 world models, each alone and with 2 policies.
    assert len(found["updates"]) == 2 * 2 * 2 * 3
    assert all(row["kernels"] > 100 for row in found["updates"] if row["mode"] == "graph")
    assert "errors" not in found
    assert "left_out" not in found
    assert "median_milliseconds" in capsys.readouterr().out


def test_the_gpu_benchmark_keeps_what_it_has(gpu, tmp_path, monkeypatch):
    """A section that fails costs no other; the time is kept."""
    file = tmp_path / "gpu.json"

    def broken(report, options):
        raise RuntimeError("no such card")

    monkeypatch.setattr(gpu, "parity", broken)
    monkeypatch.setattr(gpu, "waits", lambda report, options: None)
    assert gpu.main([*TINY_GPU, "--seconds", "0", "--json", str(file)]) == 1
    found = json.loads(file.read_text())
    assert found["errors"] == [{"section": "broken", "error": "no such card"}]
    assert found["ceilings"]
    assert found["left_out"]


def test_the_gpu_benchmark_without_a_gpu(gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "there is no GPU here" in capsys.readouterr().err


@pytest.mark.endurance
def test_gains_of_two_processes(scaling):
    """Strong scaling shares a batch and three policies; weak scaling doubles them."""
    tiny = ["--size", "tiny", "--batch", "64", "4", "--horizon", "16", "--cells", "3"]
    options = scaling.parsed([*tiny, "--world-model", "mlp", "--policy", "flow", "--repeats", "2"])

    def lead(group):
        return [
            (attrs.asdict(row), row.gain, row.messages)
            for row in scaling.measurements(group, options)
        ]

    found = together(2, lead)
    labels = [(row["work"], row["policy"], row["scaling"]) for row, _, _ in found]
    assert labels == [
        ("pretraining", None, "strong"), ("pretraining", None, "weak"),
        ("policies", "flow", "strong"), ("policies", "flow", "weak"),
    ]  # fmt: skip
    for row, gain, messages in found:
        assert [len(row[f"{name}_ms"]) for name in ("alone", "together", "messages")] == [2] * 3
        assert 0 < messages < 1
        factor = 2 if row["scaling"] == "weak" else 1
        turns = [a / t for a, t in zip(row["alone_ms"], row["together_ms"], strict=True)]
        assert gain == pytest.approx(factor * statistics.mean(turns))  # of two, also the median


def test_the_calculated_limits(scaling):
    """19 million parameters through the links of 8 GPUs, and of 8 nodes."""
    one, many = (row for row in scaling.limits() if row["world_model"] == "mlp")
    assert (one["gpus"], many["gpus"]) == (8, 64)
    assert one["megabytes"] == pytest.approx(76, abs=1)
    assert one["nvlink_ms"] == pytest.approx(2 * 7 / 8 * one["megabytes"] / 450e3 * 1e3)
    assert one["network_ms"] == 0
    assert many["network_ms"] == pytest.approx(2 * 7 / 8 * one["megabytes"] / 25e3 * 1e3)
    assert one["weak"] == pytest.approx(8 * 6 / (6 + one["nvlink_ms"]))


def test_beside_pwm_without_pwm(repository, tmp_path):
    program = repository / "benchmarks" / "beside_pwm.py"
    command = [sys.executable, str(program), "--pwm", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 2
    assert "no checkout of PWM" in found.stderr
    assert "Traceback" not in found.stderr


def test_an_unknown_plugin(benchmark, capsys):
    assert benchmark.main(["--world-model", "fluid", *TINY]) == 2
    assert (
        "no installed distribution offers a world model plugin 'fluid'" in capsys.readouterr().err
    )


def test_the_results_name_no_host(repository):
    """Timings that are kept say what they ran on, and how busy it was."""
    files = list((repository / "benchmarks" / "results").glob("*.json"))
    assert files
    for file in files:
        result = json.loads(file.read_text())
        if file.name == "coverage.json":  # statistics, the same on any machine
            assert "machine" not in result
            continue
        assert result["machine"]["cpu"]
        assert result["load_average"]
        assert not {"host", "hostname", "user"} & set(result["machine"])
