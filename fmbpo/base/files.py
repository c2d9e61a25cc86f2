"""Writes files atomically: a reader, also after a kill, finds the old file or the new one.

Errors of the system and a disk with too little space become a ``UserError``.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fmbpo.base.text import bytes_text
from fmbpo.errors import UserError

CHECK_FILE = "check its permissions and its disk"
DAMAGED = "it was edited or damaged: restore it"
_FULL = "the disk is full", "free some space and run the same command again: it continues"
_FORBIDDEN = "no permission to write here ({0})", "choose a folder that you may write to"
_LONG = "the name or the path is too long ({0})", "choose a shorter name, or another folder"
_FILE = "there is a file in place of a folder ({1})", "move it away or choose another folder"
_OTHER = "cannot be written ({0})", "choose another place"
_MEANING = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _FORBIDDEN),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), _FILE),
    errno.ENAMETOOLONG: _LONG,
}


def path_of(given: str | Path) -> Path:
    """A path as a person writes it: ``~`` and ``~NAME`` are home folders.

    Raises ``UserError`` if it is no text, is empty, has a NUL character, or no user has the name.
    """
    text = str(given) if isinstance(given, str | Path) else ""
    if not text or "\0" in text:
        raise UserError(f"{given!r} is not a path", remedy="name a file or a folder")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        what = f"no home folder is known for {Path(text).parts[0]!r}"
        raise UserError(what, where=text, remedy=f"write the whole path, or ./{text}") from None


def display(path: str | Path) -> str:
    """The path as a user would type it: relative if it is inside the working directory."""
    absolute, here = Path(os.path.abspath(path)), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)


def remedy_of(error: OSError) -> str:
    """How the user mends an error of the system; empty if it is not the user's to mend."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return CHECK_FILE  # perhaps it was to be read
    return _MEANING.get(error.errno or 0, ("", ""))[1]


@contextmanager
def disk_errors(where: Path, *, intact: str = "") -> Iterator[None]:
    """Turn any ``OSError`` inside, such as a full disk, into a ``UserError`` that names ``where``.

    ``intact``: a sentence on the data that the failure left intact.
    """
    try:
        yield
    except OSError as error:
        what, remedy = _MEANING.get(error.errno or 0, _OTHER)
        what = what.format(error.strerror or error, error.filename)
        what += f"; {intact}" if intact else ""
        raise UserError(what, where=str(where), remedy=remedy) from error


def check_disk(needed: int, folder: Path, option: str, words: str = "") -> str:
    """The ``needed`` bytes, followed by ``words``, and the free space for ``folder``, as text.

    ``folder`` need not exist yet. Raises ``UserError`` if the space is too small (``option``
    chooses another folder), or if ``folder`` is not, or cannot become, a writable folder.
    """
    with disk_errors(folder):
        place = folder.absolute()
        while not (place.exists() or place.is_symlink()):
            place = place.parent
        if not place.is_dir():
            raise OSError(errno.ENOTDIR, "", str(place))
        if not os.access(place, os.W_OK):
            raise OSError(errno.EACCES, str(place))
    free = shutil.disk_usage(place).free
    said = f"{bytes_text(needed)} needed{words}, {bytes_text(free)} free"
    if needed > free:
        remedy = f"free some space, or choose another folder with {option}"
        raise UserError(f"the disk is too full: {said}", where=str(folder), remedy=remedy)
    return said


def fsync_path(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a file's content atomically: write it aside, fsync it if ``durable``, rename it.

    Raises ``UserError`` if the disk is full or the folder is not writable.
    """
    replace_file(path, lambda aside: aside.write_text(text, "utf-8"), durable=durable)


def replace_file(
    path: Path, write: Callable[[Path], object], *, durable: bool = True, intact: str = ""
) -> None:
    """Like ``write_text``, for content that ``write(aside)`` writes, such as a picture.

    The file aside has the extension of ``path``, by which libraries choose the format.
    ``intact``: see ``disk_errors``.
    """
    # Process ids are unique on one host only, and several hosts may share the disk.
    writer = f"{socket.gethostname()}-{os.getpid()}"
    aside = path.with_name(f".{path.stem}.{writer}.aside{path.suffix}")
    with disk_errors(path, intact=intact):
        try:
            write(aside)
            if durable:
                fsync_path(aside)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        if durable:
            fsync_path(path.parent)


def asides(folder: Path) -> list[Path]:
    """The files aside in a folder, of active writers and of killed ones."""
    return sorted(path for path in folder.glob(".*.aside*") if path.is_file())


def write_json(path: Path, content: Any, *, durable: bool = True) -> None:
    """``write_text`` of indented JSON with a final newline, with keys in their order."""
    write_text(path, json.dumps(content, indent=2) + "\n", durable=durable)


def read_json(path: Path) -> Any:
    """A JSON file's content. Raises ``UserError`` if it is missing, unreadable or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        remedy = "check the path, or restore the file"
        raise UserError("no such file", where=str(path), remedy=remedy) from error
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise UserError(what, where=str(path), remedy=CHECK_FILE) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"not valid JSON ({error})", where=str(path), remedy=DAMAGED) from error


def read_object(path: Path) -> dict[str, Any]:
    """``read_json`` of a JSON object. Raises ``UserError`` if the file holds another value."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError("not a JSON object", where=str(path), remedy=DAMAGED)
    return content


def remove_tree(folder: Path) -> None:
    """Remove a folder with all its content; ignore errors, such as a missing folder."""
    shutil.rmtree(folder, ignore_errors=True)
