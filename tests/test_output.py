"""Problems with the output itself, or with the name of a path."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fmbpo.cli import main, tasks


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, as Linux has it")
@pytest.mark.parametrize("words", [["plugins"], ["data", "info", "embedded"]])
def test_a_full_disk_under_the_output(words):
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "fmbpo", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: the output: No space left on device\n  -> ")
    assert ended.stderr.count("error: ") == 1
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("tasks >&-", 0, ""),
        ("tasks 2>&- >&- <&-", 0, ""),
        ("taskx 2>&-", 2, ""),
        ("tasks --help >/dev/full", 0, ""),
        ("data info nowhere 2>/dev/full", 2, ""),
        ("runs prune >&-", 0, ""),
        ("runs prune 2>/dev/full", 0, "nothing to remove\n"),
        ("runs prune >/dev/full", 0,
         "warning: the output is incomplete: No space left on device\n"),
        ("data info nowhere", 2, "error: nowh?re: there is no data set here\n"
         "  -> check the path, or collect a data set\n"),
    ],
)  # fmt: skip
def test_streams_that_take_nothing_or_few_characters(words, status, said, tmp_path):
    """They change the status of no work that is done."""
    (tmp_path / "runs").mkdir()
    command = f"exec {sys.executable} -m fmbpo {words}".replace("nowhere", "nowhére")
    more = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=tmp_path, env=os.environ | more
    )
    assert ended.returncode == status
    assert ended.stdout + ended.stderr == said
    assert list(tmp_path.rglob("*")) == [tmp_path / "runs"]


def test_a_reader_that_has_gone():
    command = f"{sys.executable} -m fmbpo data info embedded | head -n 1"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert ended.stdout == "{\n"
    assert ended.stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        ["status", "--runs"],
        ["data", "info"],
        ["data", "verify"],
        ["report", "--out", "report"],
        ["run", "experiments/phase8_mlpwm_mlppolicy.toml", "--scale", "laptop", "--runs"],
    ],
)
def test_a_name_that_no_file_can_have(words, repository, monkeypatch, capsys, tmp_path):
    words = [str(repository / word) if word.endswith(".toml") else word for word in words]
    monkeypatch.chdir(tmp_path)
    assert main([*words, "x" * 300]) == 2
    error = capsys.readouterr().err
    assert "File name too long" in error or "no such" in error.lower()
    assert "  -> " in error


def test_a_narrow_terminal_cuts_nothing_off(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    assert main(["tasks"]) == 0
    assert "cartpole-swingup-sparse             5        1    953.4" in capsys.readouterr().out


def test_a_working_directory_that_is_gone(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["experiments"]) == 2
    said = "the working directory no longer exists\n  -> change to a folder that exists: cd\n"
    assert capsys.readouterr().err == f"error: {said}"


def test_a_terminal_obeys_no_name(capsys):
    assert main(["status", "--runs", "a\x1b[31m\x85"]) == 2
    assert capsys.readouterr().err.startswith("error: a\\x1b[31m\\x85: cannot be listed")


def test_only_mistakes_of_the_user_end_in_2(monkeypatch, capsys):
    """What the user cannot mend is a fault of fmbpo, and keeps its traceback."""

    def fails(number):
        def command(_):
            raise OSError(number, os.strerror(number), "somewhere")

        return command

    monkeypatch.setattr(tasks, "_tasks", fails(errno.EDQUOT))
    assert main(["tasks"]) == 2
    assert "somewhere: Disk quota exceeded\n  -> free some space" in capsys.readouterr().err
    monkeypatch.setattr(tasks, "_tasks", fails(errno.EACCES))
    assert main(["tasks"]) == 2
    assert "somewhere: Permission denied\n  -> check its permissions" in capsys.readouterr().err
    monkeypatch.setattr(tasks, "_tasks", fails(errno.ECHILD))
    with pytest.raises(ChildProcessError):
        main(["tasks"])
