"""The script of the jobs, with programs in place of fmbpo and scontrol."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fmbpo.cluster.lines import Lines
from fmbpo.cluster.site import Site

FMBPO = """
echo "$@" >>"$here/said"
trap 'exit 75' USR1 TERM
[ -n "$status" ] && exit "$status"
touch "$here/runs"
while :; do sleep 0.02; done
"""


@pytest.fixture
def start(tmp_path):
    """Starts the second task of array 7 on node n1; ``status``: that of fmbpo, or it waits."""
    programs = {"fake": FMBPO, "scontrol": 'echo scontrol "$@" >>"$here/said"\n'}
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "attempts").mkdir()
    (tmp_path / "list.txt").write_text("one\ntwo\n")
    site = Site(container=str(tmp_path / "fake"))
    lines = Lines(name="x", command=["run", "x.toml"], report=[], site=site, folder=tmp_path,
                  here=tmp_path, cores=1)  # fmt: skip
    lines.script_file.write_text(lines.script)
    job = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURMD_NODENAME": "n1"}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    def start(status=""):
        env = {**os.environ, **job, "PATH": path, "here": str(tmp_path), "status": str(status)}
        words = ["bash", str(lines.script_file), str(tmp_path / "list.txt")]
        return subprocess.Popen(words, env=env, cwd=tmp_path, start_new_session=True)

    return start


def said(folder):
    file = folder / "said"
    return file.read_text().splitlines() if file.exists() else []


def wait_until(there: Path):
    end = time.monotonic() + 60
    while not there.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(("status", "again"), [(0, False), (2, False), (75, True), (138, True)])
def test_the_status_decides_whether_the_job_continues(start, status, again, tmp_path):
    assert start(status).wait() == status
    first, *rest = said(tmp_path)
    assert first == "fmbpo run x.toml --only two"
    assert rest == (["scontrol requeue 7_2"] if again else [])
    begin, end = (tmp_path / "attempts/two.txt").read_text().splitlines()
    assert begin.split()[:3] == ["begin", "n1", "7_2"]
    assert end == f"end {status}"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_warning_to_the_script_reaches_fmbpo(start, number, tmp_path):
    job = start()
    wait_until(tmp_path / "runs")
    job.send_signal(number)
    assert job.wait() == 75
    assert said(tmp_path)[1:] == ["scontrol requeue 7_2"]


def test_after_sigterm_slurm_decides(start, tmp_path):
    """It comes to all processes; a cancelled job must not come back."""
    job = start()
    wait_until(tmp_path / "runs")
    os.killpg(job.pid, signal.SIGTERM)
    assert job.wait() == 75
    assert said(tmp_path)[1:] == []


def test_a_node_that_failed_twice_is_left(start, tmp_path):
    attempts = tmp_path / "attempts/two.txt"
    attempts.write_text("begin n1 7_2 t\nend 75\nbegin n1 7_2 t\nbegin n2 7_2 t\nend 75\n")
    assert start(0).wait() == 0  # once is not twice
    attempts.write_text("begin n1 7_2 t\nbegin n1 7_2 t\n")
    (tmp_path / "said").unlink()
    assert start(0).wait() == 75
    assert said(tmp_path) == ["scontrol requeue 7_2", "scontrol update JobId=7_2 ExcNodeList=n1"]
