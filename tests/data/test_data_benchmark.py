"""The benchmark of the data runs and says what it measured; nothing depends on the timings."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def benchmark(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    folder = repository / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("data_benchmark", folder / "data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "data_benchmark", module)
    spec.loader.exec_module(module)
    return module


def test_it_measures_every_residence_and_layout(benchmark: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    words = ["--rows", "0.02", "--batch", "4", "--size", "tiny", "--repeats", "1"]
    words += ["--seconds", "0.01", "--device", "cpu", "--folder", str(tmp_path)]
    assert benchmark.main([*words, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    kinds = {row["from"] for row in found["sampling"]}
    assert kinds >= {"device", "host", "stream"}
    assert all(row["rows_per_second"] > 0 for row in found["sampling"])
    sizes = {(r["chunk"], r["compression"]): r["bytes_per_row"] for r in found["layouts"]}
    assert sizes[8192, "zstd 5"] < sizes[8192, "lz4 5"] < sizes[8192, "none"]
    assert [p.name for p in tmp_path.iterdir()] == ["found.json"]
