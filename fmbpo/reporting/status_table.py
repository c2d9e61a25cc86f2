"""The states of all runs as a table for a terminal, and as Markdown."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, TextIO

import attrs

from fmbpo.base.metrics import seed_label
from fmbpo.base.text import NONE, clock, console, counted, printable
from fmbpo.runs.status import Entry

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 120
"""The table's minimum width in characters."""
MOST = 20
"""A run with more policies has a row per seed, not per task and seed."""


def _seen(entry: Entry) -> str:
    """Ages of the last heartbeat and the last progress; empty without a heartbeat."""
    if entry.beat is None or entry.progress is None:
        return ""
    return f"{_age(entry.beat)}/{_age(entry.progress)}"


def _age(seconds: float) -> str:
    for unit, length in (("s", 1), ("m", 60), ("h", 3600)):
        if seconds < 100 * length:
            return f"{max(seconds, 0.0) / length:.0f}{unit}"
    return f"{seconds / 86_400:.0f}d"


def _progress(entry: Entry) -> str:
    if entry.total is None:
        return ""
    return f"{NONE if entry.iteration is None else entry.iteration}/{entry.total}"


COLUMNS: dict[str, Callable[[Entry], str]] = {
    "phase": lambda e: e.phase,
    "experiment": lambda e: e.experiment,
    "cell": lambda e: e.cell,
    "task": lambda e: e.task,
    "seed": lambda e: "" if e.seed is None else seed_label(e.seed, e.policy),
    "job": lambda e: e.job,
    "hardware": lambda e: e.hardware,
    "scheduler": lambda e: e.scheduler,
    "state": lambda e: e.state,
    "progress": _progress,
    "runtime": lambda e: "" if e.runtime is None else clock(e.runtime),
    "return": lambda e: "" if e.final_return is None else f"{e.final_return:.1f}",
    "beat/work": _seen,
}
"""The entry of each column, by title."""
_OF_THE_RUN = ("phase", "experiment", "cell", "hardware", "scheduler", "runtime", "beat/work")
_RIGHT = ("seed", "progress", "runtime", "return", "beat/work")
_FOLDED = {"experiment": 16, "task": 16, "hardware": 11, "scheduler": 14}
"""The width in characters at which a column's texts wrap."""
_STYLES = {"running": "cyan", "stale": "yellow", "failed": "red", "completed": "green"}


def print_status(entries: Sequence[Entry], stream: TextIO, *, width: int = WIDTH) -> None:
    """Write the table, the number of runs in each state, and each run's reason with its folder.

    The tasks of a run with more than ``MOST`` policies share rows, with the mean of their returns.
    """
    policies = len(entries)
    entries = _joined(list(map(_shown, entries)))
    table = _table(entries)
    # Nothing is cut off: the terminal wraps wider tables.
    printer = console(stream, max(console(stream, 1000).measure(table).maximum, width))
    runs = {entry.folder: entry for entry in entries}
    counts = Counter(entry.state for entry in runs.values())
    printer.print(table)
    printer.print(", ".join(f"{count} {state}" for state, count in counts.items()), soft_wrap=True)
    if len(entries) < policies:
        printer.print("tasks share rows; --json has a row for each", soft_wrap=True)
    for folder, entry in runs.items():
        if entry.reason:
            printer.print(f"{entry.state}: {folder}: {entry.reason}", soft_wrap=True)


def _joined(entries: Sequence[Entry]) -> list[Entry]:
    """The same, but one entry for all tasks of a seed in runs with many policies."""
    found: list[Entry] = []
    for _, run in itertools.groupby(entries, lambda e: e.folder):
        policies = list(run)
        if len(policies) <= MOST:
            found += policies
            continue
        groups: dict[tuple[object, ...], list[Entry]] = {}
        for e in policies:
            groups.setdefault((e.seed, e.policy, e.state, e.iteration, e.total), []).append(e)
        for alike in groups.values():
            returns = [e.final_return for e in alike if e.final_return is not None]
            whole = fmean(returns) if len(returns) == len(alike) else None
            task = counted(len(alike), "task") if len(alike) > 1 else alike[0].task
            found.append(attrs.evolve(alike[0], task=task, final_return=whole))
    return found


def _shown(entry: Entry) -> Entry:
    """The entry with printable texts."""
    values = attrs.asdict(entry).items()
    texts: dict[str, Any] = {key: printable(x) for key, x in values if isinstance(x, str)}
    return attrs.evolve(entry, **texts)


def _table(entries: Sequence[Entry]) -> Table:
    """A row per entry, without empty columns; a run's facts are in its first row only.

    Job and hardware share a column.
    """
    from rich import box
    from rich.table import Table

    folders: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        folders.setdefault((entry.experiment, entry.cell), set()).add(entry.folder)

    def cell(entry: Entry) -> str:
        """With the beginning of the run's hash if several runs have this name."""
        several = len(folders[entry.experiment, entry.cell]) > 1
        return f"{entry.cell}\n#{entry.folder.rpartition('__')[2][:6]}" if several else entry.cell

    texts = {**COLUMNS, "cell": cell}
    texts["hardware"] = lambda e: "\n".join(filter(None, (e.job, e.hardware)))
    del texts["job"]
    used = {name: text for name, text in texts.items() if any(map(text, entries))}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for name in used:
        title = "job, hardware" if name == "hardware" and any(e.job for e in entries) else name
        table.add_column(
            _folded(title, 8), justify="right" if name in _RIGHT else "left", no_wrap=True
        )
    folder = None
    for entry in entries:
        hidden = _OF_THE_RUN if entry.folder == folder else ()
        folder = entry.folder
        cells = [
            "" if name in hidden else _folded(text(entry), _FOLDED.get(name, WIDTH))
            for name, text in used.items()
        ]
        table.add_row(*cells, style=_STYLES.get(entry.state))
    return table


def _folded(text: str, width: int) -> str:
    """Lines of at most ``width`` characters if possible, broken after ``_ - /`` and space."""
    lines = [""]
    for part in re.findall(r"\n|[^_\-/ \n]*[_\-/ ]|[^_\-/ \n]+", text):
        if part == "\n" or (lines[-1] and len(lines[-1]) + len(part.rstrip()) > width):
            lines.append("")
        lines[-1] += part.strip("\n")
    return "\n".join(line.rstrip() for line in lines)


def markdown(entries: Sequence[Entry]) -> str:
    """The table in Markdown: every column, and every entry in every row."""
    columns = dict(COLUMNS)
    columns |= {"reason": lambda e: e.reason, "folder": lambda e: f"`{e.folder}`"}
    rows = [list(columns), ["---"] * len(columns)]
    rows += [[text(entry) for text in columns.values()] for entry in map(_shown, entries)]
    escaped = ([cell.replace("|", r"\|") for cell in row] for row in rows)
    return "".join(f"| {' | '.join(row)} |\n" for row in escaped)
