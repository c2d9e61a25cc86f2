"""The progress display on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import attrs

from fmbpo.base.metrics import HOST, Row, Value
from fmbpo.base.text import clock, console, speed
from fmbpo.runs.sinks import sinkimpl


@attrs.define
class Pace:
    """Progress and speed of a stage, from the iterations of this process only."""

    stage: str
    first: int
    total: int
    started: float
    step: int = attrs.field(default=attrs.Factory(lambda self: self.first, takes_self=True))

    def rate(self, now: float) -> float | None:
        """Iterations per second; None before the first."""
        done, seconds = self.step - self.first, now - self.started
        return done / seconds if done > 0 and seconds > 0 else None

    def left(self, now: float) -> float | None:
        """Seconds to the end of the stage at this rate; None if either is unknown."""
        rate = self.rate(now)
        return max(self.total - self.step, 0) / rate if rate and self.total else None


def metrics_text(values: Mapping[str, Value], main: Sequence[str], most: int) -> str:
    """``name 0.123  name 4.5``: the metrics in ``main``, or else the first ``most``."""
    chosen = [key for key in main if key in values]
    chosen = chosen or [key for key in values if not key.startswith(HOST)][:most]
    shown = ((key, values[key]) for key in chosen)
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown)


class ProgressDisplay:
    """Shows stage, iteration, main metrics, rate, elapsed time and time to finish.

    ``main`` names the metrics to show, in order; if the log has none of them, it shows the first
    ones. On a terminal it redraws one line per stage; elsewhere it writes one line per ``log``. It
    ignores errors of the stream (a closed pipe).
    """

    def __init__(
        self,
        *,
        main: Sequence[str] = (),
        stream: TextIO | None = None,
        live: bool | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        live = self._stream.isatty() if live is None else live
        self._main, self._now = main, now
        self._pace = Pace("", 0, 0, 0.0)
        self._bar = _LiveBar(self._stream) if live else None

    @sinkimpl
    def begin(self, stage: str, step: int, total: int) -> None:
        """Start a bar, or write a line with the stage's first iteration."""
        self._pace = Pace(stage, step, total, self._now())
        with contextlib.suppress(OSError, ValueError):
            if self._bar:
                self._bar.begin(stage, step, total)
            else:
                start = f"continues at {step}" if step else "starts"
                self._line(f"{stage}: {start}, {total} iterations")

    @sinkimpl
    def log(self, stage: str, step: int, rows: Sequence[Row]) -> None:
        """Move the bar, or write a line, with the metrics of the whole stage."""
        now = self._now()
        if stage != self._pace.stage:  # it was not announced
            self._pace = Pace(stage, step, 0, now)
        self._pace.step, total = step, self._pace.total
        pace, left = speed(self._pace.rate(now)), clock(self._pace.left(now))
        values = next((row.values for row in rows if not row.task), {})
        with contextlib.suppress(OSError, ValueError):
            if self._bar:
                text = metrics_text(values, self._main, 3)
                self._bar.log(step, text, f"{pace}  {left} left")
                return
            text = metrics_text(values, self._main, 6)
            place = f"{step}/{total} ({100 * step / total:.0f} %)" if total else f"{step}"
            elapsed = clock(now - self._pace.started)
            self._line(f"{stage}  {place}  {text}  [{pace}, elapsed {elapsed}, left {left}]")

    @sinkimpl
    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Write the event on its own line."""
        text = ", ".join(f"{v}" if k == "text" else f"{k} {v}" for k, v in payload.items())
        name = name.removeprefix(HOST)
        with contextlib.suppress(OSError, ValueError):
            self._line(f"{name}: {text}" if text else name)

    @sinkimpl
    def close(self) -> None:
        """Restore the terminal."""
        with contextlib.suppress(OSError, ValueError):
            if self._bar:
                self._bar.progress.stop()

    def _line(self, text: str) -> None:
        if self._bar:
            self._bar.progress.console.print(text)
        else:
            print(text, file=self._stream, flush=True)


class _LiveBar:
    """rich's bar, one line per stage; completed stages remain on the screen."""

    def __init__(self, stream: TextIO) -> None:
        from rich.progress import BarColumn, Progress, TaskID, TextColumn

        self.progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[pace]}", style="cyan", markup=False),
            TextColumn("{task.fields[text]}", markup=False),
            console=console(stream, terminal=True),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=stream is sys.stderr,
        )
        self._task: TaskID | None = None

    def begin(self, stage: str, step: int, total: int) -> None:
        self.progress.start()
        self._task = self.progress.add_task(stage, completed=step, total=total, text="", pace="")
        self.progress.refresh()

    def log(self, step: int, text: str, pace: str) -> None:
        if self._task is not None:
            self.progress.update(self._task, completed=step, text=text, pace=pace)
            self.progress.refresh()
