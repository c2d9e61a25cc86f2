"""A new plugin as ``fmbpo plugins new`` writes it: installable, within the contract, and usable."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fmbpo.base.structure import Problems, structure
from fmbpo.cli import main
from fmbpo.plugins import load_plugin

KINDS = ["world_model", "policy"]


@pytest.fixture
def written(tmp_path, monkeypatch, capsys, offer_project):
    """``written(kind, name)``: the project's folder, installed as an editable install would."""
    monkeypatch.chdir(tmp_path)

    def written(kind, name):
        assert main(["plugins", "new", kind, name]) == 0
        return offer_project(tmp_path / name)

    return written


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_tests_of_the_contract_pass_and_its_code_is_clean(kind, written):
    place = written(kind, f"clean_{kind}")
    paths = os.pathsep.join([str(place), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 25
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--isolated", "--line-length=100"]
    ruff += ["--select=E,F,W,B,UP"]
    done = subprocess.run([*ruff, "."], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_trains_beside_those_of_the_repository(
    kind, written, repository, small_store, tiny_policy, tmp_path
):
    name = f"used_{kind}"
    written(kind, name)
    other = "policy_flow" if kind == "world_model" else "wm_flow"
    bases = [f"{repository}/experiments/base/{part}.toml" for part in ("policies", other)]
    lines = [
        f"extends = {bases}", 'kind = "policy"', f"[{kind}]", f'plugin = "{name}"', "[protocol]",
        'kind = "frozen"', 'world_model = "own_pretrain"',
    ]  # fmt: skip
    file = tmp_path / "own.toml"
    file.write_text("\n".join(lines))
    arguments = ["run", str(file), "--scale", "laptop", "--data", str(small_store)]
    for override in tiny_policy:
        arguments += ["-o", override]
    assert main(arguments) == 0


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
