"""Cells of a study side by side: one picture of their curves, one table of their results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import attrs

from fmbpo.report.curves import Series, columns_of, mean_series
from fmbpo.report.interval import sample, t_interval
from fmbpo.report.page import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Heading,
    add_legend,
    new_page,
    save,
)
from fmbpo.report.table import mean_over_tasks
from fmbpo.runs.findings import by_gate
from fmbpo.runs.summary import Summary

if TYPE_CHECKING:
    from rich.table import Table

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY)
_DASHES = ("-", "--", "-.", ":")
_MEASURES = {
    "reward_r2": "held-out reward R²",
    "reward_std": "spread of the decoded reward",
    "real_reward_std": "spread of the real reward",
    "score": "held-out score (lower is better)",
}


@attrs.frozen
class Variant:
    """One cell of the study in one panel: a curve a seed."""

    seeds: Mapping[str, Series]


@attrs.frozen
class Panel:
    """Variants by name, and what the real thing would be (empty: not known)."""

    variants: Mapping[str, Variant]
    real: Series = ()


def side_by_side(
    path: Path,
    heading: Heading,
    panels: Mapping[str, Panel],
    *,
    columns: int,
) -> None:
    """One panel for each title: every variant's mean over seeds, and its seeds as thin lines.

    Raises ``ValueError`` without panels, ``UserError`` when ``path`` cannot be written.
    """
    if not panels:
        raise ValueError("nothing to draw")
    figure, axes = new_page(heading, len(panels), columns, width=4.2)
    handles: dict[str, Any] = {}
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        for place, (name, variant) in enumerate(panel.variants.items()):
            colour = _COLOURS[place % len(_COLOURS)]
            dash = _DASHES[place // len(_COLOURS) % len(_DASHES)]
            for series in variant.seeds.values():
                axis.plot(*columns_of(series), color=colour, lw=0.8, ls=dash, alpha=0.5)
            if variant.seeds:
                mean = mean_series(list(variant.seeds.values()))
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
    """Cells in columns: returns (± 95 % t interval over seeds) by task, then the world models'
    held-out measures, before -> after where they learned, and the number of failed gates."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in summaries:
        table.add_column(name, justify="right", no_wrap=True)
    tasks = dict.fromkeys(task for summary in summaries.values() for task in summary.tasks)
    for task in tasks:
        cells = [
            str(t_interval(sample(s.tasks[task]))) if task in s.tasks else "–"
            for s in summaries.values()
        ]
        table.add_row(f"return, {task}", *cells)
    if len(tasks) > 1:
        means = [str(mean_over_tasks(list(s.tasks.values()))) for s in summaries.values()]
        table.add_row(f"return, mean of {len(tasks)}", *means, style="bold")
    table.add_section()
    for measure, title in _MEASURES.items():
        cells = [_measure(summary, measure) for summary in summaries.values()]
        if any(cell != "–" for cell in cells):
            table.add_row(title, *cells)
    counts = [len({f.gate for f in summary.health}) for summary in summaries.values()]
    table.add_row("health gates failed", *(str(count) for count in counts))
    return table


def _measure(summary: Summary, name: str) -> str:
    found = summary.wm_validation
    values = [found[key] for key in (f"before_{name}", f"after_{name}") if key in found]
    if not values and name in found:
        values = [found[name]]
    return " -> ".join(f"{value:.3f}" for value in values) or "–"


def print_comparison(
    summaries: Mapping[str, Summary], stream: TextIO, *, width: int | None = None
) -> None:
    """Write the table, and under it what is wrong with each cell."""
    from rich.console import Console

    console = Console(file=stream, width=width, highlight=False, markup=False)
    console.print(comparison_table(summaries))
    for name, summary in summaries.items():
        for text in by_gate(summary.health):
            console.print(f"WARNING, {name}: {text}")
