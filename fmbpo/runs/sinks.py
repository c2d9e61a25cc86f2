"""Where metrics go. Sinks are pluggy plugins, called at coarse moments and never in a hot loop.

``MetricSinks`` is what the engine holds; every call reaches every sink. Two conventions:

* ``stage`` names a part of a run (``world_model``, ``policy/walker-stand``), ``step`` counts
  iterations within it.
* Names that begin with ``host/`` are facts of this machine and moment (seconds, rates, "resumed
  here"). They reach the display and W&B but not ``metrics.jsonl``, which is to be byte-equal
  however often a run was interrupted.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pluggy

from fmbpo.base.files import disk_errors, fsync_path
from fmbpo.errors import UserError

Value: TypeAlias = float | int | str
"""A metric. 0-d tensors and numpy scalars are also taken, and cost a device synchronisation."""

_PROJECT = "fmbpo.sinks"
_HOST = "host/"
sinkspec = pluggy.HookspecMarker(_PROJECT)
sinkimpl = pluggy.HookimplMarker(_PROJECT)


class SinkSpec:
    """What a sink may implement; each hook is optional."""

    @sinkspec
    def begin(self, stage: str, step: int, total: int) -> None:
        """A stage of ``total`` iterations starts at ``step``, which is not 0 when it resumes."""

    @sinkspec
    def log(self, stage: str, step: int, values: Mapping[str, Value]) -> None:
        """Metrics of one iteration of a stage."""

    @sinkspec
    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Something worth keeping that is no metric; ``payload`` is JSON."""

    @sinkspec
    def flush(self) -> None:
        """A checkpoint is about to be written: what was logged must be on the disk."""

    @sinkspec
    def position(self) -> tuple[str, int] | None:
        """(sink's name, how far its record goes), to be kept in the checkpoint."""

    @sinkspec
    def truncate(self, positions: Mapping[str, int]) -> None:
        """A run resumes: drop what was recorded after ``positions`` (all, where absent)."""

    @sinkspec
    def results(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """The run is complete: the content of ``summary.json``, pictures and settings.

        Called when the summary is on the disk: no listener may cost a result.
        """

    @sinkspec
    def close(self) -> None:
        """The process ends its work on the run, complete or not."""


class MetricSinks:
    """All sinks of a run behind one object."""

    def __init__(self, sinks: Iterable[object]) -> None:
        self._manager = pluggy.PluginManager(_PROJECT)
        self._manager.add_hookspecs(SinkSpec)
        for sink in reversed(list(sinks)):  # pluggy calls the last registered first
            self._manager.register(sink)
        self._manager.check_pending()
        self._hook = self._manager.hook

    def begin(self, stage: str, step: int, total: int) -> None:
        """A stage of ``total`` iterations starts or continues at ``step``."""
        self._hook.begin(stage=stage, step=step, total=total)

    def log(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Metrics of one iteration; values are turned into Python numbers once, here."""
        plain = {key: _plain(value) for key, value in values.items()}
        self._hook.log(stage=stage, step=step, values=plain)

    def event(self, name: str, payload: Mapping[str, Any] | None = None) -> None:
        """Something worth keeping; names beginning with ``host/`` stay out of the record."""
        self._hook.event(name=name, payload=payload or {})

    def checkpoint(self) -> dict[str, int]:
        """Flush every sink; the positions to store in the checkpoint and give to ``truncate``."""
        self._hook.flush()
        return dict(found for found in self._hook.position() if found is not None)

    def truncate(self, positions: Mapping[str, int]) -> None:
        """Cut every record back to a checkpoint's positions; ``{}`` when there is no checkpoint."""
        self._hook.truncate(positions=positions)

    def results(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Hand the results of a complete run to every sink."""
        self._hook.results(summary=summary, files=files)

    def close(self) -> None:
        """Flush and close every sink."""
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
    """The run's own record: one JSON object a line, ``metrics.jsonl``.

    ``{"stage": ..., "step": ..., NAME: VALUE, ...}`` for metrics and
    ``{"event": NAME, "payload": {...}}`` for events. NaN and infinities, which JSON has not, are
    the strings ``"NaN"``, ``"Infinity"``, ``"-Infinity"``; ``read_metrics`` turns them back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path):
            self._file = path.open("ab")
            fsync_path(path.parent)

    @sinkimpl
    def log(self, stage: str, step: int, values: Mapping[str, Value]) -> None:
        """Append a line of metrics."""
        kept = {k: _strict(v) for k, v in values.items() if not k.startswith(_HOST)}
        clash = {"stage", "step", "event", "payload"} & set(kept)
        if clash:
            raise ValueError(f"metrics may not be called {sorted(clash)}")
        if kept or not values:
            self._append({"stage": stage, "step": step, **kept})

    @sinkimpl
    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Append a line for an event of the computation."""
        if not name.startswith(_HOST):
            self._append({"event": name, "payload": _strict(dict(payload))})

    def _append(self, line: Mapping[str, Any]) -> None:
        with disk_errors(self.path):
            self._file.write(json.dumps(line).encode() + b"\n")

    @sinkimpl
    def flush(self) -> None:
        """Bring all lines to the disk. Raises ``UserError`` when it is full."""
        with disk_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())

    @sinkimpl
    def position(self) -> tuple[str, int]:
        """``("jsonl", bytes written)``."""
        with disk_errors(self.path):
            self._file.flush()
        return "jsonl", self._file.tell()

    @sinkimpl
    def truncate(self, positions: Mapping[str, int]) -> None:
        """Cut to the recorded number of bytes."""
        self.truncate_to(positions.get("jsonl", 0))

    def truncate_to(self, position: int) -> None:
        """Drop all lines after ``position`` bytes.

        Raises ``UserError`` when the file is shorter or no line ends there: it was edited.
        """
        self._file.flush()
        with self.path.open("rb") as file:
            file.seek(max(position - 1, 0))
            last = file.read(1)
        if position and last != b"\n":
            raise UserError(
                f"no line ends at byte {position}, where the checkpoint says that one does",
                where=str(self.path),
                remedy="put the file back as it was, or start the run in a new folder",
            )
        with disk_errors(self.path):
            self._file.truncate(position)
            self._file.seek(position)
            os.fsync(self._file.fileno())

    @sinkimpl
    def close(self) -> None:
        """Flush and close; again is no error."""
        if not self._file.closed:
            self.flush()
            self._file.close()


def _strict(value: Any) -> Any:
    """JSON content without the NaN and Infinity that Python writes and no standard knows."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return value


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``; a last line that a kill cut off is left out.

    Raises ``UserError`` naming the line when another one is broken.
    """
    back = {text: float(text) for text in ("NaN", "Infinity", "-Infinity")}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(path)) from error
    for number, line in enumerate(lines[:-1], 1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise UserError("not a line of JSON", where=f"{path}:{number}") from error
        yield {k: back.get(v, v) if isinstance(v, str) else v for k, v in entry.items()}
