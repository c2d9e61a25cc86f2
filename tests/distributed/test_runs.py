"""Whole runs in several processes: kills, signals, other numbers of processes, mistakes."""

import os
import random
import re
import signal
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch
from members import command, said, signalled, wait_until
from same import assert_same_run, assert_same_runs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from fmbpo.cli import main
from fmbpo.distributed.launch import SAVING, Killed, launch
from fmbpo.errors import UserError
from fmbpo.runs.checkpoint import load_checkpoint
from fmbpo.runs.status import scan
from fmbpo.tasks.suite import SimulationError
from fmbpo.tasks.vector import EpisodeRunner

EXPERIMENT = "phase8_mlpwm_flowpolicy"


@pytest.fixture(scope="module")
def command_line(repository, small_store):
    def command_line(name, overrides):
        file = repository / "experiments" / f"{name}.toml"
        options = [x for o in overrides for x in ("-o", o)]
        return ["run", str(file), "--scale", "laptop", "--data", str(small_store), *options]

    return command_line


@pytest.fixture(scope="module")
def words(command_line, tiny_policy):
    return command_line(EXPERIMENT, tiny_policy)


@pytest.fixture(scope="module")
def undisturbed(words, tmp_path_factory):
    """The runs of two processes that were left alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert command(2, folder, words).wait() == [0, 0], said(folder)
    return folder / "runs"


def started(folder, words, size=2, halt=None):
    """New processes; what earlier ones said is gone."""
    for file in (*folder.glob("said-*.txt"), *folder.glob("on")):
        file.unlink()
    return command(size, folder, words, halt)


def test_killed_members(words, undisturbed, tmp_path):
    """Whoever is killed, the other one ends, and the next command continues; the result is that of
    processes that were left alone."""
    for rank, at in ((0, "pretrain  2/6"), (1, "policies  2/6")):
        members = started(tmp_path, words, halt=at)
        signalled(members, rank, signal.SIGKILL, tmp_path, at)
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


def test_a_signal_that_comes_twice(words, tmp_path):
    """SLURM signals the launcher and its processes, and the launcher passes its signal on."""
    at = "pretrain  2/6"
    members = started(tmp_path, words, halt=at)
    wait_until(tmp_path, at)
    os.kill(members.pids[0], signal.SIGTERM)
    time.sleep(0.5)  # of two that wait only one would be delivered
    signalled(members, 0, signal.SIGTERM, tmp_path, at)
    assert members.wait() == [75, 0]
    assert "interrupted: pretrain: saved at iteration" in said(tmp_path)


def test_another_number_of_processes_continues(words, undisturbed, tmp_path, monkeypatch):
    """Two processes train the world model, three begin with the policies, one ends them. The world
    model is the same to the bit, the policies to rounding."""
    members = started(tmp_path, words, halt="policies  0/6")
    signalled(members, 0, signal.SIGTERM, tmp_path, "policies  0/6")
    assert members.wait() == [75, 0]
    members = started(tmp_path, words, 3, halt="policies  2/6")
    signalled(members, 0, signal.SIGTERM, tmp_path, "policies  2/6")
    assert members.wait() == [75, 0, 0]
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0
    found, wanted = (
        {run.name.split("__")[0]: run for run in runs.iterdir()}
        for runs in (tmp_path / "runs", undisturbed)
    )
    model = next(name for name in wanted if "pretrain" in name)
    assert_same_run(found[model], wanted[model])
    a, b = (
        load_checkpoint(runs[EXPERIMENT] / "checkpoints" / "policies", with_state=False).weights
        for runs in (found, wanted)
    )
    assert a.keys() == b.keys()
    for name, weight in b.items():
        assert torch.allclose(a[name], weight, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("rank", [0, 1])
def test_an_evaluation_that_fails(rank, words, tmp_path, monkeypatch):
    """The leader says so, whoever's it is; nothing is lost."""
    run = EpisodeRunner.run

    def fails(self, *arguments, **options):
        if os.environ["RANK"] == str(rank):
            raise SimulationError("the pole is broken")
        return run(self, *arguments, **options)

    monkeypatch.setattr(EpisodeRunner, "run", fails)
    members = started(tmp_path, words)
    assert members.wait() == [2, 0]
    text = said(tmp_path)
    assert "error: evaluation in the simulator: the pole is broken" in text
    assert "Traceback" not in text + said(tmp_path, 1)
    monkeypatch.setattr(EpisodeRunner, "run", run)
    states = {entry.state for entry in scan(tmp_path / "runs")}
    assert states == {"completed", "failed"}


class Launched:
    """A launcher, forked from this process: it imports nothing."""

    def __init__(self, folder, words, *more):
        more = more if "--processes" in more else ("--processes", "2", *more)
        reader, writer = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.chdir(folder)
            os.dup2(writer, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
            os.close(reader)
            os.close(writer)
            status = 1
            try:
                status = main([*words, *more])
            except SystemExit as ended:
                status = ended.code
            except BaseException:
                traceback.print_exc()
            os._exit(status)
        os.close(writer)
        self.stderr = os.fdopen(reader)

    def wait(self):
        """The exit status."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_signal_to_the_launcher(words, tmp_path):
    """All processes survive it until the leader has saved."""
    process, lines = Launched(tmp_path, words, "-o", "pretrain.iterations=1000000"), []
    for line in process.stderr:
        lines.append(line)
        if re.search(r"pretrain +0/", line):
            os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == 75
    text = "".join(lines)
    assert "SIGTERM: stopping after this iteration" in text
    assert f"fmbpo {' '.join(words[:2])}" in text  # the command that continues
    assert text.count("interrupted:") == 1
    assert scan(tmp_path / "runs")[0].state == "stopped"


@pytest.mark.endurance
def test_a_mistake_has_one_message_and_its_status(words, tmp_path):
    process = Launched(tmp_path, words, "-o", "system.device=cuda:7")
    text = process.stderr.read()
    assert process.wait() == 2, text
    assert text.count("error: system.device: ") == 1
    assert "Traceback" not in text


def test_how_the_launcher_launches(monkeypatch):
    """Ten minutes to save; ignored signals stay ignored; afterwards all is as before."""
    before, seen = dict(os.environ), {}

    def launched(config, program, arguments):
        seen.update(config=config, words=arguments[-2:], environment=dict(os.environ))

    monkeypatch.setattr("fmbpo.distributed.launch.launch_agent", launched)
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        launch(["run", "x.toml"], 2)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, usual)
    assert seen["words"] == ["run", "x.toml"]
    assert seen["config"].shutdown_timeout == SAVING
    assert seen["config"].signals_to_handle == "SIGINT,SIGTERM,SIGUSR1,SIGUSR2"
    assert "OMP_NUM_THREADS" in seen["environment"]
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("failures", "status"),
    [
        ({0: (75, 100), 1: (-9, 130)}, 75),  # the launcher killed the follower
        ({0: (2, 100), 1: (-15, 100)}, 2),
        ({0: (2, 100), 1: (-9, 100)}, None),  # the leader noticed it
    ],
)
def test_the_status_is_that_of_the_process_that_failed(failures, status, monkeypatch, tmp_path):
    def fails(*_):
        raise ChildFailedError("fmbpo", {rank: failure(rank, *f) for rank, f in failures.items()})

    def failure(rank, code, when):
        found = ProcessFailure(rank, 1000 + rank, code, str(tmp_path / "none"))
        found.timestamp = when
        return found

    monkeypatch.setattr("fmbpo.distributed.launch.launch_agent", fails)
    with pytest.raises(UserError if status is None else SystemExit) as ended:
        launch(["run"], 2)
    if status is None:
        assert "SIGKILL ended process 1 of 2" in str(ended.value)
    else:
        assert ended.value.code == status


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.endurance)])
def test_a_killed_process_is_started_again(processes, words, command_line, tiny, tmp_path):
    """The leader is killed while it trains; the run ends as if nothing had happened. With one
    process, the world model alone is trained."""
    more = ["--max-restarts", "2", "--processes", str(processes)]
    if processes == 1:
        words = command_line("phase8_pretrain_mlpwm", tiny)
    process = Launched(tmp_path, words, *more)
    lines, kills = [], ["pretrain  2/6", "policies  2/6"][:processes]
    for line in process.stderr:
        lines.append(line)
        if kills and kills[0] in line:
            kills.pop(0)
            os.kill(members_of(process.pid)[0], signal.SIGKILL)
    assert process.wait() == 0, "".join(lines)
    text = "".join(lines)
    assert "SIGKILL ended process 0" in text
    assert text.count("all start again, restart") == processes
    assert "Traceback" not in text
    assert {entry.state for entry in scan(tmp_path / "runs")} == {"completed"}
    if processes == 2:
        left_alone = tmp_path / "left alone"
        left_alone.mkdir()
        process = Launched(left_alone, words, *more)
        assert "start again" not in process.stderr.read()
        assert process.wait() == 0
        assert_same_runs(tmp_path / "runs", left_alone / "runs")


def members_of(launcher):
    """Process ids, the leader's first: the launcher starts them in order."""
    stats = (file.read_text().rpartition(")") for file in Path("/proc").glob("[0-9]*/stat"))
    return sorted(
        int(first.split()[0]) for first, _, rest in stats if rest.split()[1] == str(launcher)
    )


def test_restarts_come_to_an_end(monkeypatch, capsys):
    tried = []

    def killed(*_):
        tried.append(1)
        raise Killed("SIGKILL ended process 1 of 2")

    monkeypatch.setattr("fmbpo.distributed.launch._launched", killed)
    with pytest.raises(Killed, match="process 1"):
        launch(["run"], 2, restarts=3)
    assert len(tried) == 4
    assert capsys.readouterr().err.count("all start again") == 3


@pytest.mark.parametrize("number", ["0", "-1", "two", "1e3", "2000", ""])
def test_numbers_that_are_none(number, words, capsys):
    with pytest.raises(SystemExit):
        main([*words, "--processes", number])
    assert "is not a whole number from 1 to 1024" in capsys.readouterr().err


def test_torchrun_started_another_number(words, monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main([*words, "--processes", "3"]) == 2
    assert "torchrun has started 2 processes, not 3" in capsys.readouterr().err
