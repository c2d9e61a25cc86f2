"""``experiments/slurm.sh`` in a real SLURM: stopped, queued again, finished."""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

import pytest
from slurm import Slurm, missing

from fmbpo.base.metrics import read_metrics
from fmbpo.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing() or "SLURM can be started"),
]


MANY = 700  # iterations: some seconds, of which the signal has the most to arrive
EVERY = ("iterations", "validate_every", "checkpoint_every")


@pytest.fixture
def slurm():
    # Sockets have short paths.
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, Slurm(Path(folder)) as running:
        yield running


def test_a_job_that_is_told_to_stop_is_queued_again_and_ends(
    slurm, tmp_path, repository, small_store, tiny, capsys
):
    on_path = tmp_path / "bin"
    on_path.mkdir()
    (on_path / "fmbpo").write_text(f'#!/bin/sh\nexec {sys.executable} -m fmbpo "$@"\n')
    (on_path / "fmbpo").chmod(0o755)
    slurm.environment["PATH"] = f"{on_path}{os.pathsep}{os.environ['PATH']}"
    log, runs = tmp_path / "log.txt", tmp_path / "runs"
    words = [repository / "experiments/phase8_pretrain_mlpwm.toml", "--scale", "laptop"]
    words += ["--data", small_store, "--runs", runs]
    overrides = [*tiny, *(f"pretrain.{name}={MANY}" for name in EVERY)]
    script = repository / "experiments/slurm.sh"
    options = [f"--output={log}", "--time=10", f"--chdir={repository}"]
    options += [script, *words, *(word for o in overrides for word in ("-o", o))]
    number = slurm("sbatch", "--parsable", *map(str, options)).strip()

    def step():
        (folder,) = runs.glob("phase8_pretrain_mlpwm__*") if runs.exists() else [None]
        metrics = folder and folder / "metrics.jsonl"
        lines = list(read_metrics(metrics)) if metrics and metrics.exists() else []
        return max((line.get("step", 0) for line in lines), default=0)

    slurm.wait(lambda: step() >= 20)
    slurm("scancel", "--signal=USR1", number)
    slurm.wait(lambda: "the same command continues" in log.read_text())
    slurm.wait(lambda: not slurm("squeue", "-h").strip())
    text = log.read_text()
    assert text.count("SIGUSR1: stopping after this iteration") == 1
    stopped = int(re.search(r"saved at iteration (\d+) \(SIGUSR1\)", text)[1])
    assert 20 <= stopped < MANY
    assert f"pretrain: continues at {stopped}" in text
    job = slurm("scontrol", "show", "job", number)
    assert "JobState=COMPLETED" in job
    assert "Restarts=1" in job
    # Each step was logged once, before the stop or after it.
    (metrics,) = runs.glob("*/metrics.jsonl")
    logged = [line["step"] for line in read_metrics(metrics) if "loss" in line]
    assert logged == list(range(2, MANY + 1, 2))
    assert main(["status", "--runs", str(runs), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["job"]) == ("completed", number)
