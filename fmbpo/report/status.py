"""The registry as a table for a terminal, and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from fmbpo.report.table import NONE
from fmbpo.runs.progress import clock
from fmbpo.runs.registry import Entry

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 120
"""Columns that the table is made for."""


def _seen(entry: Entry) -> str:
    """Ages of the last heartbeat and of the last progress, of a run that should have them."""
    if entry.beat is None or entry.progress is None:
        return ""
    return f"{_age(entry.beat)} / {_age(entry.progress)}"


def _age(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 360_000 else f"{seconds / 86_400:.0f} d"


def _progress(entry: Entry) -> str:
    if entry.total is None:
        return ""
    return f"{NONE if entry.iteration is None else entry.iteration}/{entry.total}"


COLUMNS: dict[str, Callable[[Entry], str]] = {
    "phase": lambda e: e.phase,
    "experiment": lambda e: e.experiment,
    "cell": lambda e: e.cell,
    "task": lambda e: e.task,
    "seed": lambda e: "" if e.seed is None else str(e.seed),
    "job": lambda e: e.job,
    "hardware": lambda e: e.hardware,
    "state": lambda e: e.state,
    "progress": _progress,
    "runtime": lambda e: "" if e.runtime is None else clock(e.runtime),
    "return": lambda e: "" if e.final_return is None else f"{e.final_return:.1f}",
    "beat / moved": _seen,
}
"""Titles, and what stands below them."""
_OF_THE_RUN = ("phase", "experiment", "cell", "job", "hardware", "runtime", "beat / moved")
_RIGHT = ("seed", "progress", "runtime", "return", "beat / moved")
_FOLDED = {"experiment": 16, "task": 17, "hardware": 14}
_STYLES = {"running": "cyan", "stale": "yellow", "failed": "red", "completed": "green"}


def print_status(entries: Sequence[Entry], stream: TextIO, *, width: int = WIDTH) -> None:
    """The table, how many runs are in which state, and the reasons below it."""
    from rich.console import Console

    console = Console(file=stream, width=width, highlight=False, markup=False)
    console.print(status_table(entries))
    for line in notes(entries):
        console.print(line, soft_wrap=True)


def status_table(entries: Sequence[Entry]) -> Table:
    """A row an entry; what is the run's as a whole stands in its first row alone.

    Columns without any content are left out.
    """
    from rich import box
    from rich.table import Table

    used = [name for name, text in COLUMNS.items() if any(map(text, entries))]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in used:
        wide = _FOLDED.get(name)
        table.add_column(
            name,
            justify="right" if name in _RIGHT else "left",
            overflow="fold",
            no_wrap=wide is None,
            min_width=wide and min(wide, max(len(COLUMNS[name](e)) for e in entries)),
        )
    folder = None
    for entry in entries:
        hidden = _OF_THE_RUN if entry.folder == folder else ()
        folder = entry.folder
        cells = ["" if name in hidden else COLUMNS[name](entry) for name in used]
        table.add_row(*cells, style=_STYLES.get(entry.state))
    return table


def notes(entries: Sequence[Entry]) -> list[str]:
    """How many runs are in which state, and a line for each reason with the run's folder."""
    runs = {entry.folder: entry for entry in entries}
    counts = Counter(entry.state for entry in runs.values())
    lines = [", ".join(f"{count} {state}" for state, count in counts.items())]
    return [*lines, *(f"{e.state}: {name}: {e.reason}" for name, e in runs.items() if e.reason)]


def markdown(entries: Sequence[Entry]) -> str:
    """The table in Markdown: every column, everything in every row."""
    columns = dict(COLUMNS)
    columns["reason"] = lambda e: e.reason
    columns["folder"] = lambda e: f"`{e.folder}`"
    rows = [list(columns), ["---"] * len(columns)]
    rows += [[text(entry) for text in columns.values()] for entry in entries]
    escaped = ([cell.replace("|", r"\|") for cell in row] for row in rows)
    return "".join(f"| {' | '.join(row)} |\n" for row in escaped)
