"""What the folders of many runs say, in every state, damaged, half-made, and vanishing."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import attrs
import pytest

from fmbpo.base import structure
from fmbpo.base.files import write_json
from fmbpo.base.lock import Taken
from fmbpo.errors import UserError
from fmbpo.runs import heartbeat as heartbeat_module
from fmbpo.runs import status
from fmbpo.runs.folder import RunFolder, run_name, worker
from fmbpo.runs.heartbeat import MISSED, STALLED, read_heartbeat, scheduler_job
from fmbpo.runs.outcome import Interrupted
from fmbpo.runs.plan import PlannedRun, read_plan, write_plan
from fmbpo.runs.status import scan
from fmbpo.runs.summary import Part, SeedResult, Summary, TaskResult, WorldModelPart, versions

NAMES = ("one", "two")
PART = Part("mlp", "0.1.0", {"encoder": 1000}, 1)
MODEL = WorldModelPart("mlp", "0.1.0", {"encoder": 1000}, 1)


def summary(tasks=("walker-stand",), seeds=(1, 2)):
    """A policy run's; of pretraining without tasks."""
    results = {t: TaskResult({str(s): SeedResult([100.0 * s]) for s in seeds},
                             random_return_mean=0.0) for t in tasks}  # fmt: skip
    return Summary(
        "e", "laptop", "frozen" if tasks else None, "corrected", MODEL, PART if tasks else None,
        results, {}, 1.0, {"pretraining": 5.0, "policy_learning": 70.0} if tasks else 9.0,
        versions(), [], None,
    ).to_json()  # fmt: skip


def config(experiment, phase="8", tasks=("walker-stand",), seeds=(1, 2)):
    grid, learning = {"tasks": list(tasks), "seeds": list(seeds)}, {"iterations": 700}
    return {"name": experiment, "phase": phase, "grid": grid, "policy_learning": learning}


def create(root, experiment, number=0, **changes):
    """A run's folder, locked by this process."""
    name = run_name(experiment, "mlp-flow", [1, 2], f"{number:010x}")
    return RunFolder.create_or_resume(root, name, config(experiment, **changes), {})


def work(run, iteration=300, error=None):
    """An attempt on the run, which it leaves as the error says."""
    cells = {"policies": ["walker-stand/1", "walker-stand/2"]}
    with suppress(type(error) if error else ()), run, run.at_work("Abacus, 2 cores", cells):
        run.beat("policies", iteration, 700, 12.5)
        if error is not None:
            raise error


def kill(run, **changes):
    """As SIGKILL leaves it: no lock, no word, a heartbeat with another time or host perhaps."""
    work(run)
    path = run.path / "heartbeat.json"
    beat = json.loads(path.read_text())
    write_json(path, {**beat, "ended": False, **changes})


def rows(root, now=None):
    return {Path(e.folder).name.split("__")[0]: e for e in scan(root, now)}


def test_every_state(tmp_path):
    now = time.time()
    complete = create(tmp_path, "a_complete")
    complete.write_summary(summary())
    work(complete, 700)
    work(create(tmp_path, "b_failed"), error=UserError("no\nmore", where="here", remedy="mend"))
    work(create(tmp_path, "c_crashed"), error=ZeroDivisionError("division by zero"))
    work(create(tmp_path, "d_stopped"), error=Interrupted("policies: saved at 300", "SIGUSR1"))
    work(create(tmp_path, "e_ctrl_c"), error=KeyboardInterrupt())
    kill(create(tmp_path, "f_killed"), time=now - 20)
    kill(create(tmp_path, "g_elsewhere"), time=now - 20, host="far")
    kill(create(tmp_path, "h_gone_elsewhere"), time=now - MISSED - 1, host="far", job="7_3")
    kill(create(tmp_path, "i_hung_elsewhere"), progress=now - STALLED - 1, host="far")
    create(tmp_path, "j_never_began").close()
    with create(tmp_path, "k_running") as held, held.at_work("x", {"policies": []}):
        held.beat("policies", 300, 700, 12.5)
        found = rows(tmp_path, now)
        later = rows(tmp_path, now + STALLED + 60)
    states = {name: (e.state, e.reason) for name, e in found.items()}
    pid, host = os.getpid(), os.uname().nodename
    assert states == {
        "a_complete": ("completed", ""),
        "b_failed": ("failed", "no (here)"),
        "c_crashed": ("failed", "ZeroDivisionError: division by zero"),
        "d_stopped": ("stopped", "SIGUSR1 (policies: saved at 300)"),
        "e_ctrl_c": ("stopped", "KeyboardInterrupt"),
        "f_killed": ("stale", f"no heartbeat for 0:00:20: process {pid} on {host}"),
        "g_elsewhere": ("running", ""),
        "h_gone_elsewhere": ("stale", f"no heartbeat for 0:05:01: process {pid} on far, job 7_3"),
        "i_hung_elsewhere": ("stale", f"no progress for 0:30:01: process {pid} on far"),
        "j_never_began": ("stale", "ended before its first heartbeat"),
        "k_running": ("running", ""),
    }
    assert later["k_running"].state == "stale"
    assert later["k_running"].reason.startswith("no progress for 0:")
    assert later["g_elsewhere"].state == "stale"
    one = found["d_stopped"]
    assert (one.phase, one.experiment, one.cell, one.task) == (
        "8", "d_stopped", "mlp-flow", "walker-stand"
    )  # fmt: skip
    assert (one.iteration, one.total, one.runtime, one.hardware) == (
        300,
        700,
        12.5,
        "Abacus, 2 cores",
    )
    assert (one.beat, one.final_return) == (None, None)
    returns = [(e.seed, e.final_return, e.iteration, e.runtime) for e in scan(tmp_path)][:2]
    assert returns == [(1, 100.0, 700, 70.0), (2, 200.0, 700, 70.0)]
    assert found["k_running"].beat is not None


def test_clocks_of_two_hosts(tmp_path):
    """Another host's clock may be minutes away; a time that is further in the future is no sign."""
    for ahead, state in ((MISSED - 5, "running"), (MISSED + 60, "stale"), (-MISSED + 5, "running")):
        now, root = time.time(), tmp_path / str(ahead)
        kill(create(root, "far"), time=now + ahead, progress=now + ahead, host="far")
        assert {e.state for e in scan(root, now)} == {state}


def test_continued_runs_are_no_longer_failed_or_stopped(tmp_path):
    for error in (UserError("disk"), Interrupted("x", "SIGTERM")):
        work(create(tmp_path, "again"), error=error)
        assert {e.state for e in scan(tmp_path)} == {"failed" if isinstance(error, Exception) else
                                                     "stopped"}  # fmt: skip
        with create(tmp_path, "again") as run, run.at_work("x", {"policies": []}):
            names = {path.name for path in run.path.iterdir()}
            assert not names & {"failed.json", "stopped.json"}
            assert {e.state for e in scan(tmp_path)} == {"running"}


def test_an_evaluation_that_could_not_be_added_leaves_the_run_complete(tmp_path):
    run = create(tmp_path, "planned")
    run.write_summary(summary())
    work(run, error=UserError("the plan diverged"))
    assert {(e.state, e.reason) for e in scan(tmp_path)} == {("completed", "the plan diverged")}


def test_groups_of_cells_one_after_another(tmp_path):
    stages = {f"policies/{i}": [f"walker-stand/{i + 1}"] for i in range(3)}
    with (
        create(tmp_path, "groups", seeds=(1, 2, 3)) as run,
        run.at_work("x", stages),
    ):
        run.beat("policies/0", 700, 700, 20.0)
        run.beat("policies/1", 300, 700, 12.5)
        run._pulse._write()
        found = scan(tmp_path)
    assert [(e.seed, e.iteration, e.runtime) for e in found] == [
        (1, 700, 32.5), (2, 300, 32.5), (3, 0, 32.5),
    ]  # fmt: skip


def test_pretraining_has_one_row(tmp_path):
    run = RunFolder.create_or_resume(
        tmp_path, "pre__mlp__42__ab", {"name": "pre", "pretrain": {"iterations": 60}}, {}
    )
    with run, run.at_work("x", {"pretrain": []}):
        run.beat("pretrain", 20, 60, 3.0)
    (row,) = scan(tmp_path)
    assert (row.task, row.seed, row.iteration, row.total, row.runtime) == ("", 42, 20, 60, 3.0)
    write_json(run.path / "summary.json", summary(()))
    (row,) = scan(tmp_path)
    assert (row.state, row.iteration, row.runtime, row.final_return) == ("completed", 60, 9.0, None)


def planned(name, of="x", tasks=("a", "b"), seeds=(1,)):
    return PlannedRun(run=name, of=of, phase="9", tasks=tasks, seeds=seeds, iterations=5)


def test_runs_that_a_study_has_not_begun_are_queued(tmp_path):
    begun = create(tmp_path, "begun", tasks=())
    begun.close()
    names = [begun.path.name, "later__mlp-mlp__1__00ff"]
    folder = tmp_path / "study__study__1__00"
    folder.mkdir()
    write_plan(folder, "study", [planned(n) for n in names])
    found = [(e.experiment, e.task, e.seed, e.state, e.iteration, e.total) for e in scan(tmp_path)]
    assert found == [
        ("begun", "a", 1, "stale", None, 700), ("begun", "a", 2, "stale", None, 700),
        ("begun", "b", 1, "stale", None, 700), ("begun", "b", 2, "stale", None, 700),
        ("later", "a", 1, "queued", 0, 5), ("later", "b", 1, "queued", 0, 5),
    ]  # fmt: skip
    assert read_plan(folder) == [
        attrs.evolve(planned(n), tasks=["a", "b"], seeds=[1]) for n in names
    ]


def test_order(tmp_path):
    for number, (name, phase) in enumerate([("b", "10"), ("a", "10"), ("c", "8"), ("d", "x")]):
        create(tmp_path, name, number, phase=phase, tasks=("z", "y"), seeds=(10, 9)).close()
    found = [(e.phase, e.experiment, e.task, e.seed) for e in scan(tmp_path)]
    both = [("y", 9), ("y", 10), ("z", 9), ("z", 10)]
    order = [("x", "d"), ("8", "c"), ("10", "a"), ("10", "b")]
    assert found == [(p, n, *rest) for p, n in order for rest in both]


BROKEN = [
    "", "{", "[]", "3", "null", "\xff", "[" * 100_000,
    '{"name": 3, "grid": [], "phase": {}}', '{"time": "now", "stages": 3}',
    '{"runs": [3, {"run": 4}], "cells": {}}',
    '{"grid": {"tasks": 3, "seeds": ["a"]}, "policy_learning": []}',
]  # fmt: skip
FILES = [
    "config.json",
    "heartbeat.json",
    "failed.json",
    "stopped.json",
    "summary.json",
    "plan.json",
]


@pytest.mark.parametrize("file", FILES)
def test_damaged_files_are_no_obstacle(file, tmp_path):
    """Each file of twenty-two folders damaged in another way: a row each, and the others' rows."""
    for number, text in enumerate(BROKEN):
        for state in ("killed", "stopped"):
            run = create(tmp_path, f"{state}{number}", number)
            work(run, error=Interrupted("x", "y") if state == "stopped" else None)
            (run.path / file).write_bytes(text.encode("latin-1"))
            if state == "killed":
                shutil.rmtree(run.path / "checkpoints")
    work(create(tmp_path, "whole"), error=Interrupted("x", "y"))
    found = rows(tmp_path)
    assert len(found) == 2 * len(BROKEN) + 1
    assert found["whole"].state == "stopped"
    if file == "summary.json":
        assert {e.state for e in found.values()} == {"failed", "stopped"}
        assert "summary.json" in found["killed1"].reason
    if file == "failed.json":
        assert found["stopped1"].reason == "the reason cannot be read"


def test_folders_of_other_things(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "s__study__1__00").mkdir()
    (tmp_path / "s__study__1__00" / "study.json").write_text("{}")
    (tmp_path / "half__mlp__1-2__00").mkdir()
    assert [(e.experiment, e.seed, e.state) for e in scan(tmp_path)] == [
        ("half", 1, "stale"), ("half", 2, "stale"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="cannot be listed"):
        scan(tmp_path / "nowhere")


def test_a_folder_that_vanishes_while_it_is_read(tmp_path, monkeypatch):
    """Deleted before each of the files in turn."""
    for at in range(1, 8):
        for name in NAMES:
            work(create(tmp_path, name), error=UserError("x"))
        calls, read = [], status.read_json

        def vanishing(path, calls=calls, read=read, at=at):
            calls.append(path)
            if len(calls) == at:
                shutil.rmtree(path.parent)
            return read(path)

        for module in (status, structure):
            monkeypatch.setattr(module, "read_json", vanishing)
        left = {e.experiment for e in scan(tmp_path)}
        gone = {name for name in NAMES if not list(tmp_path.glob(f"{name}__*"))}
        assert left == set(NAMES) - gone
        assert len(gone) == 1
        monkeypatch.undo()


# -- several processes -----------------------------------------------------------------------


def contend(root, at, results):
    time.sleep(max(at - time.time(), 0))
    try:
        run = create(root, "one")
        with run, run.at_work("x", {"policies": ["walker-stand/1"]}):
            run.beat("policies", 1, 700, 0.1)
            time.sleep(3)
        results.put(("ran", os.getpid()))
    except Taken as error:
        results.put((str(error), os.getpid()))


def test_many_processes_create_one_run_in_the_same_second(tmp_path):
    context = multiprocessing.get_context("fork")
    results, at = context.Queue(), time.time() + 0.5
    children = [context.Process(target=contend, args=(tmp_path, at, results)) for _ in range(8)]
    for child in children:
        child.start()
    seen = set()
    while any(child.is_alive() for child in children) and results.qsize() < 7:
        if tmp_path.exists():
            seen |= {e.state for e in scan(tmp_path)}
    answers = [results.get(timeout=30) for _ in children]
    for child in children:
        child.join()
    (winner,) = [pid for text, pid in answers if text == "ran"]
    refused = [text for text, _ in answers if text != "ran"]
    assert len(refused) == 7
    assert all(f"in use by process {winner} on " in text for text in refused)
    assert seen <= {"running", "stale"}  # stale: the folder before its lock
    assert not list(tmp_path.rglob("*aside*"))


HANG = """
import sys, time
from pathlib import Path
from fmbpo.runs.folder import RunFolder
run = RunFolder.create_or_resume(Path(sys.argv[1]), sys.argv[2], {}, {})
with run.at_work("x", {"policies": []}):
    run.beat("policies", 3, 7, 1.0)
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_leaves_a_stale_run_which_another_takes_up(tmp_path):
    name = "run__a__1__00"
    command = [sys.executable, "-c", HANG, str(tmp_path), name]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert [e.state for e in scan(tmp_path)] == ["running"]
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    (entry,) = scan(tmp_path)
    assert (tmp_path / name / "run.lock").read_text().startswith(f"process {holder.pid} on ")
    assert entry.state == "stale"
    assert f"process {holder.pid} on " in entry.reason
    with RunFolder.create_or_resume(tmp_path, name, {}, {}) as run, run.at_work("x", {}):
        assert [e.state for e in scan(tmp_path)] == ["running"]
    assert run.heartbeat().pid == os.getpid()


# -- the heartbeat ---------------------------------------------------------------------------


def test_the_thread_beats_while_the_work_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat_module, "EVERY", 0.02)
    with create(tmp_path, "hung") as run, run.at_work("x", {"policies": []}):
        run.beat("policies", 3, 7, 1.0)
        first = wait_for(lambda: run.heartbeat(), lambda b: b.iteration == 3)
        later = wait_for(lambda: run.heartbeat(), lambda b: b.time > first.time + 0.1)
        assert later.progress == first.progress
        run.moved()
        wait_for(lambda: run.heartbeat(), lambda b: b.progress > first.progress)
        child = os.fork()  # a fork takes no thread along, and waits for none
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert not run.heartbeat().ended
    assert run.heartbeat().ended
    assert run.heartbeat().iteration == 3


def wait_for(look, enough):
    deadline = time.monotonic() + 60
    while not enough(found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found


def test_a_pulse_that_cannot_be_written_kills_nobody(tmp_path):
    run = create(tmp_path, "broken")
    (run.path / "heartbeat.json").mkdir()
    with run, run.at_work("x", {}):
        run.beat("policies", 1, 2, 3.0)
    assert read_heartbeat(run.path / "heartbeat.json") is None


def test_a_living_process_on_another_host_is_found_where_locks_do_not_reach(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat_module, "EVERY", 0.4)
    kill(create(tmp_path, "far"), host="far", pid=77)
    create(tmp_path, "far").close()  # it does not beat again: that process is dead
    (path,) = tmp_path.glob("far__*")
    beat, over = json.loads((path / "heartbeat.json").read_text()), threading.Event()

    def pulse():
        while not over.wait(0.05):
            write_json(path / "heartbeat.json", {**beat, "time": time.time()})

    other = threading.Thread(target=pulse)
    other.start()
    try:
        with pytest.raises(Taken, match="in use by process 77 on far"):
            create(tmp_path, "far")
    finally:
        over.set()
        other.join()
    kill(create(tmp_path, "far"), host="far", time=time.time() - MISSED - 5)
    monkeypatch.setattr(heartbeat_module, "EVERY", 1e6)
    create(tmp_path, "far").close()  # too old to wait for


def test_who_works_on_a_run_elsewhere(tmp_path):
    run = create(tmp_path, "far")
    kill(run, host="far", pid=77)
    then = json.loads((run.path / "heartbeat.json").read_text())["time"]
    assert worker(run.path, now=then + 1) == "process 77 on far"
    assert worker(run.path, now=then + MISSED + 1) == ""
    kill(create(tmp_path, "near"), pid=77)
    (near,) = tmp_path.glob("near__*")
    assert worker(near) == ""  # on this host the lock alone says it
    assert worker(tmp_path / "absent") == ""


def test_jobs(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    assert scheduler_job() == ""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert scheduler_job() == "12"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "10")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert scheduler_job() == "10_2"
