"""Experiments by name: the file that a person means, and copies to edit."""

import json

import pytest

from fmbpo.cli import main
from fmbpo.config import load_experiment
from fmbpo.config.catalogue import FOLDER, copy, entries, find
from fmbpo.config.study_file import load_study
from fmbpo.errors import UserError

NAME, ALIAS = "phase8_flowwm_mlppolicy", "pwm_48M_mt_flowwm"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_and_an_older_name_lead_to_the_file(repository):
    assert repository / "experiments" == FOLDER
    assert find(NAME) == find(ALIAS) == FOLDER / f"{NAME}.toml"
    assert load_experiment(NAME, scale="laptop").name == NAME
    assert len(load_study("phase8", scale="laptop").cells) == 4


def test_the_list_has_every_file_and_nothing_that_only_others_extend():
    assert [entry.name for entry in entries()] == sorted(p.stem for p in FOLDER.glob("*.toml"))
    assert all(entry.description for entry in entries())


def test_a_path_means_the_file_there(elsewhere):
    """As a file of this very name does, whatever its ending; a folder of the name does not."""
    for name in ("mine.toml", "phase8", "below/phase8.toml"):
        (elsewhere / name).parent.mkdir(exist_ok=True)
        (elsewhere / name).write_text("")
        assert str(find(name)) == name
    (elsewhere / "phase7").mkdir()
    assert find("phase7") == FOLDER / "phase7.toml"


def test_an_alias_beside_a_missing_file_still_counts(elsewhere):
    (elsewhere / "new.toml").write_text('aliases = ["old"]')
    (elsewhere / "broken.toml").write_text("=")
    assert str(find("old.toml")) == "new.toml"
    assert str(find("nothing.toml")) == "nothing.toml"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("phase9", "no experiment of this name: 'phase9'\n  -> did you mean 'phase8'?"),
        ("pwm_48M_mt_flowm", "did you mean 'pwm_48M_mt_flowwm'?"),
        ("", "is not a path\n  -> name a file or a folder"),
        ("x" * 300, "no such path, and no experiment of this name: 'xxx"),
        ("experiments/phase8.toml", "give the name alone, phase8: this experiment comes with"),
        (f"{ALIAS}.toml", f"give the name alone, {ALIAS}"),
        ("taken", "a file here has this name\n  -> give taken.toml for the file here, or /"),
        ("mine", "a file here has this name\n  -> give mine.toml for the file here\n"),
    ],
)
def test_a_name_that_means_nothing_or_two_things(named, said, elsewhere, capsys):
    if named == "taken":
        named, said = NAME, said.replace("taken", NAME)
    for mine in ("mine", NAME):
        (elsewhere / f"{mine}.toml").write_text("")
    for command in ("check", "run"):
        assert main([command, named]) == 2
        error = capsys.readouterr().err
        assert said in error
    assert not (elsewhere / "runs").exists()


def test_a_copy_keeps_what_is_there(elsewhere, capsys):
    assert main(["experiments", "copy", ALIAS]) == 0
    assert capsys.readouterr().out == f"experiments/{NAME}.toml\n"
    file = elsewhere / "experiments" / f"{NAME}.toml"
    assert load_experiment(file, scale="laptop").name == NAME
    before = {p: p.stat().st_mtime_ns for p in file.parent.rglob("*.toml")}
    assert len(before) == 6
    assert copy("phase8_flowwm_flowpolicy", file.parent).exists()  # shares the base
    assert before == {p: p.stat().st_mtime_ns for p in before}
    file.write_text("mine")
    with pytest.raises(UserError, match=f"other files are there: .*{NAME}.toml\n  -> move them"):
        copy("phase8", file.parent)
    assert file.read_text() == "mine"
    assert not (file.parent / "phase8.toml").exists()


@pytest.mark.parametrize("name", ["../pyproject", "base/policies", "phase9", ""])
def test_only_what_the_list_has_is_copied(name, elsewhere, capsys):
    assert main(["experiments", "copy", name]) == 2
    assert "no experiment of this name" in capsys.readouterr().err
    assert list(elsewhere.iterdir()) == []


def test_a_copy_that_cannot_be_written(elsewhere, capsys):
    (elsewhere / "experiments").write_text("a file")
    assert main(["experiments", "copy", NAME]) == 2
    assert "there is a file in place of a folder" in capsys.readouterr().err


def test_the_list_as_json(capsys):
    assert main(["experiments", "--json"]) == 0
    (one,) = [entry for entry in json.loads(capsys.readouterr().out) if entry["aliases"] == [ALIAS]]
    assert (one["name"], one["kind"], one["phase"]) == (NAME, "policy", "8")
