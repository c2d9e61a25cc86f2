"""The files of an import: found, fingerprinted in one pass, and read in blocks of episodes."""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from attrs import frozen

from fmbpo.data.store_format import Array
from fmbpo.errors import UserError

AGAIN = "fetch or write the file again"
_PIECE = 2**23
_DAMAGED = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError, KeyError,
            ValueError, OverflowError, RuntimeError)  # fmt: skip
"""The errors that zipfile raises for damaged files."""
_LOCAL_HEADER = 30
_NAME, _EXTRA = slice(26, 28), slice(28, 30)


@frozen(eq=False)
class Block:
    """Neighbouring episodes of a file, with the values that it has.

    Attributes:
        obs: [R, any width] floats.
        action: [R, any width] floats.
        reward: [R] floats.
        lengths: [K] rows of each episode, sum R.
        task: [K] id of the task (index into MT30's list), below 0 for episodes to leave out.
        first: number of the first episode in the file.
    """

    obs: Array
    action: Array
    reward: Array
    lengths: Array
    task: Array
    first: int


class EpisodeFile(Protocol):
    """A file of episodes. Opening reads its structure; ``tasks`` and ``blocks`` read its values."""

    path: Path
    row_bytes: int
    """Bytes per row in the file."""
    equal_lengths: bool
    """Whether all episodes of a data set of this kind have the same length."""
    ignored: tuple[str, ...]
    """Names of the arrays in the file that are not used."""

    def tasks(self, skip_others: bool) -> tuple[Array, Array]:
        """Task id [E] and rows [E] of every episode.

        An id that MT30 does not have is a `UserError`; with ``skip_others`` it becomes -1.
        """
        ...

    def blocks(self, first: int, rows: int) -> Iterator[Block]:
        """The episodes from number ``first``, about ``rows`` rows at a time."""
        ...


@frozen
class Fingerprint:
    """A file's ``size`` in bytes, its SHA-256 and the time when it last ``changed`` (ns)."""

    size: int
    sha256: str
    changed: int


def find_files(sources: Sequence[Path], ending: str) -> list[Path]:
    """The given files, and those with this ending in the given folders, sorted by name.

    Raises:
        UserError: a folder has no such file, or a file is given twice.
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
    """Read a whole zip file once: compute its SHA-256 and compare every part with its CRC-32.

    ``progress`` is called with the number of bytes of each piece.

    Raises:
        UserError: the file is unreadable, or a part is damaged.
    """
    hasher = hashlib.sha256()
    with reading(path), path.open("rb") as file:
        status = os.fstat(file.fileno())

        def crc_until(stop: int) -> int:
            crc = 0
            while piece := file.read(min(_PIECE, stop - file.tell())):
                hasher.update(piece)
                crc = zlib.crc32(piece, crc)
                progress(len(piece))
            return crc

        for part in _parts(path):
            crc_until(part.start)
            if crc_until(part.stop) != part.crc:
                raise UserError(
                    f"damaged: {part.name} does not have the checksum that the file states",
                    where=str(path),
                    remedy=AGAIN,
                )
        crc_until(status.st_size)
    return Fingerprint(status.st_size, hasher.hexdigest(), status.st_mtime_ns)


def check_names(wanted: Collection[str], there: Collection[str], path: Path, remedy: str) -> None:
    """UserError if wanted arrays are not among the file's."""
    missing = [name for name in wanted if name not in there]
    if missing:
        what = f"no array {', '.join(missing)}; there is {', '.join(sorted(there)) or 'nothing'}"
        raise UserError(what, where=str(path), remedy=remedy)


def unchanged(path: Path, known: Fingerprint) -> None:
    """UserError if the file has changed since it was fingerprinted."""
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
    """Turn any error of the file or its zip structure into a `UserError` that names the file."""
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
            f"truncated or damaged ({error or type(error).__name__})", where=str(path), remedy=AGAIN
        ) from error


@frozen
class _Part:
    name: str
    start: int
    stop: int
    crc: int


def _parts(path: Path) -> list[_Part]:
    """Where a zip file's uncompressed members lie, in order; checks the compressed ones."""
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
