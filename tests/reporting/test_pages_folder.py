"""The report's folder: whole or not at all, and never in the place of something else."""

import errno
import json
import os
import socket
import subprocess
from pathlib import Path

import attrs
import pytest
from synthetic import comparison, imported_section

from fmbpo.errors import UserError
from fmbpo.reporting.pages import write, write_report

FILES = ["report.html", "results.csv", "effects.csv", "seeds.csv"]


@pytest.fixture(scope="module")
def made():
    """A small one: two figures."""
    return attrs.evolve(comparison(), sections=[imported_section()])


def everything(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_equal_comparisons_give_equal_bytes(tmp_path):
    paths = write_report(comparison(), tmp_path / "deep" / "a")
    assert [path.name for path in paths[:4]] == FILES
    assert all(path.is_file() for path in paths)
    write_report(comparison(), tmp_path / "b")
    found = everything(tmp_path / "deep" / "a")
    assert found == everything(tmp_path / "b")
    assert {path.relative_to(tmp_path / "deep" / "a").as_posix() for path in paths} == set(found)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a"]
    assert len([name for name in found if name.startswith("figures/")]) == 12


def test_a_report_is_replaced(made, tmp_path):
    out = tmp_path / "report"
    out.mkdir()
    write_report(made, out)
    before = everything(out)
    section = attrs.evolve(made.sections[0], effects=[])
    write_report(attrs.evolve(made, sections=[section], name="another"), out)
    after = everything(out)
    assert set(before) - set(after) == {"figures/s1-contrasts.svg"}
    assert b'<p class="facts">another' in after["report.html"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize("name", ["thesis.tex", "figures/mine.svg", "report.json"])
def test_what_is_no_report_stays(made, tmp_path, name):
    out = tmp_path / "work"
    if name != "report.json":
        write_report(made, out)
    else:
        out.mkdir()
    (out / name).write_text(json.dumps({"kind": "other", "files": [name]}))
    before = everything(out)
    with pytest.raises(UserError, match=f"not a report that may be replaced: it contains {name}"):
        write_report(made, out)
    assert everything(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_a_file_in_the_way(made, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        write_report(made, tmp_path / "file")
    with pytest.raises(UserError, match="there is a file in place of a folder"):
        write_report(made, tmp_path / "file" / "report")
    assert (tmp_path / "file").read_text() == "mine"


def test_places_that_cannot_be(made, tmp_path):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    said = "cannot be written|there is a file in place of a folder|the path is too long"
    for name in ("circle", "x" * 300, "circle/deep"):
        with pytest.raises(UserError, match=said):
            write_report(made, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["circle"]


@pytest.mark.parametrize("step", ["fsync_path", "_replace"])
def test_a_full_disk_leaves_the_old_report(made, tmp_path, monkeypatch, step):
    out = tmp_path / "report"
    write_report(made, out)
    before = everything(out)
    calls = []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == (4 if step == "fsync_path" else 1):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, step, full)
    with pytest.raises(UserError, match="the disk is full"):
        write_report(attrs.evolve(made, name="another"), out)
    assert everything(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_move_that_fails_is_undone(tmp_path):
    old, place = tmp_path / "old", tmp_path / "place"
    place.mkdir()
    (place / "kept").touch()
    with pytest.raises(FileNotFoundError):
        write._replace(tmp_path / "nowhere", place, old)
    assert [path.name for path in place.iterdir()] == ["kept"]
    assert not old.exists()


def test_a_move_that_a_signal_ends_is_undone(tmp_path, monkeypatch):
    old, place, new = (tmp_path / name for name in ("old", "place", "new"))
    place.mkdir()
    (place / "kept").touch()
    rename = Path.rename

    def interrupted(path, target):
        if path == new:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write._replace(new, place, old)
    assert [path.name for path in place.iterdir()] == ["kept"]


def test_what_killed_processes_left_is_removed(made, tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    host, ours = socket.gethostname(), os.getppid()
    gone = [f".report.{host}-{dead.pid}.{kind}" for kind in ("aside", "old")]
    stay = [f".report.{host}-{ours}.aside", f".report.elsewhere-{dead.pid}.aside",
            f".report.{host}-{dead.pid}.mine", f".other.{host}-{dead.pid}.aside"]  # fmt: skip
    for name in gone + stay:
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").touch()
    write_report(made, tmp_path / "report")
    assert {path.name for path in tmp_path.iterdir()} == {"report", *stay}
