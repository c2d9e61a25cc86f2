"""Writing files: what the system refuses is said in one line, and nothing half-written stays."""

import errno
import os

import pytest

from fmbpo.base.files import disk_errors, write_text
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
