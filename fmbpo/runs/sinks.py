"""Destinations of metrics: pluggy plugins, never called in a hot loop.

The trainer holds ``MetricSinks``; every call reaches every sink. Two conventions:

* ``stage`` names a part of a run (``pretrain``, ``policies/0``), ``step`` counts iterations
  within it.
* Names that begin with ``host/`` are facts about this machine and moment (seconds, rates). They
  reach the display and W&B but not ``metrics.jsonl``, which must be byte-identical however often a
  run was interrupted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pluggy

from fmbpo.base.files import disk_errors, fsync_path
from fmbpo.base.metrics import Row, Value, event_line, row_line
from fmbpo.errors import UserError

_PROJECT = "fmbpo.sinks"
sinkspec = pluggy.HookspecMarker(_PROJECT)
sinkimpl = pluggy.HookimplMarker(_PROJECT)


class MetricSinks:
    """All sinks of a run. A sink may implement each method that is marked ``sinkspec``."""

    def __init__(self, sinks: Iterable[object]) -> None:
        self._manager = pluggy.PluginManager(_PROJECT)
        self._manager.add_hookspecs(MetricSinks)
        for sink in reversed(list(sinks)):  # pluggy calls the last registered first
            self._manager.register(sink)
        self._manager.check_pending()
        self._hook = self._manager.hook

    @sinkspec
    def begin(self, stage: str, step: int, total: int) -> None:
        """A stage of ``total`` iterations starts at ``step``, or resumes there if it is not 0."""
        self._hook.begin(stage=stage, step=step, total=total)

    @sinkspec
    def log(self, stage: str, step: int, rows: Iterable[Row]) -> None:
        """Metrics of one iteration of a stage: its own and each cell's. They become Python numbers
        here."""
        plain = [
            attrs.evolve(row, values={name: _plain(value) for name, value in row.values.items()})
            for row in rows
        ]
        self._hook.log(stage=stage, step=step, rows=plain)

    @sinkspec
    def event(self, name: str, payload: Mapping[str, Any] | None = None) -> None:
        """A record that is not a metric; ``payload`` is JSON."""
        self._hook.event(name=name, payload=payload or {})

    @sinkspec
    def checkpoint(self) -> dict[str, int]:
        """A checkpoint follows: write all lines to the disk. Each sink returns its name and the
        length of its record, or None; the checkpoint keeps them for ``truncate``."""
        return dict(found for found in self._hook.checkpoint() if found is not None)

    @sinkspec
    def truncate(self, positions: Mapping[str, int]) -> None:
        """A run resumes: drop everything recorded after ``positions`` (all without one)."""
        self._hook.truncate(positions=positions)

    @sinkspec
    def results(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """The run is complete: the content of ``summary.json``, which is on the disk already,
        pictures and settings."""
        self._hook.results(summary=summary, files=files)

    @sinkspec
    def close(self) -> None:
        """The process leaves the run, complete or not."""
        self._hook.close()

    def __enter__(self) -> MetricSinks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _plain(value: Any) -> Value:
    if isinstance(value, str):
        return value
    if hasattr(value, "item"):
        value = value.item()
    return value if isinstance(value, int) else float(value)


class JsonLines:
    """The run's record, ``metrics.jsonl``; ``fmbpo.base.metrics`` defines its lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path):
            self._file = path.open("ab")
            fsync_path(path.parent)

    @sinkimpl
    def log(self, stage: str, step: int, rows: Sequence[Row]) -> None:
        """Append a line for each row."""
        self._append(b"".join(row_line(stage, step, row) for row in rows))

    @sinkimpl
    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Append a line for an event of the computation."""
        self._append(event_line(name, payload))

    def _append(self, lines: bytes) -> None:
        with disk_errors(self.path):
            self._file.write(lines)

    @sinkimpl
    def checkpoint(self) -> tuple[str, int]:
        """``("jsonl", bytes written)``. Raises ``UserError`` if the disk is full."""
        with disk_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
        return "jsonl", self._file.tell()

    @sinkimpl
    def truncate(self, positions: Mapping[str, int]) -> None:
        """Drop all lines after the recorded number of bytes.

        Raises ``UserError`` if no line ends there, since the file was edited.
        """
        position = positions.get("jsonl", 0)
        self._file.flush()
        with self.path.open("rb") as file:
            file.seek(max(position - 1, 0))
            last = file.read(1)
        if position and last != b"\n":
            raise UserError(
                f"no line ends at byte {position}, but the checkpoint was made at the end of one",
                where=str(self.path),
                remedy="restore the file, or start the run in a new folder",
            )
        with disk_errors(self.path):
            self._file.truncate(position)
            self._file.seek(position)
            os.fsync(self._file.fileno())

    @sinkimpl
    def close(self) -> None:
        """Flush and close; a second call does nothing."""
        if not self._file.closed:
            self.checkpoint()
            self._file.close()
