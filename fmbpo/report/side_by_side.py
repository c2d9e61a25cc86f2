"""Cells of a study side by side: one picture of their curves, one table of their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import attrs

from fmbpo.report.canvas import (
    COLOURS,
    DASHES,
    GREY,
    Heading,
    add_legend,
    new_page,
    save,
)
from fmbpo.report.curves import Series, columns_of, mean_series
from fmbpo.report.interval import basis, planned_sample, sample, t_interval
from fmbpo.report.table import NONE, mean_over_tasks
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
_COSTS = ("training, PFLOP", "training, seconds", "mean return a PFLOP", "mean return a second")


@attrs.frozen
class Panel:
    """A curve a seed of each cell, and what the real thing would be (empty: not known)."""

    cells: Mapping[str, Mapping[str, Series]]
    real: Series = ()


def side_by_side(
    path: Path,
    heading: Heading,
    panels: Mapping[str, Panel],
    *,
    columns: int,
) -> None:
    """One panel for each title: every cell's mean over seeds, and its seeds as thin lines.

    Raises ``ValueError`` without panels, ``UserError`` when ``path`` cannot be written.
    """
    if not panels:
        raise ValueError("nothing to draw")
    figure, axes = new_page(heading, len(panels), columns, width=4.2)
    handles: dict[str, Any] = {}
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        for place, (name, seeds) in enumerate(panel.cells.items()):
            turn, which = divmod(place, len(COLOURS))
            colour, dash = COLOURS[which], DASHES[turn % len(DASHES)]
            for series in seeds.values() if len(seeds) > 1 else ():
                axis.plot(*columns_of(series), color=colour, lw=0.8, ls=dash, alpha=0.5)
            if seeds:
                mean = mean_series(list(seeds.values()))
                line = axis.plot(*columns_of(mean), color=colour, lw=2.2, ls=dash)
                handles.setdefault(name, line[0])
        if panel.real:
            line = axis.plot(*columns_of(panel.real), color=GREY, lw=1.4, ls=":")
            handles.setdefault("real reward", line[0])
        axis.axhline(0.0, color="#B0B0B0", lw=0.8)
        axis.set_title(title, fontsize=10.5)
        axis.set_xlabel("iteration")
    add_legend(figure, handles)
    save(figure, path)


def comparison_table(summaries: Mapping[str, Summary]) -> Table:
    """Cells in columns: returns (± 95 % t interval) by task, planned ones too; the world models'
    held-out measures, before -> after where they learned; cost; the number of failed gates."""
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
    for place, title in enumerate(_COSTS):
        row(title, [_cost(summary)[place] for summary in every])
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
    """As ``_COSTS`` names them."""
    petaflop, seconds = summary.training_cost
    texts = [f"{petaflop:.3g}", f"{seconds:.0f}"]
    if not summary.tasks or min(petaflop, seconds) <= 0:
        return [*texts, NONE, NONE]
    mean = mean_over_tasks(list(summary.tasks.values())).mean
    return [*texts, f"{mean / petaflop:.3g}", f"{mean / seconds:.3g}"]


def print_comparison(
    summaries: Mapping[str, Summary],
    findings: Sequence[Finding],
    stream: TextIO,
    *,
    width: int | None = None,
) -> None:
    """Write the table, and under it what is wrong with each cell, and with all together."""
    from rich.console import Console

    console = Console(file=stream, width=width, highlight=False, markup=False)
    console.print(comparison_table(summaries))
    tasks = [task for summary in summaries.values() for task in summary.tasks.values()]
    if tasks:
        bases = " / ".join(sorted({basis(task) for task in tasks}))
        console.print(f"±: 95 % t interval over {bases}.")
    for name, summary in summaries.items():
        for text in by_gate(summary.health):
            console.print(f"WARNING, {name}: {text}")
    for text in by_gate(findings):
        console.print(f"WARNING: {text}")
