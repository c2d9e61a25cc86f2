"""``fmbpo run --only``: a study in parts, each by a command of its own."""

import json

import pytest
from same import assert_same_runs

from fmbpo.cli import main


@pytest.fixture
def study(small_study, tmp_path, monkeypatch):
    """Runs the study of two cells with more words; returns the status."""
    monkeypatch.chdir(small_study.write(tmp_path / "parts"))
    return lambda *more: main([*small_study.commands["study"], *more])


@pytest.fixture
def names(study, small_study, capsys):
    """The names of its runs: the world model, two cells of policies."""
    words = small_study.commands["study"][1:]
    assert main(["check", *words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["checks"]
    details = [row["detail"] for row in rows if row["subject"] == "runs"]
    found = list(dict.fromkeys(name for detail in details for name in detail.split("\n")))
    assert len(found) == 3, details
    return found


def there(folder):
    return {path.name for path in (folder / "runs").iterdir() if (path / "summary.json").exists()}


def test_parts_make_the_whole(study, names, small_study, tmp_path, monkeypatch, capsys):
    model, first, second = names
    folder = tmp_path / "parts"
    assert study("--only", first) == 2
    said = capsys.readouterr().err
    assert "the policies need this world model, which is not complete" in said
    assert f"--only {model}" in said
    assert there(folder) == set()

    assert study("--only", model) == 0
    assert there(folder) == {model}
    (whole,) = (path.parent for path in (folder / "runs").glob("*/plan.json"))
    capsys.readouterr()
    assert study("--only", second, "--json") == 0
    assert list(json.loads(capsys.readouterr().out)) == [second]
    assert there(folder) == {model, second}

    assert study("--only", whole.name) == 2
    assert "the study is not complete; missing: mlp\n" in capsys.readouterr().err
    assert study("--only", first, "--only", whole.name) == 0
    assert (whole / "study.json").is_file()
    at_once = small_study.write(tmp_path / "whole")
    monkeypatch.chdir(at_once)
    assert study() == 0
    assert_same_runs(folder / "runs", at_once / "runs")


def test_an_unknown_name(study, names, tmp_path, capsys):
    assert study("--only", names[1].replace("mlppolicy", "mlpolicy")) == 2
    said = capsys.readouterr().err
    assert "the experiment has no such run with this data, device and settings" in said
    assert f"did you mean '{names[1]}'?" in said
    assert not (tmp_path / "parts" / "runs").exists()


def test_an_experiment_alone(names, small_study, tmp_path, repository, capsys):
    """The same world model, and the policies without a study."""
    model, first, _ = names
    file = repository / "experiments" / "phase8_mlpwm_mlppolicy.toml"
    words = ["run", str(file), *small_study.commands["study"][2:]]
    assert main([*words, "--only", model]) == 0
    assert there(tmp_path / "parts") == {model}
    assert main([*words, "--only", first]) == 0
    assert there(tmp_path / "parts") == {model, first}
    assert main([*words, "--only", first]) == 0
    assert "is complete; nothing to do" in capsys.readouterr().err
