"""A new plugin as ``fmbpo plugins new`` writes it: installable, within the contract, and usable."""

import errno
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from fmbpo.base.structure import Problems, structure
from fmbpo.cli import main
from fmbpo.plugins import load_plugin
from fmbpo.testing.contract import CHECKS, NEEDS_GPU

KINDS = ["world_model", "policy"]


@pytest.fixture
def written(tmp_path, monkeypatch, capsys, offer_project):
    """``written(kind, name)``: the project's folder, installed as an editable install would."""
    monkeypatch.chdir(tmp_path)

    def written(kind, name):
        assert main(["plugins", "new", kind, name]) == 0
        return offer_project(tmp_path / name)

    return written


def test_their_own_tests_of_the_contract_pass_and_their_code_is_clean(written, tmp_path):
    places = [written(kind, f"clean_{kind}") for kind in KINDS]
    paths = os.pathsep.join([*map(str, places), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    folders = [f"{place.name}/tests" for place in places]
    command = [*pytest_, "--import-mode=importlib", "-rA", *folders]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    passed = re.findall(r"^PASSED .*\[(\w+)-0\]$", done.stdout, re.MULTILINE)
    due = [check for kind in KINDS for check in CHECKS[kind].keys() - NEEDS_GPU]
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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My-Policy", "cannot be the name of a Python package"),
        ("class", "cannot be the name of a Python package"),
        ("mlp", "already provides a policy 'mlp'"),
        ("policy_mlp", "a distribution 'fmbpo-policy-mlp' is already installed"),
        ("json", "is already installed"),
        ("taken", "already exists"),
        ("leads_nowhere", "already exists"),
        ("n" * 300, "File name too long"),
    ],
)
def test_names_that_cannot_be(name, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "leads_nowhere").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    assert main(["plugins", "new", "policy", name]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "  -> " in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "no permission"),
        (errno.ENOENT, "cannot be written"),  # of folders that are none, such as /proc
        (errno.ENOSPC, "the disk is full"),
    ],
)
@pytest.mark.parametrize("step", ["mkdir", "write_text", "rename"])
def test_a_place_that_cannot_be_written(number, said, step, tmp_path, monkeypatch, capsys):
    """The system refuses one step; nothing of those before it stays."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, step, refuse)
    assert main(["plugins", "new", "policy", "mine", "--out", str(tmp_path)]) == 2
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
