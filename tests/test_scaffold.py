"""New plugins and suites as the commands write them: installable, in the contract, usable."""

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fmbpo.base.structure import Problems, structure
from fmbpo.cli import main
from fmbpo.plugins import load_plugin
from fmbpo.tasks.known import suites_named
from fmbpo.testing import task_contract
from fmbpo.testing.contract import CHECKS, NEEDS_GPU

KINDS = ["world_model", "policy"]
NEW = {kind: ["plugins", "new", kind] for kind in KINDS} | {"tasks": ["tasks", "new"]}
"""The commands by what they write."""
DRAWING = {"pictures_show_the_state", "drawing_changes_nothing"}


@pytest.fixture
def written(tmp_path, monkeypatch, capsys, offer_project):
    """``written(what, name)``: the project's folder, offered as an editable install would."""
    monkeypatch.chdir(tmp_path)

    def written(what, name):
        assert main([*NEW[what], name]) == 0
        return offer_project(tmp_path / name)

    return written


def test_their_own_tests_of_the_contract_pass_and_their_code_is_clean(written, tmp_path):
    places = [written(what, f"clean_{what}") for what in NEW]
    paths = os.pathsep.join([*map(str, places), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    folders = [f"{place.name}/tests" for place in places]
    command = [*pytest_, "--import-mode=importlib", "-rA", *folders]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    passed = re.findall(r"^PASSED .*\[(\w+)-(?:0|clean-tasks-\w+)\]$", done.stdout, re.MULTILINE)
    due = [check for kind in KINDS for check in CHECKS[kind].keys() - NEEDS_GPU]
    due += 2 * list(task_contract.CHECKS.keys() - DRAWING)
    assert Counter(passed) >= Counter(due)
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--isolated", "--line-length=100"]
    ruff += ["--select=E,F,W,B,UP"]
    done = subprocess.run([*ruff, "."], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_its_experiment_runs(kind, written, small_store, tiny_policy, tmp_path, capsys):
    """As written it composes, on the data in the package; made small, it runs to its end."""
    name = f"used_{kind}"
    file = str(written(kind, name) / "experiment.toml")
    assert main(["check", file]) == 0
    said = capsys.readouterr().out
    assert name in said
    arguments = ["run", file, "--scale", "laptop", "--data", str(small_store)]
    for override in tiny_policy:
        arguments += ["-o", override]
    assert main(arguments) == 0
    (summary,) = (tmp_path / "runs").glob(f"{name}__*/summary.json")
    assert json.loads(summary.read_text())[kind]["plugin"] == name


def test_the_commands_that_it_prints_for_tasks_work(written, tiny_policy, tmp_path, capsys):
    """From the project to a film, in the order that is printed; the run made small."""
    written("tasks", "used_tasks")
    printed = [shlex.split(line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert [words[:3] for words in printed] == [
        ["pip", "install", "-e"],
        ["fmbpo", "tasks", "check"],
        ["fmbpo", "data", "collect"],
        ["fmbpo", "run", "used_tasks/experiment.toml"],
        ["fmbpo", "tasks", "render"],
    ]
    pip, check, collect, run, render = printed
    assert Path(pip[-1], "pyproject.toml").is_file()
    assert main([*check[1:], "--check", "seed_determines_the_episode"]) == 0
    assert main([*collect[1:], "--episodes", "8", "--workers", "1"]) == 0
    assert main(["check", *run[2:]]) == 0
    overrides = [o for o in tiny_policy if not o.startswith("grid.tasks")]
    assert main([*run[1:], *(word for override in overrides for word in ("-o", override))]) == 0
    (summary,) = (tmp_path / "runs").glob("used_tasks__*/summary.json")
    assert set(json.loads(summary.read_text())["tasks"]) == {
        "used-tasks-reach",
        "used-tasks-follow",
    }
    assert main([*render[1:], "--steps", "2", "--size", "32x32", "--out", "film.gif"]) == 0
    assert Path("film.gif").stat().st_size > 0


def test_the_tasks_are_as_their_texts_say(written):
    """Rewards fall with the distance; the observation has the way to the goal, which may move."""
    written("tasks", "told_tasks")
    for task in suites_named(["told_tasks"]):
        env = task.make()
        first = env.reset(0)
        obs, reward = env.step(np.zeros(2, np.float32))
        assert reward == pytest.approx(np.exp(-4 * np.sum(np.square(obs[4:6]))), rel=1e-5)
        env.reset(0)
        obs, _ = env.step(np.array([1, -1], np.float32))
        np.testing.assert_allclose(obs[2:4], [0.1, -0.1], rtol=1e-6)
        np.testing.assert_allclose(obs[:2], first[:2] + 0.1 * obs[2:4], rtol=1e-6)
        moved = (obs[:2] + obs[4:6]) - (first[:2] + first[4:6])
        expected = 0.1 * first[6:8] if len(first) > 6 else np.zeros(2)
        np.testing.assert_allclose(moved, expected, atol=1e-3)
        assert (len(first) > 6) == (task.name == "told-tasks-follow")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My-Policy", "cannot be the name of a Python package"),
        ("class", "cannot be the name of a Python package"),
        ("my_", "cannot be the name of a Python package"),
        ("my__own", "cannot be the name of a Python package"),
        ("policy_mlp", "a distribution 'fmbpo-policy-mlp' is already installed"),
        ("json", "is already installed"),
        ("taken", "already exists"),
        ("leads_nowhere", "already exists"),
        ("n" * 300, "File name too long"),
    ],
)
@pytest.mark.parametrize("new", [NEW["policy"], NEW["tasks"]], ids=" ".join)
def test_names_that_cannot_be(new, name, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "leads_nowhere").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    assert main([*new, name]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "  -> " in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("what", "name", "said"),
    [
        ("policy", "mlp", "fmbpo-policy-mlp already provides a policy 'mlp'"),
        ("tasks", "mt30", "fmbpo already provides a suite of tasks 'mt30'"),
    ],
)
def test_names_that_others_provide(what, name, said, tmp_path, capsys):
    assert main([*NEW[what], name, "--out", str(tmp_path)]) == 2
    assert f"{' '.join(NEW[what])} {name}: {said}\n  -> choose another name" in (
        capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "no permission"),
        (errno.ENOENT, "cannot be written"),  # of folders that are none, such as /proc
        (errno.ENOSPC, "the disk is full"),
    ],
)
@pytest.mark.parametrize("step", ["mkdir", "write_text", "rename"])
@pytest.mark.parametrize("new", [NEW["policy"], NEW["tasks"]], ids=" ".join)
def test_a_place_that_cannot_be_written(new, number, said, step, tmp_path, monkeypatch, capsys):
    """The system refuses one step; nothing of those before it stays."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, step, refuse)
    assert main([*new, "mine", "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path / 'mine'}: {said}" in err
    assert "  -> " in err
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_replaced_and_links_are_not_followed(tmp_path, capsys):
    (tmp_path / ".mine.aside").mkdir()
    (tmp_path / ".mine.aside" / "old.py").touch()
    new = ["plugins", "new", "policy"]
    assert main([*new, "mine", "--out", str(tmp_path)]) == 0
    assert not (tmp_path / "mine" / "old.py").exists()
    assert not (tmp_path / ".mine.aside").exists()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".yours.aside").symlink_to(tmp_path / "elsewhere")
    assert main([*new, "yours", "--out", str(tmp_path)]) == 2
    assert ".yours.aside" in capsys.readouterr().err
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not (tmp_path / "yours").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_widths_are_positive(kind, written):
    name = f"narrow_{kind}"
    written(kind, name)
    for units in ([], [0], [-1], [8, 0]):
        with pytest.raises(Problems) as caught:
            structure({"units": units}, load_plugin(kind, name).Config)
        assert caught.value.problems[0].path == ("units",)
