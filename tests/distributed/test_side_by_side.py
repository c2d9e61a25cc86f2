"""World models whose batches are too small to be shared: each process trains one of its own."""

import json
import os
import signal
import time
from threading import Timer

import pytest
from members import command, said, signalled
from same import assert_same_runs

from fmbpo.config import load_experiment
from fmbpo.errors import UserError
from fmbpo.running.run import Runner
from fmbpo.running.session import Session
from fmbpo.running.stop import Stop
from fmbpo.runs.outcome import Interrupted
from fmbpo.runs.status import scan
from fmbpo.training import pretraining
from fmbpo.training.pretraining import Pretraining


@pytest.fixture(autouse=True)
def not_shared(monkeypatch):
    """Members are forked and inherit this."""
    monkeypatch.setattr(pretraining, "SMALLEST", 10**9)


@pytest.fixture(scope="module")
def words(repository, small_store, tiny):
    file = repository / "experiments" / "phase8_pretrain_mlpwm.toml"
    options = [x for o in (*tiny, "grid.seeds=[1,2,3]") for x in ("-o", o)]
    return ["run", str(file), "--scale", "laptop", "--data", str(small_store), *options]


@pytest.fixture(scope="module")
def alone(words, tmp_path_factory):
    """The runs of one process."""
    folder = tmp_path_factory.mktemp("alone")
    assert command(1, folder, words).wait() == [0]
    return folder / "runs"


def test_equal_to_those_of_one_process(words, alone, tmp_path):
    """Two world models side by side, and then the third; only the leader speaks."""
    assert command(2, tmp_path, words).wait() == [0, 0], said(tmp_path)
    assert "pretraining: world models 1, 2 side by side, one in each process" in said(tmp_path)
    assert "pretrain  6/6" in said(tmp_path)
    assert said(tmp_path, 1) == ""
    assert_same_runs(tmp_path / "runs", alone)


def test_all_save_when_the_leader_is_asked_to_stop(words, alone, tmp_path, monkeypatch):
    """The follower trains on while the leader halts, and saves when it is told; both continue."""
    step = Pretraining.step

    def waits(self, iteration):
        if os.environ["RANK"] == "1" and iteration == 4:
            while not (tmp_path / "told").exists():
                time.sleep(0.01)
        return step(self, iteration)

    def told(group, name, *arguments):
        order(group, name, *arguments)
        if name == "stop":
            (tmp_path / "told").touch()

    order = pretraining.Group.order
    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, "step", waits)
        patch.setattr(pretraining.Group, "order", told)
        members = command(2, tmp_path, words, halt="pretrain  2/6")
        signalled(members, 0, signal.SIGTERM, tmp_path, "pretrain  2/6")
        assert members.wait() == [75, 0]
    states = {entry.seed: (entry.state, entry.reason) for entry in scan(tmp_path / "runs")}
    assert states.keys() == {1, 2}
    for state, reason in states.values():
        assert state == "stopped"
        assert reason.startswith("SIGTERM")
    assert command(2, tmp_path, words).wait() == [0, 0], said(tmp_path)
    assert_same_runs(tmp_path / "runs", alone)


def test_places_do_not_depend_on_what_is_complete(words, alone, tmp_path):
    """The second world model has its share of the threads, though the first one is complete; its
    record has the threads of all."""
    one, two = (next(alone.glob(f"*__mlp__{seed}__*")).name for seed in (1, 2))
    more = [*words, "-o", "system.threads=2"]
    assert command(1, tmp_path, [*more, "--only", one]).wait() == [0]
    assert command(2, tmp_path, more).wait() == [0, 0], said(tmp_path)
    assert "pretraining: world models 2 side by side" in said(tmp_path)
    config = json.loads((tmp_path / "runs" / two / "config.json").read_text())
    assert config["system"]["threads"] == 2


def test_a_process_that_waits_for_another_command_can_be_stopped(words, tmp_path, monkeypatch):
    """Its stop is set by a thread, not by a signal."""
    monkeypatch.setattr("fmbpo.running.run.worker", lambda folder: "another process")
    e = load_experiment(words[1], scale="laptop", overrides=words[7::2], data=words[5])
    runner, stop = Runner(e, Session(root=tmp_path)), Stop()
    Timer(0.2, lambda: setattr(stop, "requested", True)).start()
    with pytest.raises(Interrupted):
        runner._wait(tmp_path, stop)


def test_a_follower_that_fails(words, tmp_path, monkeypatch):
    """Its message is the run's; the leader's world model is complete."""
    step = Pretraining.step

    def fails(self, iteration):
        if os.environ.get("RANK") == "1":
            raise UserError("the disk is full", where="/scratch", remedy="make room")
        return step(self, iteration)

    monkeypatch.setattr(Pretraining, "step", fails)
    assert command(2, tmp_path, words).wait() == [2, 0]
    assert "error: /scratch: the disk is full" in said(tmp_path)
    assert "Traceback" not in said(tmp_path) + said(tmp_path, 1)
    assert {entry.seed: entry.state for entry in scan(tmp_path / "runs")} == {
        1: "completed",
        2: "failed",
    }


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_costs_no_more_than_its_last_iterations(rank, words, alone, tmp_path):
    members = command(2, tmp_path, words, halt="pretrain  2/6")
    signalled(members, rank, signal.SIGKILL, tmp_path, "pretrain  2/6")
    assert members.wait()[rank] == -signal.SIGKILL
    assert command(2, tmp_path, words).wait() == [0, 0], said(tmp_path)
    assert_same_runs(tmp_path / "runs", alone)
