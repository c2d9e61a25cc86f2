"""The files of an import: found, fingerprinted in one pass, and read in blocks of episodes."""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen
from numpy.typing import NDArray

from fmbpo.errors import UserError

AGAIN = "fetch or write the file again"
_PIECE = 2**23
_DAMAGED = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError, KeyError,
            ValueError, OverflowError, RuntimeError)  # fmt: skip
"""What zipfile raises for files that are no more what they were."""
_LOCAL_HEADER = 30
_NAME, _EXTRA = slice(26, 28), slice(28, 30)


@frozen(eq=False)
class Block:
    """Neighbouring episodes of a file, as they stand in it.

    Attributes:
        obs: [R, any width] floats.
        action: [R, any width] floats.
        reward: [R] floats.
        lengths: [K] rows of each episode, sum R.
        task: [K] id of the task (index into MT30's list), below 0 for episodes to leave out.
        first: number of the first of them in the file.
    """

    obs: NDArray[Any]
    action: NDArray[Any]
    reward: NDArray[Any]
    lengths: NDArray[Any]
    task: NDArray[Any]
    first: int


class Source(Protocol):
    """A file of episodes. Opening one reads its structure; ``tasks`` and ``blocks`` its values."""

    path: Path
    row_bytes: int
    """Bytes that a row takes in the file."""
    equal_lengths: bool
    """Whether all episodes of a data set of this kind are equally long."""
    ignored: tuple[str, ...]
    """Names of arrays that are in the file and not used."""

    def tasks(self, skip_others: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """Task id [E] and rows [E] of every episode.

        With ``skip_others`` an id that MT30 has not becomes -1; without, it is a `UserError`.
        """
        ...

    def blocks(self, first: int, rows: int) -> Iterator[Block]:
        """The episodes from number ``first`` on, about ``rows`` rows at a time."""
        ...


@frozen
class Fingerprint:
    """A file's content: its ``size`` in bytes and its SHA-256, and when it was last ``changed``."""

    size: int
    sha256: str
    changed: int


def find_files(sources: Sequence[Path], ending: str) -> list[Path]:
    """The files among ``sources`` and those with this ending in the folders among them, by name.

    Raises:
        UserError: one is not there, a folder without such a file, or a file named twice.
    """
    found: list[Path] = []
    for source in sources:
        inside = sorted(source.glob(f"*{ending}")) if source.is_dir() else [source]
        if not inside:
            raise UserError(f"no {ending} file in this folder", where=str(source))
        found += inside
    found.sort(key=lambda path: (path.name, str(path)))
    for one, other in pairwise(found):
        if one.resolve() == other.resolve():
            raise UserError("given twice", where=str(one), remedy="give every file once")
    return found


def fingerprint(path: Path, progress: Callable[[int], None] = lambda done: None) -> Fingerprint:
    """Read a whole zip file once: its SHA-256, and whether every part has the CRC-32 it states.

    ``progress`` is called with the bytes of each piece.

    Raises:
        UserError: unreadable, or a part is damaged.
    """
    with reading(path), path.open("rb") as file:
        status = os.fstat(file.fileno())
        parts, hasher, done = _parts(path), hashlib.sha256(), 0
        checks = iter(parts)
        at = next(checks, None)
        crc = 0
        while piece := file.read(_PIECE):
            hasher.update(piece)
            view = memoryview(piece)
            while at is not None and at.start < done + len(piece):
                inside = view[max(at.start - done, 0) : at.stop - done]
                crc = zlib.crc32(inside, crc)
                if at.stop > done + len(piece):
                    break
                if crc != at.crc:
                    raise UserError(
                        f"damaged: {at.name} has not the checksum that the file states",
                        where=str(path),
                        remedy=AGAIN,
                    )
                at, crc = next(checks, None), 0
            done += len(piece)
            progress(len(piece))
        if at is not None:
            raise zipfile.BadZipFile(f"{at.name} is cut short")
    return Fingerprint(done, hasher.hexdigest(), status.st_mtime_ns)


def unchanged(path: Path, known: Fingerprint) -> None:
    """UserError where the file is not as it was when it was fingerprinted."""
    with reading(path):
        status = path.stat()
    if (status.st_size, status.st_mtime_ns) != (known.size, known.changed):
        raise UserError(
            "changed while it was being read",
            where=str(path),
            remedy="give the same command again when it is complete",
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong with the file or its zip structure is a `UserError` that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError("there is no such file", where=str(path)) from error
    except IsADirectoryError as error:
        raise UserError("a folder where a file should be", where=str(path)) from error
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror or error})",
            where=str(path),
            remedy="check its permissions and the disk it lies on",
        ) from error
    except _DAMAGED as error:
        raise UserError(
            f"truncated or damaged ({error or type(error).__name__})",
            where=str(path),
            remedy=AGAIN,
        ) from error


@frozen
class _Part:
    name: str
    start: int
    stop: int
    crc: int


def _parts(path: Path) -> list[_Part]:
    """Where the bytes of a zip file's members are that are stored as is; the others are checked."""
    found = []
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                with archive.open(member) as unpacked:  # compares the checksum at the end
                    while unpacked.read(_PIECE):
                        pass
                continue
            file.seek(member.header_offset)
            head = file.read(_LOCAL_HEADER)
            if len(head) < _LOCAL_HEADER or head[:4] != b"PK\3\4":
                raise zipfile.BadZipFile(f"no header of {member.filename}")
            name, extra = (int.from_bytes(head[part], "little") for part in (_NAME, _EXTRA))
            start = member.header_offset + _LOCAL_HEADER + name + extra
            found.append(_Part(member.filename, start, start + member.file_size, member.CRC))
    found.sort(key=lambda part: part.start)
    for one, other in pairwise(found):
        if one.stop > other.start:
            raise zipfile.BadZipFile(f"{one.name} and {other.name} overlap")
    return found
