"""The table that closes a run: every return beside its baselines and references."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from fmbpo.report.interval import Interval, above, interval_note, planned_sample, sample, t_interval
from fmbpo.runs.findings import by_gate
from fmbpo.runs.summary import Summary, TaskResult

if TYPE_CHECKING:
    from rich.table import Table

_BASELINES = ("random", "untrained")
NONE = "–"
"""The entry for a missing number."""


def run_table(summary: Summary) -> Table:
    """The table of a policy run, tasks in rows; the last row is the mean over tasks.

    The ± is the 95 % t interval over seeds, or over the episodes of a single seed (see
    ``fmbpo.report.interval``). "MPPI", if the run asked for it, is planning in the world model at
    every step; "planner" is the sampling planner that knows the true simulator; "PWM" is the
    published return.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", no_wrap=True)
    more = ["MPPI ± 95 %"] if summary.planning else []
    for column in ("return ± 95 %", *more, "random", "untrained", "planner", "PWM", "of planner"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, task in summary.tasks.items():
        planned = [_planned([task])] if more else []
        table.add_row(name, str(t_interval(sample(task))), *planned, *_references([task]))
    if len(summary.tasks) > 1:
        tasks = list(summary.tasks.values())
        table.add_section()
        columns = [str(mean_over_tasks(tasks)), *([_planned(tasks)] if more else [])]
        table.add_row(f"mean of {len(tasks)}", *columns, *_references(tasks), style="bold")
    return table


def print_run(summary: Summary, stream: TextIO, *, width: int | None = None) -> None:
    """Write the table and the notes under it; in colour if the stream is a terminal."""
    from rich.console import Console

    console = Console(file=stream, width=width, highlight=False, markup=False)
    console.print(_heading(summary), style="bold")
    if summary.tasks:
        console.print(run_table(summary))
    for note in _notes(summary):
        console.print(note)


def _heading(summary: Summary) -> str:
    """Experiment, scale, protocol, conventions and plugins in one line."""
    parts = [
        summary.experiment,
        f"scale {summary.scale}",
        summary.protocol or "pretraining",
        f"conventions {summary.conventions_text}",
        f"world model {summary.world_model.plugin}",
    ]
    if summary.policy:
        parts.append(f"policy {summary.policy.plugin}")
    return " · ".join(parts)


def _notes(summary: Summary) -> list[str]:
    """The intervals' basis, the baselines that are surely surpassed, cost, health warnings."""
    lines = []
    if summary.tasks:
        lines.append(interval_note(summary.tasks.values()))
        if summary.planning:
            lines.append(
                "MPPI: {samples} sequences of {horizon} steps, {iterations} refinements, at every "
                "step; {episodes} episodes per seed.".format(**summary.planning)
            )
        if any(len(task.seeds) < 2 for task in summary.tasks.values()):
            lines.append("One seed: the interval is the evaluation's noise, not the training's.")
        for baseline in _BASELINES:
            lines += _verdict(summary, baseline)
        lines += _cost(summary)
    return [*lines, *(f"WARNING: {text}" for text in by_gate(summary.health))]


def is_above(task: TaskResult, baseline: str) -> bool | None:
    """Whether a task's return is above ``random`` or ``untrained`` beyond the 95 % interval.

    None if the summary does not contain the baseline's episodes.
    """
    returns: tuple[float, ...] | None = getattr(task, f"{baseline}_returns")
    return above(sample(task), returns) if returns else None


def mean_over_tasks(tasks: Sequence[TaskResult]) -> Interval:
    """The mean over tasks, with an interval over seeds if all tasks have the same seeds."""
    names = set(tasks[0].seeds)
    if any(set(task.seeds) != names for task in tasks):
        return Interval(statistics.fmean(task.return_mean for task in tasks), None)
    per_seed = [
        statistics.fmean(task.seeds[name].return_mean for task in tasks) for name in sorted(names)
    ]
    return t_interval(per_seed)


def _planned(tasks: Sequence[TaskResult]) -> str:
    """Planning's return; over several tasks the plain mean."""
    samples = [planned_sample(task) for task in tasks]
    if not all(samples):
        return NONE
    if len(samples) == 1:
        return str(t_interval(samples[0]))
    return f"{statistics.fmean(statistics.fmean(values) for values in samples):.1f}"


def _references(tasks: Sequence[TaskResult]) -> list[str]:
    """The other columns; a mean only if every task has the number."""
    cells = []
    for name in ("random_return_mean", "untrained_return_mean", "reference_return", "pwm_return"):
        values = [getattr(task, name) for task in tasks]
        cells.append(NONE if None in values else f"{statistics.fmean(values):.1f}")
    planner = [task.reference_return for task in tasks if task.reference_return]
    mean = statistics.fmean(task.return_mean for task in tasks)
    whole = len(planner) == len(tasks)
    cells.append(f"{100 * mean / statistics.fmean(planner):.0f} %" if whole else NONE)
    return cells


def _cost(summary: Summary) -> list[str]:
    """The cost of training, and the mean return per cost."""
    petaflop, seconds = summary.training_cost
    if min(petaflop, seconds) <= 0:
        return []
    mean = statistics.fmean(task.return_mean for task in summary.tasks.values())
    return [
        f"Training took {petaflop:.3g} PFLOP and {seconds:.0f} s: a mean return of "
        f"{mean / petaflop:.3g} per PFLOP, {mean / seconds:.3g} per second."
    ]


def _verdict(summary: Summary, baseline: str) -> list[str]:
    found = {name: is_above(task, baseline) for name, task in summary.tasks.items()}
    known = {name: verdict for name, verdict in found.items() if verdict is not None}
    if not known:
        return []
    yes = [name for name, verdict in known.items() if verdict]
    no = [name for name, verdict in known.items() if not verdict]
    text = f"Above {baseline} beyond the 95 % interval: {', '.join(yes) or 'none'}"
    return [f"{text}; not: {', '.join(no)}." if no else f"{text}."]
