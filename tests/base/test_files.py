"""Writing files: what the system refuses is said in one line, and nothing half-written stays."""

import argparse
import errno
import os
from pathlib import Path

import pytest

from fmbpo.base.files import disk_errors, path_of, write_text
from fmbpo.cli import main, parser
from fmbpo.errors import UserError


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full; the old one is intact"),
        (errno.EROFS, r"no permission to write here \(Read-only file system\)"),
        (errno.ENOTDIR, "there is a file in place of a folder"),
        (errno.ENOENT, r"cannot be written \(No such file or directory\)"),  # below /proc
        (errno.ELOOP, r"cannot be written \(Too many levels of symbolic links\)"),
        (errno.EINVAL, r"cannot be written \(Invalid argument\)"),
        (errno.EIO, r"cannot be written \(Input/output error\); the old one is intact"),
    ],
)
def test_every_error_of_the_system_is_the_users(number, said, tmp_path):
    with (
        pytest.raises(UserError, match=rf"place: {said}.*\n  -> "),
        disk_errors(tmp_path / "place", intact="the old one is intact"),
    ):
        raise OSError(number, os.strerror(number), "x")


def test_an_error_without_a_number(tmp_path):
    with pytest.raises(UserError, match=r"cannot be written \(odd\)"), disk_errors(tmp_path):
        raise OSError("odd")


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(UserError, match=r"too long \(File name too long\)"):
        write_text(tmp_path / ("x" * 300), "text")
    assert list(tmp_path.iterdir()) == []


def test_paths_as_people_write_them(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of("~/a") == path_of(str(tmp_path / "a")) == tmp_path / "a"
    assert path_of("~root") == Path("~root").expanduser() != Path("~root")
    assert path_of("a/~/b") == Path("a/~/b")
    for text, said in (
        ("", "not a path"),
        ("a\0b", "not a path"),
        ("~nobody-here/a", "'~nobody-here'"),
    ):
        with pytest.raises(UserError, match=said):
            path_of(text)


def test_every_command_reads_paths_so(monkeypatch, tmp_path, capsys):
    """The commands take them by one function; argparse's own ``Path`` would keep a ``~``."""
    left, types = [parser()], set()
    while left:
        for action in left.pop()._actions:
            types.add(action.type)
            if isinstance(action, argparse._SubParsersAction):
                left += action.choices.values()
    assert path_of in types
    assert not types & {Path, str}
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in (["data", "info", "~/a.zarr"], ["run", "~/a.toml"], ["data", "collect", "--out=x",
                  "--recipe=~/r.toml"], ["report", "--out=x", "~/no-run"]):  # fmt: skip
        assert main(words) == 2
        assert str(tmp_path) in capsys.readouterr().err
    assert main(["status", "--runs", "~nobody-here/runs"]) == 2
    assert "no home folder is known for '~nobody-here'" in capsys.readouterr().err
