"""What else the final evaluations measured, as readers see it: baselines, noise, imagination."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

from fmbpo.base.text import NONE
from fmbpo.compare.comparison import CLONED, PLANNER, RANDOM, Cell, Score, Section
from fmbpo.reporting.pages.content import Block, Column, Field, Table, words
from fmbpo.runs.summary import RealityCheck


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


def reality(section: Section) -> Block | None:
    """Imagined minus real returns by cell and task, and the models' disagreement; None if no run
    has them."""
    rows = [
        (task, cell, [x.reality for x in _scores(section, cell, task) if x.reality])
        for task in _tasks(section)
        for cell in section.cells
    ]
    rows = [row for row in rows if row[2]]
    if not rows:
        return None

    def column(
        title: str, digits: int, group: str, of: Callable[[RealityCheck], float | None]
    ) -> Column[tuple[str, Cell, list[RealityCheck]]]:
        def field(row: tuple[str, Cell, list[RealityCheck]]) -> Field:
            values = [value for one in row[2] if (value := of(one)) is not None]
            return Field.number(fmean(values), digits) if values else Field(NONE)

        return Column(title, field, group=group)

    def gap(name: str, digits: int, group: str) -> list[Column[Any]]:
        def of(field: str) -> Callable[[RealityCheck], float | None]:
            return lambda one: getattr(getattr(one, name), field, None)

        titles = {"imagined": "imagined", "real": "real", "difference": "difference", "rms": "RMS"}
        return [column(title, digits, group, of(field)) for field, title in titles.items()]

    columns: list[Column[Any]] = [
        words("task", lambda row: row[0]),
        words("cell", lambda row: str(row[1])),
        *gap("episode", 1, "whole episode, with the critic"),
        *gap("horizon", 2, "rewards over the horizon"),
        column("disagreement", 2, "world models", lambda one: one.disagreement),
        column("rank correlation", 2, "world models", lambda one: one.rank_correlation),
    ]
    notes = [
        "Discounted returns; means over policies. Difference: imagined minus real. RMS: root mean "
        "square of the differences of single starts.",
        "Disagreement: standard deviation over the replicates' world models of the rewards that "
        "they predict for the actions that the policy imagined. Rank correlation: Spearman's, of "
        "the disagreement and the absolute difference over the horizon.",
    ]
    if all(one.disagreement is None for *_, found in rows for one in found):
        notes.append(f"{NONE}: with one world model of a kind there is no disagreement.")
    elif any(one.rank_correlation is None for *_, found in rows for one in found):
        notes.append(f"{NONE}: one world model, or a quantity that is constant.")
    table = Table("Imagined minus real return", columns, rows, notes)
    return Block(title="Reality check", tables=[table])


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
