"""The tables at the end of a run and of a study: returns with their baselines and references."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from fmbpo.base import metrics
from fmbpo.base.text import NONE, console
from fmbpo.reporting.interval import (
    Interval,
    above,
    independent,
    interval_note,
    planned_sample,
    sample,
    stochastic_sample,
    t_interval,
)
from fmbpo.runs.findings import Finding, by_gate
from fmbpo.runs.summary import Summary, TaskResult

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_MEASURES = (metrics.REWARD_R2, metrics.REWARD_STD, metrics.REAL_REWARD_STD, metrics.SCORE)
_COSTS = (
    "training, PFLOP",
    "training, seconds",
    "network evaluations per step, world model",
    "network evaluations per step, policy",
)
_BASELINES = {"random": "random", "untrained": "untrained", "cloned": "behaviour cloning"}
_REFERENCES = {
    "random_return_mean": "random",
    "untrained_return_mean": "untrained",
    "cloned_return_mean": "cloned",
    "reference_return": "planner",
    "pwm_return": "PWM",
}
"""A task's numbers to compare with, and their titles."""


def print_run(summary: Summary, stream: TextIO, *, width: int | None = None) -> None:
    """Write a run's table and the notes under it; in colour if the stream is a terminal.

    Tasks are rows; the last row is the mean over tasks. See ``fmbpo.reporting.interval`` for the ±.
    "MPPI", if the run asked for it, is planning in the world model at every step; "cloned" is
    behaviour cloning on the same data; "planner" is the sampling planner that knows the true
    simulator; "PWM" is the published return.
    """
    from rich.text import Text

    table = [_run_table(summary)] if summary.tasks else []
    _print(stream, width, [Text(_heading(summary), style="bold"), *table, *_notes(summary)])


def print_study(
    summaries: Mapping[str, Summary],
    findings: Sequence[Finding],
    stream: TextIO,
    *,
    width: int | None = None,
) -> None:
    """Write a study's table, then each cell's failed health gates and ``findings`` about all cells.

    Cells are columns; rows are their returns by task (± 95 % t interval), with and without MPPI,
    the world models' held-out measures (before -> after if they learned beside the policies), the
    cost of training, and the number of failed health gates. Rows without numbers are left out. A
    second table has the baselines and references of each task; "untrained" is the mean over cells.
    """
    tasks = [task for summary in summaries.values() for task in summary.tasks.values()]
    warnings = {name: by_gate(summary.health) for name, summary in summaries.items()}
    notes = [
        *([interval_note(tasks)] if tasks else []),
        *(f"WARNING, {name}: {text}" for name, texts in warnings.items() for text in texts),
        *(f"WARNING: {text}" for text in by_gate(findings)),
    ]
    references = [_references_table(summaries)] if tasks else []
    _print(stream, width, [_study_table(summaries), *references, *notes])


def _print(stream: TextIO, width: int | None, parts: Iterable[RenderableType]) -> None:
    printer = console(stream, width)
    for part in parts:
        printer.print(part)


def _table(first: str, columns: Iterable[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _run_table(summary: Summary) -> Table:
    planning = ["MPPI ± 95 %"] if summary.planning else []
    tasks = list(summary.tasks.values())
    # Tasks of one's own have no reference returns.
    scored = any(task.pwm_return or task.reference_return for task in tasks)
    names = [*_REFERENCES.values(), "of planner"] if scored else list(_BASELINES)
    table = _table("task", ("return ± 95 %", *planning, *names))

    def references(tasks: Sequence[TaskResult]) -> list[str]:
        return [*_references(tasks), _share(tasks)][: len(names)]

    for name, task in summary.tasks.items():
        planned = [_mean(planned_sample(task))] if planning else []
        table.add_row(name, _mean(sample(task)), *planned, *references([task]))
    if len(tasks) > 1:
        table.add_section()
        returns = [str(mean_over_tasks(tasks)), *([_planned(tasks)] if planning else [])]
        table.add_row(f"mean of {len(tasks)}", *returns, *references(tasks), style="bold")
    return table


def _study_table(summaries: Mapping[str, Summary]) -> Table:
    every = list(summaries.values())
    table = _table("", summaries)

    def row(title: str, values: Sequence[str], style: str = "") -> None:
        if any(value != NONE for value in values):
            table.add_row(title, *values, style=style)

    row("protocol", [s.protocol or "pretraining" for s in every])
    for task in dict.fromkeys(task for s in every for task in s.tasks):
        found = [s.tasks.get(task) for s in every]
        row(f"return, {task}", [_mean(sample(x)) if x else NONE for x in found])
        row(f"  with MPPI, {task}", [_mean(planned_sample(x)) if x else NONE for x in found])
        row(f"  with noise, {task}", [_mean(stochastic_sample(x)) if x else NONE for x in found])
    shared = _shared(every)
    if len(shared) > 1:
        means = [str(mean_over_tasks([s.tasks[t] for t in shared])) for s in every]
        row(f"return, mean of {len(shared)}", means, "bold")
    table.add_section()
    row("noise of the actions", [_text(action_noise(s), ".3f") for s in every])
    for measure in _MEASURES:
        row(metrics.TITLES[measure], [_measure(summary, measure) for summary in every])
    table.add_section()
    for title, *costs in zip(_COSTS, *map(_cost, every), strict=True):
        row(title, costs)
    row("health gates failed", [str(len({f.gate for f in s.health})) for s in every])
    return table


def _references_table(summaries: Mapping[str, Summary]) -> Table:
    """By task: means over the cells that know the number."""
    table = _table("to compare with", _REFERENCES.values())
    by_task: dict[str, list[TaskResult]] = {}
    for summary in summaries.values():
        for name, task in summary.tasks.items():
            by_task.setdefault(name, []).append(task)
    found = {
        name: [_known_mean([getattr(task, of) for task in tasks]) for of in _REFERENCES]
        for name, tasks in by_task.items()
    }
    for name, values in found.items():
        table.add_row(name, *(_text(value, ".1f") for value in values))
    shared = _shared(list(summaries.values()))
    if len(shared) > 1:
        table.add_section()
        columns = zip(*(found[name] for name in shared), strict=True)
        means = [_text(_whole_mean(values), ".1f") for values in columns]
        table.add_row(f"mean of {len(shared)}", *means, style="bold")
    return table


def _shared(summaries: Sequence[Summary]) -> list[str]:
    """The tasks that every run has."""
    return [t for t in summaries[0].tasks if all(t in s.tasks for s in summaries)]


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _whole_mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else _known_mean(values)


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
    """The intervals' basis, the baselines that are surpassed, the cost, health warnings."""
    lines = []
    if summary.tasks:
        lines.append(interval_note(summary.tasks.values()))
        if summary.planning:
            lines.append(
                "MPPI: {samples} sequences of {horizon} steps, {iterations} refinements, at every "
                "step; {episodes} episodes per seed.".format(**summary.planning)
            )
        lines += [*_noise(summary), *_reality(summary)]
        shared = summary.world_model.checkpoint is not None
        if shared and any(len(task.seeds) > 1 for task in summary.tasks.values()):
            lines.append("All policies were trained in one world model: others may differ from it.")
        if any(len(task.seeds) < 2 for task in summary.tasks.values()):
            lines.append("One seed: the interval covers the noise of evaluation, not of training.")
        for baseline, name in _BASELINES.items():
            lines += _verdict(summary, baseline, name)
        petaflop, seconds, model, policy = _cost(summary)
        lines.append(
            f"Training took {petaflop} PFLOP and {seconds} s. Network evaluations per step: "
            f"world model {model}, policy {policy}."
        )
    return [*lines, *(f"WARNING: {text}" for text in by_gate(summary.health))]


def is_above(task: TaskResult, baseline: str) -> bool | None:
    """Whether a task is ``above`` its baseline random, untrained or cloned; None without its
    episodes."""
    returns: tuple[float, ...] | None = getattr(task, f"{baseline}_returns")
    return above(sample(task), returns) if returns else None


def mean_over_tasks(tasks: Sequence[TaskResult]) -> Interval:
    """The mean over tasks, with an interval over replicates (of one, over its policies) if all
    tasks have the same seeds."""
    names = set(tasks[0].seeds)
    if any(set(task.seeds) != names for task in tasks):
        return Interval(statistics.fmean(task.return_mean for task in tasks), None)
    means = {
        name: statistics.fmean(task.seeds[name].return_mean for task in tasks)
        for name in sorted(names)
    }
    return t_interval(independent(means))


def action_noise(summary: Summary) -> float | None:
    """The standard deviation of the actions over the policies' noise: mean over the policies."""
    found = [x.action_noise for task in summary.tasks.values() for x in task.seeds.values()]
    known = [noise for noise in found if noise is not None]
    return statistics.fmean(known) if found and len(known) == len(found) else None


def _noise(summary: Summary) -> list[str]:
    tasks = list(summary.tasks.values())
    drawn, noise = _over_tasks(tasks, stochastic_sample), action_noise(summary)
    if drawn is None or noise is None:
        return []
    mean = statistics.fmean(task.return_mean for task in tasks)
    of = f", mean of {len(tasks)} tasks" if len(tasks) > 1 else ""
    return [
        f"With the policies' noise drawn, the return is {drawn:.1f} instead of {mean:.1f}{of}; "
        f"the standard deviation of their actions is {noise:.2f}."
    ]


def _reality(summary: Summary) -> list[str]:
    """Imagined minus real returns, means over the policies."""
    checks = [x.reality for task in summary.tasks.values() for x in task.seeds.values()]
    known = [one for one in checks if one is not None]
    if not known:
        return []
    gap = statistics.fmean(one.episode.difference for one in known)
    text = f"Imagined minus real return, discounted: {gap:+.1f} over the episode"
    ahead = [one.horizon.difference for one in known if one.horizon]
    if ahead:
        text += f", {statistics.fmean(ahead):+.2f} over the horizon"
    correlations = [x.rank_correlation for x in known if x.rank_correlation is not None]
    if correlations:
        mean = statistics.fmean(correlations)
        return [f"{text}; rank correlation of its size with the models' disagreement: {mean:.2f}."]
    several = any(one.disagreement is not None for one in known)
    return [f"{text}." if several else f"{text}; no disagreement, as there is one world model."]


def _over_tasks(
    tasks: Sequence[TaskResult], of: Callable[[TaskResult], list[float]]
) -> float | None:
    """The mean of a sample over tasks; None unless every task has one."""
    samples = [of(task) for task in tasks]
    return statistics.fmean(map(statistics.fmean, samples)) if all(samples) else None


def _planned(tasks: Sequence[TaskResult]) -> str:
    """The mean return with planning."""
    return _text(_over_tasks(tasks, planned_sample), ".1f")


def _text(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def _references(tasks: Sequence[TaskResult]) -> list[str]:
    """The columns ``_REFERENCES``; a mean only if every task has the number."""
    return [_text(_whole_mean([getattr(task, of) for task in tasks]), ".1f") for of in _REFERENCES]


def _share(tasks: Sequence[TaskResult]) -> str:
    """The mean return as a share of the planner's."""
    planner = [task.reference_return for task in tasks if task.reference_return]
    mean = statistics.fmean(task.return_mean for task in tasks)
    whole = len(planner) == len(tasks)
    return f"{100 * mean / statistics.fmean(planner):.0f} %" if whole else NONE


def _verdict(summary: Summary, baseline: str, title: str) -> list[str]:
    found = {name: is_above(task, baseline) for name, task in summary.tasks.items()}
    yes, no = ([name for name, x in found.items() if x is wanted] for wanted in (True, False))
    if not yes and not no:
        return []
    text = f"Above {title} beyond the 95 % interval: {', '.join(yes) or 'none'}"
    return [f"{text}; not: {', '.join(no)}." if no else f"{text}."]


def _mean(values: Sequence[float]) -> str:
    return str(t_interval(values)) if values else NONE


def _measure(summary: Summary, name: str) -> str:
    found = summary.wm_validation
    values = [found[key] for key in (metrics.before(name), metrics.after(name)) if key in found]
    if not values and name in found:
        values = [found[name]]
    return " -> ".join(f"{value:.3f}" for value in values) or NONE


def _cost(summary: Summary) -> list[str]:
    """The entries in the order of ``_COSTS``."""
    petaflop, seconds = summary.training_cost
    parts = (summary.world_model, summary.policy)
    evaluations = [str(part.evaluations) if part else NONE for part in parts]
    return [f"{petaflop:.3g}", f"{seconds:.0f}", *evaluations]
