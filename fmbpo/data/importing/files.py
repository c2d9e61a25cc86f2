"""The files of an import: found, read once from end to end, and read in blocks of episodes."""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

from fmbpo.base.files import CHECK_FILE
from fmbpo.data.store_format import Array
from fmbpo.errors import UserError
from fmbpo.tasks.suite import Suite

AGAIN = "fetch or write the file again"
_PIECE = 2**23
_DAMAGED = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError, KeyError,
            ValueError, OverflowError, RuntimeError, SyntaxError, TypeError)  # fmt: skip
"""Errors that zipfile and numpy's header reader raise for damaged files."""


@frozen(eq=False)
class Block:
    """Consecutive episodes of a file, with its values.

    Attributes:
        obs: [R, any width] floats.
        action: [R, any width] floats.
        reward: [R] floats.
        lengths: [K] rows of each episode, sum R.
        task: [K] task ids (indices into the suite), below 0 for episodes to leave out.
        terminated: [K] whether the last row is a terminal state.
        first: number of the first episode in the file.
    """

    obs: Array
    action: Array
    reward: Array
    lengths: Array
    task: Array
    terminated: Array
    first: int


class EpisodeFile(ABC):
    """A file of episodes. Opening reads its structure, ``scan`` the file, ``blocks`` its rows.

    Attributes:
        path: the file.
        suite: the tasks that its episodes may have.
        row_bytes: bytes per row in the file.
        ignored: names of the unused arrays in the file.
        equal_lengths: whether all episodes of a data set of this kind have the same length.
        ids: [E] task id of each episode (index into the suite), below 0 if it is left out.
        lengths: [E] rows of each episode.
    """

    path: Path
    suite: Suite
    row_bytes: int
    ignored: tuple[str, ...]
    equal_lengths: bool
    ids: Array
    lengths: Array

    @abstractmethod
    def blocks(self, first: int, rows: int) -> Iterator[Block]:
        """The episodes from number ``first``, about ``rows`` rows at a time, after ``scan``."""

    def scan(self, skip_others: bool, progress: Callable[[int], None]) -> None:
        """Read the whole file once: its SHA-256, the checksum of every part, and the tasks.

        ``skip_others``: leave out episodes with ids that the suite does not have. ``progress`` is
        called with the number of bytes of each piece. Raises `UserError` if the file is unreadable,
        a part is damaged, or a task is unknown.
        """
        hasher = hashlib.sha256()
        with reading(self.path), self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            self._state = status.st_size, status.st_mtime_ns

            def hashed() -> bytes:
                hasher.update(piece := file.read(_PIECE))
                if piece:
                    progress(len(piece))
                return piece

            with zipfile.ZipFile(self.path) as archive:
                for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
                    with archive.open(member) as part:  # checks the checksum at the end
                        while part.read(_PIECE):
                            hashed()  # near the same position, so that the disk reads it once
            while hashed():
                pass
        self.sha256 = hasher.hexdigest()

    def check_unchanged(self) -> None:
        """UserError if the file has changed since ``scan``."""
        with reading(self.path):
            status = self.path.stat()
        if (status.st_size, status.st_mtime_ns) != self._state:
            raise UserError(
                "the file changed while it was being read",
                where=str(self.path),
                remedy="run the same command again when the file is complete",
            )

    @property
    def taken(self) -> Array:
        """Numbers of the imported episodes."""
        return np.flatnonzero(self.ids >= 0)

    @property
    def record(self) -> dict[str, Any]:
        """The file's name, size and checksum, for the store's attributes."""
        return {"file": self.path.name, "bytes": self._state[0], "sha256": self.sha256}


def find_files(sources: Sequence[Path], ending: str) -> list[Path]:
    """The given files, and those with this ending in the given folders, sorted by name.

    Raises `UserError` if a folder has no such file, or if a file is given twice.
    """
    found: list[Path] = []
    for source in sources:
        inside = sorted(source.glob(f"*{ending}")) if source.is_dir() else [source]
        if not inside:
            what = f"there is no {ending} file in this folder"
            raise UserError(what, where=str(source), remedy="name the files, or their folder")
        found += inside
    found.sort(key=lambda path: (path.name, str(path)))
    for one, other in pairwise(found):
        if one.resolve() == other.resolve():
            raise UserError("given twice", where=str(one), remedy="give each file only once")
    return found


def check_names(wanted: Collection[str], there: Collection[str], path: Path, remedy: str) -> None:
    """UserError if the file lacks any of the wanted arrays."""
    missing = [name for name in wanted if name not in there]
    if missing:
        what = f"no array {', '.join(missing)}; the file has {', '.join(sorted(there)) or 'none'}"
        raise UserError(what, where=str(path), remedy=remedy)


@contextmanager
def reading(where: Path | str) -> Iterator[None]:
    """Turn any error of a file or of its zip structure into a `UserError` that names ``where``."""
    try:
        yield
    except FileNotFoundError as error:
        remedy = "check the path"
        raise UserError("there is no such file", where=str(where), remedy=remedy) from error
    except IsADirectoryError as error:
        remedy = "move it away, or name the files"
        raise UserError("a folder instead of a file", where=str(where), remedy=remedy) from error
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise UserError(what, where=str(where), remedy=CHECK_FILE) from error
    except _DAMAGED as error:
        what = f"truncated or damaged ({error or type(error).__name__})"
        raise UserError(what, where=str(where), remedy=AGAIN) from error
