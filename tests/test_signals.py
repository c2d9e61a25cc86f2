"""Requests to stop: who asked decides the exit status, and how early a time limit asks."""

import argparse
import fcntl
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
import time

import pytest

from fmbpo.base.worker import SIGNALS
from fmbpo.cli import main
from fmbpo.cli.arguments import duration
from fmbpo.errors import UserError
from fmbpo.measure.evaluation import Evaluator
from fmbpo.reporting import run_pictures
from fmbpo.running.stop import Stop
from fmbpo.runs.outcome import Interrupted
from fmbpo.runs.status import scan
from fmbpo.training.pretraining import Pretraining

PRETRAIN, POLICY, STUDY = (
    "phase8_pretrain_mlpwm", "phase8_mlpwm_mlppolicy", "demo_reward_loss_finetune",
)  # fmt: skip


def kick(number=signal.SIGUSR1):
    os.kill(os.getpid(), number)


@pytest.fixture
def run(repository, small_store, tiny_policy, tmp_path, monkeypatch, capsys):
    """``run(file, *words)``: exit status, stderr, the runs' states by experiment."""
    monkeypatch.chdir(tmp_path)

    def run(file, *words):
        arguments = ["run", str(repository / "experiments" / f"{file}.toml"), "--scale", "laptop"]
        arguments += ["--data", str(small_store), *words]
        tiny = [*tiny_policy, "grid.policies_per_model=1"] if file != PRETRAIN else tiny_policy[:13]
        for override in tiny:
            arguments += ["-o", override]
        capsys.readouterr()
        status = main(arguments)
        states = {e.experiment: (e.state, e.reason) for e in scan(tmp_path / "runs")}
        return status, capsys.readouterr().err, states

    return run


def at_iteration(monkeypatch, wanted, act):
    """``act()`` while that iteration of pretraining runs."""
    step = Pretraining.step

    def stepped(self, iteration):
        if iteration == wanted:
            act()
        return step(self, iteration)

    monkeypatch.setattr(Pretraining, "step", stepped)


@pytest.mark.parametrize(
    ("number", "why", "status"),
    [
        (signal.SIGINT, "SIGINT", 130),
        (signal.SIGTERM, "SIGTERM", 75),
        (signal.SIGUSR1, "SIGUSR1", 75),
        (signal.SIGUSR2, "SIGUSR2", 75),
        (signal.SIGHUP, "SIGHUP", 75),
        (signal.SIGALRM, "time limit", 75),
    ],
)
def test_who_asks_decides_the_status(number, why, status, run, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        at_iteration(patch, 3, lambda: kick(number))
        found, said, states = run(PRETRAIN, "--time-limit", "3:00:00", "--runs", "my runs/../runs")
    assert found == status
    assert f"interrupted: pretrain: saved at iteration 3 ({why}); the same command" in said
    assert states == {PRETRAIN: ("stopped", f"{why} (pretrain: saved at iteration 3)")}
    command = shlex.split(said.partition("the same command continues:\n")[2])
    assert command[:2] == ["fmbpo", "run"]
    assert main(command[1:]) == 0  # it continues as it stands
    assert [e.state for e in scan(tmp_path / "runs")] == ["completed"]


def test_a_failure_is_in_the_folder_until_the_run_is_continued(run, monkeypatch):
    def fail():
        raise UserError("the disk is full\nreally", where="/scratch", remedy="make room")

    with monkeypatch.context() as patch:
        at_iteration(patch, 4, fail)
        status, _, states = run(PRETRAIN)
        assert status == 2
        assert states == {PRETRAIN: ("failed", "the disk is full (/scratch)")}
        at_iteration(patch, 3, lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(PRETRAIN)
    _, _, states = run(PRETRAIN, "-o", "pretrain.grad_clip=0")  # refused before it begins
    assert states == {PRETRAIN: ("failed", "ZeroDivisionError: division by zero")}
    status, _, states = run(PRETRAIN)
    assert (status, states) == (0, {PRETRAIN: ("completed", "")})


def test_the_final_evaluation_ends_at_once(run, monkeypatch):
    random = Evaluator.random

    def asked(self, *arguments):
        kick()
        pytest.fail("the evaluation went on")

    monkeypatch.setattr(Evaluator, "random", asked)
    status, said, states = run(POLICY)
    assert status == 75
    assert states[POLICY][0] == "stopped"
    assert states[PRETRAIN] == ("completed", "")
    monkeypatch.setattr(Evaluator, "random", random)
    status, said, states = run(POLICY)
    assert (status, states[POLICY][0]) == (0, "completed")
    assert "policies: starts" not in said  # all training was there


def test_loading_ends_at_once(run, monkeypatch, tmp_path):
    from fmbpo.running.preflight import inputs as found

    def asked(*_):
        kick(signal.SIGTERM)
        pytest.fail("loading went on")

    monkeypatch.setattr(found, "load_dataset", asked)
    (tmp_path / "runs").mkdir()
    status, said, states = run(PRETRAIN)
    assert (status, states) == (75, {})
    assert "the same command continues" in said


def test_a_study_stopped_between_two_cells_shows_the_other_one_queued(run, monkeypatch, tmp_path):
    draw = run_pictures._policies

    def signalled(*arguments):
        kick(signal.SIGUSR1)
        draw(*arguments)

    monkeypatch.setattr(run_pictures, "_policies", signalled)
    status, said, _ = run(STUDY)
    assert status == 75
    assert "interrupted: before cell pwm (SIGUSR1)" in said
    entries = [e for e in scan(tmp_path / "runs") if e.task]
    cells = {(e.experiment, e.cell, e.task, e.seed, e.state) for e in entries}
    assert cells == {
        ("demo_finetuned", "mlp-mlp", task, 1, state)
        for task in ("cartpole-balance", "reacher-easy")
        for state in ("completed", "queued")
    }
    assert {(e.iteration, e.total) for e in entries} == {(6, 6), (0, 6)}
    monkeypatch.setattr(run_pictures, "_policies", draw)
    status, _, states = run(STUDY)
    assert status == 0
    assert {state for state, _ in states.values()} == {"completed"}
    assert len(list((tmp_path / "runs").iterdir())) == 4  # two cells, one world model, the study


def test_everything_that_delays_an_answer_is_measured(run, monkeypatch):
    took, seen = Stop.took, {}

    def watched(self, what, seconds):
        seen.setdefault(what, []).append(seconds)
        took(self, what, seconds)

    monkeypatch.setattr(Stop, "took", watched)
    assert run(POLICY, "-o", "policy_learning.diagnose_every=3")[0] == 0
    # Two stages of six iterations, of which the first is not counted.
    assert {what: len(of) for what, of in seen.items()} == {
        "iteration": 10, "evaluation": 6, "checkpoint": 6, "diagnosis": 2,
    }  # fmt: skip
    assert min(map(min, seen.values())) > 0


def test_a_terminal_that_is_closed(repository, small_store, tiny, tmp_path):
    """A real one: it sends SIGHUP, and takes no more output."""
    terminal, inside = pty.openpty()
    command = ["run", str(repository / "experiments" / f"{PRETRAIN}.toml"), "--scale", "laptop"]
    command += ["--data", str(small_store), *(x for o in tiny for x in ("-o", o))]
    command += ["-o", "pretrain.iterations=1000000", "-o", "pretrain.checkpoint_every=1000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fmbpo", *command],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        cwd=tmp_path,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(inside)
    seen = b""
    while b"loss" not in seen:  # of an iteration
        seen += os.read(terminal, 1000)
    os.close(terminal)
    assert process.wait(60) == 75
    (entry,) = scan(tmp_path / "runs")
    assert entry.state == "stopped"
    assert entry.reason.startswith("SIGHUP (pretrain: saved at iteration")


# -- the request itself ----------------------------------------------------------------------


def test_the_margin():
    now = time.monotonic()
    assert Stop().margin == 0
    assert Stop(now + 1000).margin == pytest.approx(50, abs=0.5)
    stop = Stop(now + 86_400)
    assert stop.margin == 120
    stop.took("iteration", 60.0)
    stop.took("evaluation", 30.0)
    stop.took("iteration", 50.0)
    stop.took("checkpoint", 10.0)
    assert stop.margin == 150
    assert stop.deadline == now + 86_400


def test_the_time_limit_asks_by_itself():
    deadline = time.monotonic() + 3600
    with Stop(deadline).listening() as stop:
        assert 3400 < signal.getitimer(signal.ITIMER_REAL)[0] <= 3480
        stop.took("iteration", 1000.0)
        assert 2000 < signal.getitimer(signal.ITIMER_REAL)[0] <= 2100
        assert not stop.requested
        stop.took("evaluation", 2000.0)  # the margin is now longer than what is left
        while not stop.requested:
            time.sleep(0.001)
            assert time.monotonic() < deadline
        with pytest.raises(Interrupted) as caught:
            stop.check("here")
        assert (caught.value.where, caught.value.why) == ("here", "time limit")
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("number", "why"), [(signal.SIGALRM, "time limit"), (signal.SIGHUP, "SIGHUP")]
)
def test_a_time_limit_and_a_closed_terminal_are_no_first_signal(number, why):
    """What a scheduler sends when the request has been made already must not lose the saving; nor
    must the second SIGHUP of a terminal, one by the kernel and one by the shell."""
    with Stop(time.monotonic() + 3600).listening() as stop:
        kick(number)
        kick(number)
        kick(signal.SIGTERM)
        kick(number)
        assert (stop.requested, stop.why) == (True, why)
        with pytest.raises(Interrupted, match="at once"):
            kick(signal.SIGTERM)


def test_code_that_turns_a_request_into_its_own_exception():
    """As Python does while a module in C is imported."""

    def imports():
        try:
            kick()
        except Interrupted as request:
            raise ImportError("initialization failed") from request

    with Stop().listening() as stop:
        with pytest.raises(ValueError, match="own"), stop.ends_at_once():
            raise ValueError("own")
        with pytest.raises(Interrupted, match="stopped at once"), stop.ends_at_once():
            imports()


@pytest.mark.parametrize("number", SIGNALS)
def test_an_ignored_signal_stays_ignored(number):
    """Under nohup, or for Ctrl-C of a shell's background job."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Stop().listening() as stop:
            kick(number)
            kick(number)
            assert not stop.requested
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", 5400), ("2h", 7200), ("45s", 45), ("30", 1800), ("30:15", 1815),
        ("3:30:00", 12_600), ("100:00:01", 360_001), ("1-2", 93_600), ("1-02:03", 93_780),
        ("1-02:03:04", 93_784), ("90", 5400), ("90:00", 5400),
    ],
)  # fmt: skip
def test_time_limits(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-5", "1.5h", "2 h", "3:60", "1:2:3:4", "1-2-3", "h", "soon", "٣", "1d"]
)
def test_bad_time_limits(text, capsys):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a time limit: give 90m"):
        duration(text)
    with pytest.raises(SystemExit) as caught:
        main(["run", "x.toml", f"--time-limit={text}"])
    assert caught.value.code == 2
    assert "HH:MM:SS" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["10000000000h", "8785h", "367-0", "527041", "31622401s", "9" * 5000, "9" * 400 + "h"]
)
def test_time_limits_that_no_timer_takes(text, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", "x.toml", f"--time-limit={text}"])
    assert caught.value.code == 2
    assert "is more than 366 days: give a shorter time" in capsys.readouterr().err
    assert duration("8784h") == duration("366-0") == 366 * 86_400


def test_a_collection_keeps_its_episodes_and_says_how_to_continue(tmp_path, monkeypatch, capsys):
    from fmbpo.data.collecting import collector as module

    out, episode, done = tmp_path / "own.zarr", module.collect_episode, []

    def asked(*arguments, **options):
        if len(done) == 1:
            kick()
            pytest.fail("the collection went on")
        done.append(arguments)
        return episode(*arguments[:4], steps=5)

    command = ["data", "collect", "--out", str(out), "--tasks", "reacher-easy", "--episodes", "2"]
    command += ["--recipe", "random", "--workers", "1"]
    monkeypatch.setattr(module, "collect_episode", asked)
    assert main(command) == 75
    assert f"\n  fmbpo {shlex.join(command)}\n" in capsys.readouterr().err
    assert len(list(tmp_path.glob("own.zarr.parts/*.npz"))) == 1
    again = []

    def counted(*arguments):
        again.append(arguments)
        return episode(*arguments[:4], steps=5)

    monkeypatch.setattr(module, "collect_episode", counted)
    assert main(command) == 0
    assert len(again) == 1  # the other one was kept
