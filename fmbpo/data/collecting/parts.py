"""Parts: the folder of finished episodes of an unfinished collection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from fmbpo.base.files import disk_errors, read_object, replace_file, write_json
from fmbpo.errors import UserError

Rows = Mapping[str, NDArray[Any]]
_save: Callable[..., None] = np.savez_compressed  # its types take no dictionary of arrays
ARRAYS = ("obs", "action", "reward", "terminated")
"""Of an episode: see `collect_episode`."""


@frozen
class Parts:
    """``<store>.parts``, with ``request.json`` and one file per finished episode."""

    folder: Path

    def claim(self, request: Mapping[str, Any]) -> None:
        """Make the folder for a request; UserError if it is another request's or cannot be made."""
        path = self.folder / "request.json"
        if path.exists():
            if read_object(path) != request:
                raise UserError(
                    "holds episodes of another collection (other tasks, seed, recipe, steps, "
                    "planner or policy)",
                    where=str(self.folder),
                    remedy="run that command again to finish it, or remove the folder",
                )
            return
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, request)

    def file(self, task: str, episode: int, behaviour: str) -> Path:
        """The file of an episode."""
        return self.folder / f"{task}-{episode:06d}-{behaviour}.npz"

    def write(self, file: Path, rows: Rows) -> None:
        """Write an episode atomically; UserError if the disk is full or cannot be written."""
        arrays = {name: rows[name] for name in ARRAYS}
        replace_file(file, lambda aside: _save(aside, **arrays))

    def read(self, file: Path) -> Rows:
        """Read an episode; UserError if the file is damaged."""
        try:
            with np.load(file) as rows:
                return {name: rows[name] for name in ARRAYS}
        except Exception as error:
            raise UserError(
                f"a damaged episode file ({type(error).__name__})",
                where=str(file),
                remedy="remove the file and run the same command again",
            ) from error
