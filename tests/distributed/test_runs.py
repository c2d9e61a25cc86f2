"""Whole runs in several processes: kills, signals, other numbers of processes, mistakes."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from members import command
from same import assert_same_runs

from fmbpo.cli import main
from fmbpo.runs.status import scan

EXPERIMENT = "phase8_mlpwm_flowpolicy"


@pytest.fixture(scope="module")
def words(repository, small_store, tiny_policy):
    file = repository / "experiments" / f"{EXPERIMENT}.toml"
    options = [x for o in tiny_policy for x in ("-o", o)]
    return ["run", str(file), "--scale", "laptop", "--data", str(small_store), *options]


@pytest.fixture(scope="module")
def undisturbed(words, tmp_path_factory):
    """The runs of two processes that were left alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert command(2, folder, words).wait() == [0, 0], said(folder)
    return folder / "runs"


def said(folder, rank=0):
    return (folder / f"said-{rank}.txt").read_text()


def wait_until(folder, text):
    deadline = time.monotonic() + 60
    while text not in said(folder):
        assert time.monotonic() < deadline, said(folder)
        time.sleep(0.002)


def started(folder, words):
    """Two processes, once the leader has said something."""
    for file in folder.glob("said-*.txt"):
        file.unlink()
    members = command(2, folder, words)
    while not (folder / "said-0.txt").exists():
        time.sleep(0.002)
    return members


def test_killed_members(words, undisturbed, tmp_path):
    """Whoever is killed, the other one ends, and the next command continues; the result is that of
    processes that were left alone."""
    for rank, at in ((0, "pretrain  2/6"), (1, "policies  2/6")):
        members = started(tmp_path, words)
        wait_until(tmp_path, at)
        os.kill(members.pids[rank], signal.SIGKILL)
        began = time.monotonic()
        statuses = members.wait()
        assert time.monotonic() - began < 30
        assert statuses[rank] == -signal.SIGKILL
        assert statuses[1 - rank] == (2 if rank else 0)  # a follower has nothing to say
        if rank:
            assert "another process of the run's 2 processes ended" in said(tmp_path)
            assert "the same command continues" in said(tmp_path)
        assert "Traceback" not in said(tmp_path) + said(tmp_path, 1)
    assert started(tmp_path, words).wait() == [0, 0], said(tmp_path)
    assert_same_runs(tmp_path / "runs", undisturbed)


@pytest.mark.endurance
def test_thirty_random_kills(words, undisturbed, tmp_path, record_property):
    rng = random.Random(1)
    kills = 0
    while kills < 30:
        members = started(tmp_path, words)
        time.sleep(rng.uniform(0.1, 2.5))
        os.kill(members.pids[rng.randrange(2)], signal.SIGKILL)
        killed = -signal.SIGKILL in members.wait()
        kills += killed
        if not killed:  # it was complete
            assert_same_runs(tmp_path / "runs", undisturbed)
            for path in sorted((tmp_path / "runs").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        assert "Traceback" not in said(tmp_path) + said(tmp_path, 1)
    assert started(tmp_path, words).wait() == [0, 0], said(tmp_path)
    assert_same_runs(tmp_path / "runs", undisturbed)
    record_property("kills", kills)


def test_another_number_of_processes_continues(words, undisturbed, tmp_path, monkeypatch, capsys):
    """Two processes train the world model, three the first policies, one the rest; pretraining is
    the same, and the policies have learned from the same noise."""
    members = started(tmp_path, words)
    wait_until(tmp_path, "policies  0/6")
    os.kill(members.pids[0], signal.SIGTERM)
    assert members.wait() == [75, 0]
    (tmp_path / "said-0.txt").unlink()
    members = command(3, tmp_path, words)
    while not (tmp_path / "said-0.txt").exists() or "policies  2/6" not in said(tmp_path):
        time.sleep(0.002)
    os.kill(members.pids[0], signal.SIGTERM)
    assert members.wait() == [75, 0, 0]
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (run,) = undisturbed.glob(f"{EXPERIMENT}*")
    wanted = json.loads((run / "summary.json").read_text())
    for task, result in wanted["tasks"].items():
        for seed, one in result["seeds"].items():
            returns = found["tasks"][task]["seeds"][seed]["returns"]
            assert returns == pytest.approx(one["returns"], rel=1e-3, abs=1e-3)


def launched(folder, words, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "fmbpo", *words, "--processes", "2", *more],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def test_a_signal_to_the_launcher(words, tmp_path):
    """All processes survive it until the leader has saved."""
    process, lines = launched(tmp_path, words), []
    for line in process.stderr:
        lines.append(line)
        if "pretrain  0/6" in line:
            process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    text = "".join(lines)
    assert "SIGTERM: stopping after this iteration" in text
    assert f"fmbpo {' '.join(words[:2])}" in text  # the command that continues
    assert text.count("interrupted:") == 1
    assert scan(tmp_path / "runs")[0].state == "stopped"


@pytest.mark.endurance
def test_a_mistake_has_one_message_and_its_status(words, tmp_path):
    process = launched(tmp_path, words, "-o", "pretrain.batch=1")
    _, text = process.communicate(timeout=60)
    assert process.returncode == 2, text
    assert text.count("error: pretrain.batch: a batch of 1 cannot be shared among 2") == 1
    assert "Traceback" not in text


@pytest.mark.parametrize("number", ["0", "-1", "two", "1e3", "2000", ""])
def test_numbers_that_are_none(number, words, capsys):
    with pytest.raises(SystemExit):
        main([*words, "--processes", number])
    assert "is not a number from 1 to 1024" in capsys.readouterr().err


def test_torchrun_started_another_number(words, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main([*words, "--processes", "3"]) == 2
    assert "torchrun has started 2 processes, not 3" in capsys.readouterr().err
