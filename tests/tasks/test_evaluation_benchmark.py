"""The benchmark of evaluation runs and writes what it measured; times are not judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def test_the_benchmark_writes_times_and_shares_that_agree(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    script = REPOSITORY / "benchmarks" / "evaluation.py"
    words = ["--tasks", "cup-spin", "--episodes", "2", "--steps", "5", "--workers", "0", "1"]
    command = [sys.executable, str(script), *words, "--repeats", "1", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert [t["workers"] for t in found["timings"]] == [0, 1, 0, 1, None]
    laptop, paper = found["shares"]
    assert (laptop["scale"], laptop["updates"]) == ("laptop", 1000)
    assert laptop["episodes_during_training"] == 11 * 4
    assert paper["episodes_during_training"] == 6 * 10
    fastest = min(t["median"] for t in found["timings"][2:4])
    assert laptop["seconds_an_episode"] == pytest.approx(fastest / 2 * 100)
    # At the update's time that is said, evaluation is a tenth: e / (e + u) = 0.1.
    evaluated = 44 * laptop["seconds_an_episode"]
    updates = 1.0 * laptop["milliseconds_an_update_for_a_tenth"]
    assert evaluated / (evaluated + updates) == pytest.approx(0.1)
