"""What else the final evaluations measured, as readers see it: baselines, noise."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from fmbpo.base.text import NONE
from fmbpo.compare.comparison import CLONED, PLANNER, RANDOM, Cell, Score, Section
from fmbpo.reporting.pages.content import Column, Field, Table, words


def noise(section: Section) -> list[Table]:
    """Returns with and without the policies' noise, and the noise of the actions, by task and
    cell; no table if none was measured."""
    columns: list[Column[str]] = [
        words("task", str),
        *(
            column
            for cell in section.cells
            for column in (
                _mean(section, cell, "deterministic", 1, lambda score: score.mean),
                _mean(section, cell, "with noise", 1, lambda score: score.stochastic),
                _mean(section, cell, "noise of the action", 3, lambda score: score.action_noise),
            )
        ),
    ]
    notes = [
        "Means over policies. With noise: the same episodes with the policy's noise drawn. Noise "
        "of the action: its standard deviation over draws of noise, root mean square over states "
        "of the episodes and the action's dimensions."
    ]
    table = Table("Returns with the policies' noise", columns, _tasks(section), notes)
    known = any(score.stochastic is not None for score in _scores(section))
    return [table] if known else []


def baselines(section: Section) -> list[Table]:
    """Returns of the policies to compare with, by task; no table if none was measured."""

    def column(title: str, name: str) -> Column[str]:
        by_task = section.references.get(name, {})
        return Column(title, lambda task: Field.number(by_task.get(task), 1))

    def untrained(cell: Cell) -> Column[str]:
        return _mean(section, cell, str(cell), 1, lambda score: score.untrained, "untrained")

    columns: list[Column[str]] = [
        words("task", str),
        column("random", RANDOM),
        *map(untrained, section.cells),
        column("behaviour cloning", CLONED),
        column("planner", PLANNER),
    ]
    notes = [
        "Behaviour cloning: one network per task that imitates the actions of the same data. "
        "Planner: the one that collected the data; it knows the simulator."
    ]
    table = Table("Returns to compare with", columns, _tasks(section), notes)
    return [table] if section.references else []


def _mean(
    section: Section,
    cell: Cell,
    title: str,
    digits: int,
    of: Callable[[Score], float | None],
    group: str = "",
) -> Column[str]:
    """The mean over a cell's policies; ``NONE`` unless all have the number."""

    def field(task: str) -> Field:
        values = [of(score) for score in _scores(section, cell, task)]
        known = [value for value in values if value is not None]
        whole = values and len(known) == len(values)
        return Field.number(fmean(known), digits) if whole else Field(NONE)

    return Column(title, field, group=group or str(cell))


def _scores(section: Section, cell: Cell | None = None, task: str | None = None) -> list[Score]:
    return [
        score
        for record in section.records
        if cell in (None, record.cell)
        for name, _, score in record.policies
        if task in (None, name)
    ]


def _tasks(section: Section) -> list[str]:
    return list(dict.fromkeys(task for record in section.records for task in record.scores))
