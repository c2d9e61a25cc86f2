"""A comparison as data: the report only shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

from fmbpo.compare.record import Basis, Cell, Record

OVERALL = ""
"""The task of a number over all tasks."""
UNDECIDED = "no decision"
"""The verdict if an interval contains 0."""


@attrs.frozen
class Estimate:
    """A number and its 95 % interval; both ends are None without an interval (one seed)."""

    value: float
    low: float | None = None
    high: float | None = None


@attrs.frozen
class CellResult:
    """One cell on one task, or over all (``task == OVERALL``).

    ``mean`` and ``iqm`` (interquartile mean) over seeds, in returns (0 to 1000) for one task and
    divided by 1000 over all. ``pwm`` and ``tdmpc2``: the published returns, for all tasks their
    mean; None if they are not published.
    """

    cell: Cell
    task: str
    seeds: Sequence[str]
    values: Sequence[float]
    mean: Estimate
    iqm: Estimate
    pwm: float | None = None
    tdmpc2: float | None = None


@attrs.frozen
class Effect:
    """A contrast between cells on one task, or over all.

    ``name``: for people, e.g. ``"policy: flow - mlp"``. ``difference`` is in the unit of
    ``CellResult.mean``; positive: the level named first is better. ``improvement``: the probability
    that it is better on a task and seed drawn at random (0.5: no difference), None for an
    interaction. ``paired``: by task and seed. ``verdict``: "flow ahead", "mlp ahead" or
    "no decision", from the interval of ``difference`` alone.
    """

    name: str
    kind: Literal["world_model", "policy", "interaction"]
    task: str
    difference: Estimate
    improvement: Estimate | None
    paired: bool
    verdict: str


@attrs.frozen
class Profile:
    """Performance profile of a cell: the share of runs with a score above each threshold."""

    cell: Cell
    thresholds: Sequence[float]
    share: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@attrs.frozen
class Cost:
    """The cost of training a cell: all of its runs, the pretraining of each world model once.

    Returns per cost are of the same runs; each of the cell's tasks counts the same. None if the
    cost is not recorded.
    """

    cell: Cell
    petaflops: float | None
    hours: float | None
    hardware: str
    return_per_petaflop: float | None
    return_per_hour: float | None


@attrs.frozen(kw_only=True)
class Section:
    """Runs that may be compared: one basis, or several if mixing was allowed.

    ``title`` names the basis and the mixed fields. ``tasks``: those that every cell has; only these
    enter overall numbers. All lists are in the order of ``cells``, tasks in the study's order.
    """

    title: str
    bases: Sequence[Basis]
    mixed: Sequence[str]
    records: Sequence[Record]
    cells: Sequence[Cell]
    tasks: Sequence[str]
    results: Sequence[CellResult]
    effects: Sequence[Effect]
    profiles: Sequence[Profile]
    costs: Sequence[Cost]
    model_errors: Mapping[str, Mapping[int, float]]
    """World model's plugin -> horizon -> error."""


@attrs.frozen(kw_only=True)
class Comparison:
    """All sections. ``attention``: warnings to read first, by section title ("": about all
    sections): missing seeds, failed health gates, identical returns, unequal numbers of episodes,
    different budgets."""

    name: str
    sections: Sequence[Section]
    attention: Mapping[str, Sequence[str]]
