"""What else the final evaluations measured, as readers see it: noise."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from fmbpo.base.text import NONE
from fmbpo.compare.comparison import Cell, Score, Section
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


def _mean(
    section: Section, cell: Cell, title: str, digits: int, of: Callable[[Score], float | None]
) -> Column[str]:
    """The mean over a cell's policies; ``NONE`` unless all have the number."""

    def field(task: str) -> Field:
        values = [of(score) for score in _scores(section, cell, task)]
        known = [value for value in values if value is not None]
        whole = values and len(known) == len(values)
        return Field.number(fmean(known), digits) if whole else Field(NONE)

    return Column(title, field, group=str(cell))


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
