"""``import fmbpo`` as a library: cheap to import, documented, usable in a notebook and a thread."""

import pickle
import pkgutil
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fmbpo
from fmbpo.base.lock import Taken
from fmbpo.cli import main
from fmbpo.config import load_experiment
from fmbpo.tasks.mt30 import SUITE

NAME = "phase8_mlpwm_mlppolicy"


def in_a_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.fixture(scope="module")
def cells(repository):
    text = (repository / "examples/library.py").read_text(encoding="utf-8")
    return [cell.strip() for cell in re.findall(r"^# %%\n((?:(?!# %%).*\n)*)", text, re.MULTILINE)]


@pytest.fixture(scope="module")
def notebook(cells, tiny_policy, tmp_path_factory):
    """The example's names after its last cell; a thread ran it, on tiny networks."""

    def tiny(name, *, overrides, **options):
        return load_experiment(name, overrides=[*overrides, *tiny_policy], **options)

    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("notebook"))
        patch.setattr(fmbpo, "load_experiment", tiny)
        for cell in cells:
            in_a_thread(lambda cell=cell: exec(cell, names))
        names["folder"] = names["result"].folder.absolute()
    return names


def test_the_import_is_light():
    heavy = "numpy", "torch", "attrs", "rich", "fmbpo.library"
    code = f"import sys, fmbpo; dir(fmbpo); print([n for n in {heavy} if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_every_name_is_there_and_told(repository):
    page = (repository / "docs/library.md").read_text(encoding="utf-8")
    for name in fmbpo.__all__:
        assert name in dir(fmbpo)
        assert getattr(fmbpo, name).__doc__
        assert f"`{name}`" in page
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = fmbpo.runn


def test_the_names_keep_their_meaning_once_everything_is_imported():
    """A submodule of the same name would take a name's place."""
    modules = {module.name for module in pkgutil.iter_modules(fmbpo.__path__)}
    assert modules.isdisjoint(fmbpo.__all__)
    assert "library" in modules


def test_the_example_runs_in_a_thread(notebook):
    assert notebook["over"]
    assert len(notebook["rewards"]) == notebook["store"].episode_ends[0]
    assert len(notebook["comparison"].sections) == 1
    assert (notebook["folder"].parents[1] / "report/report.html").is_file()
    assert notebook["checked"].known


def test_the_page_shows_cells_of_the_example(repository, cells):
    page = (repository / "docs/library.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```python\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    assert len(shown) == 5
    assert set(shown) <= set(cells)


def test_a_policy_acts_on_one_observation_or_many(notebook):
    policy = notebook["policy"]
    obs = np.random.default_rng(0).normal(size=(2, 3, policy.task.obs_dim))
    actions = policy.act(obs)
    assert (actions.shape, actions.dtype) == ((2, 3, policy.task.action_dim), np.float32)
    np.testing.assert_allclose(policy.act(obs[1, 2]), actions[1, 2], rtol=1e-5)
    padded = np.zeros((6, SUITE.obs_width), np.float32)
    padded[:, : policy.task.obs_dim] = obs.reshape(6, -1)
    np.testing.assert_array_equal(policy.act(padded)[:, :1], actions.reshape(6, 1))
    for wrong in (obs[..., :-1], 1.0, np.zeros(0)):
        with pytest.raises(fmbpo.UserError, match="an observation has 3 numbers"):
            policy.act(wrong)


def test_the_commands_work_in_a_thread(notebook, tiny_policy, capsys):
    """On the run that the library made, which is theirs too."""
    overrides = ['data.tasks=["pendulum-spin"]', "grid.seeds=[1]", "pretrain.iterations=500"]
    overrides += ["policy_learning.iterations=200", *tiny_policy]
    words = ["run", NAME, "--scale", "laptop", "--runs", str(notebook["folder"].parent)]
    words += ["--time-limit", "1h", *(word for o in overrides for word in ("-o", o))]
    assert in_a_thread(lambda: main(words)) == 0
    assert "is complete; nothing to do" in capsys.readouterr().err


def test_what_is_no_experiment_or_no_seed_is_refused(notebook):
    for work in (fmbpo.run, fmbpo.check):
        with pytest.raises(fmbpo.UserError, match=f"'{NAME}': this is not an experiment\n  -> "):
            work(NAME)
    text = fmbpo.load_policy(str(notebook["folder"]), "pendulum-spin", "1")
    zeros = np.zeros(text.task.obs_dim)
    np.testing.assert_array_equal(text.act(zeros), notebook["policy"].act(zeros))


def test_what_people_pass_to_functions(notebook, small_store):
    folder = notebook["folder"]
    e = fmbpo.load_experiment(
        NAME, scale="laptop", data=small_store, overrides="policy_learning.iterations=7"
    )
    assert (e.data.path, e.policy_learning.iterations) == (str(small_store), 7)
    for work in (
        lambda: fmbpo.run(e, None),
        lambda: fmbpo.check(e, None),
        lambda: fmbpo.open_data(None),
        lambda: fmbpo.report([folder], None),
        lambda: fmbpo.load_policy(None, "pendulum-spin", 1),
    ):
        with pytest.raises(fmbpo.UserError, match="None is not a path"):
            work()
    assert notebook["policy"].act(np.zeros((0, 3))).shape == (0, 1)


def test_exceptions_reach_other_processes():
    mistake = fmbpo.UserError("what", where="where", remedy="remedy")
    for error in (mistake, fmbpo.Interrupted("where", "why"), Taken(Path("a"), "process 1")):
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.__dict__) == (str(error), error.__dict__)


def test_a_caller_without_streams(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["status", "--runs", str(tmp_path)]) == 0
    assert main(["status", "--runs", str(tmp_path / "absent")]) == 2


def test_a_thread_is_asked_to_stop_by_its_time_limit_and_by_others():
    def work():
        before = signal.getsignal(signal.SIGINT)
        with fmbpo.Stop(time.monotonic() + 60).listening() as stop:
            assert signal.getsignal(signal.SIGINT) is before
            stop.took("iteration", 1.0)
            assert not stop.requested
            stop.took("iteration", 50.0)  # longer than what is left
            with pytest.raises(fmbpo.Interrupted) as caught:
                stop.check("here")
            return caught.value.why

    assert in_a_thread(work) == "time limit"
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_run_is_stopped_from_another_thread(tiny_policy, small_store, tmp_path):
    experiment = fmbpo.load_experiment(NAME, scale="laptop", data=str(small_store),
                                       overrides=tiny_policy)  # fmt: skip
    stop = fmbpo.Stop()
    begun = threading.Event()

    def say(line):
        if "pretraining:" in line:
            stop.requested = True
            begun.set()

    with pytest.raises(fmbpo.Interrupted):
        in_a_thread(lambda: fmbpo.run(experiment, tmp_path, say=say, stop=stop))
    assert begun.is_set()
    (note,) = tmp_path.glob("*/stopped.json")
    assert "asked to stop" in note.read_text()
