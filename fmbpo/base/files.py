"""Writes files whole: a reader, or a kill, finds the old one or the new one, never a half.

What the system refuses becomes a ``UserError``; so does a disk with too little room.
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

_FULL = "the disk is full", "free some space and run the same command again: it continues"
_FORBIDDEN = "no permission to write here ({0})", "choose a folder that you may write to"
_FILE = "a file stands where a folder is needed ({1})", "move it away or choose another folder"
_OTHER = "cannot be written ({0})", "choose another place"
_MEANING = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _FORBIDDEN),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), _FILE),
}


@contextmanager
def disk_errors(where: Path, *, intact: str = "") -> Iterator[None]:
    """Turn any ``OSError`` within, such as a full disk, into a ``UserError`` that names ``where``.

    ``intact`` names the things that the failure left unharmed.
    """
    try:
        yield
    except OSError as error:
        what, remedy = _MEANING.get(error.errno or 0, _OTHER)
        what = what.format(error.strerror or error, error.filename)
        what += f"; {intact}" if intact else ""
        raise UserError(what, where=str(where), remedy=remedy) from error


def check_disk(needed: int, folder: Path, option: str, words: str = "") -> str:
    """Needed and free space, for people.

    Args:
        needed: bytes.
        folder: where they go; it need not exist yet.
        option: of the command line, that names another place.
        words: added behind the needed space.

    Raises:
        UserError: it is too little, or ``folder`` cannot be a folder that one may write to.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    with disk_errors(folder):
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
    """Write a file's content, or a folder's list of names, through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a file's content in one step: written aside, fsynced if ``durable``, renamed.

    Raises ``UserError`` if the disk is full or the folder may not be written.
    """
    replace_file(path, lambda aside: aside.write_text(text, "utf-8"), durable=durable)


def replace_file(
    path: Path, write: Callable[[Path], object], *, durable: bool = True, intact: str = ""
) -> None:
    """Like ``write_text``, for content that ``write(aside)`` writes itself, such as a picture.

    The file aside has the same ending as ``path``, since libraries choose formats by it.
    ``intact``: see ``disk_errors``.
    """
    # Process numbers are unique on one host alone, and several may share the disk.
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
    """The files aside in a folder: of writers at work, and of killed ones."""
    return sorted(path for path in folder.glob(".*.aside*") if path.is_file())


def write_json(path: Path, content: Any, *, durable: bool = True) -> None:
    """``write_text`` of indented JSON with a final newline; keys keep their order."""
    write_text(path, json.dumps(content, indent=2) + "\n", durable=durable)


def read_json(path: Path) -> Any:
    """A JSON file's content. Raises ``UserError`` if it is missing, unreadable or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError("no such file", where=str(path)) from error
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"not valid JSON ({error})", where=str(path)) from error


def read_object(path: Path) -> dict[str, Any]:
    """``read_json`` of a file that holds a JSON object; ``UserError`` if it holds anything else."""
    content = read_json(path)
    if not isinstance(content, dict):
        remedy = "it was edited or damaged: restore it"
        raise UserError("not a JSON object", where=str(path), remedy=remedy)
    return content


def remove_tree(folder: Path) -> None:
    """Remove a folder with all its content; a missing one is no error."""
    shutil.rmtree(folder, ignore_errors=True)
