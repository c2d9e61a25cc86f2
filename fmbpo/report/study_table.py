"""The table that closes a study: its cells side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from fmbpo.report.interval import interval_note, planned_sample, sample, t_interval
from fmbpo.report.run_table import NONE, mean_over_tasks
from fmbpo.runs.findings import Finding, by_gate
from fmbpo.runs.metrics import (
    REAL_REWARD_STD,
    REWARD_R2,
    REWARD_STD,
    SCORE,
    TITLES,
    after,
    before,
)
from fmbpo.runs.summary import Summary, TaskResult

if TYPE_CHECKING:
    from rich.table import Table

_MEASURES = (REWARD_R2, REWARD_STD, REAL_REWARD_STD, SCORE)
_COSTS = ("training, PFLOP", "training, seconds", "mean return per PFLOP", "mean return per second")


def study_table(summaries: Mapping[str, Summary]) -> Table:
    """Cells in columns; in rows their returns by task (± 95 % t interval), with and without MPPI,
    the world models' held-out measures (before -> after if they learned beside the policies), the
    cost of training, and the number of failed health gates. A row without a number is left out.
    """
    from rich import box
    from rich.table import Table

    every = list(summaries.values())
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in summaries:
        table.add_column(name, justify="right", no_wrap=True)

    def row(title: str, values: Sequence[str], style: str = "") -> None:
        if any(value != NONE for value in values):
            table.add_row(title, *values, style=style)

    row("protocol", [s.protocol or "pretraining" for s in every])
    for task in dict.fromkeys(task for s in every for task in s.tasks):
        row(f"return, {task}", [_return(s, task, sample) for s in every])
        row(f"  with MPPI, {task}", [_return(s, task, planned_sample) for s in every])
    shared = [t for t in every[0].tasks if all(t in s.tasks for s in every)]
    if len(shared) > 1:
        means = [str(mean_over_tasks([s.tasks[t] for t in shared])) for s in every]
        row(f"return, mean of {len(shared)}", means, "bold")
    table.add_section()
    for measure in _MEASURES:
        row(TITLES[measure], [_measure(summary, measure) for summary in every])
    table.add_section()
    for title, *costs in zip(_COSTS, *map(_cost, every), strict=True):
        row(title, costs)
    row("health gates failed", [str(len({f.gate for f in s.health})) for s in every])
    return table


def _return(summary: Summary, task: str, of: Callable[[TaskResult], Sequence[float]]) -> str:
    values = of(summary.tasks[task]) if task in summary.tasks else []
    return str(t_interval(values)) if values else NONE


def _measure(summary: Summary, name: str) -> str:
    found = summary.wm_validation
    values = [found[key] for key in (before(name), after(name)) if key in found]
    if not values and name in found:
        values = [found[name]]
    return " -> ".join(f"{value:.3f}" for value in values) or NONE


def _cost(summary: Summary) -> list[str]:
    """The entries in the order of ``_COSTS``."""
    petaflop, seconds = summary.training_cost
    texts = [f"{petaflop:.3g}", f"{seconds:.0f}"]
    if not summary.tasks or min(petaflop, seconds) <= 0:
        return [*texts, NONE, NONE]
    mean = mean_over_tasks(list(summary.tasks.values())).mean
    return [*texts, f"{mean / petaflop:.3g}", f"{mean / seconds:.3g}"]


def print_study(
    summaries: Mapping[str, Summary],
    findings: Sequence[Finding],
    stream: TextIO,
    *,
    width: int | None = None,
) -> None:
    """Write the table, then each cell's failed health gates, then ``findings`` about all cells."""
    from rich.console import Console

    console = Console(file=stream, width=width, highlight=False, markup=False)
    console.print(study_table(summaries))
    tasks = [task for summary in summaries.values() for task in summary.tasks.values()]
    if tasks:
        console.print(interval_note(tasks))
    for name, summary in summaries.items():
        for text in by_gate(summary.health):
            console.print(f"WARNING, {name}: {text}")
    for text in by_gate(findings):
        console.print(f"WARNING: {text}")
