"""Runs, and their comparison, as data: the report only shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from fmbpo.runs.findings import Finding

OVERALL = ""
"""The task of a number over all tasks."""
UNDECIDED = "no decision"
"""The verdict if an interval contains 0."""
Series: TypeAlias = Sequence[tuple[int, float]]
"""(iteration, value) pairs."""


@attrs.frozen(order=True)
class Cell:
    """A cell of the factorial; plugins by name."""

    world_model: str
    policy: str

    def __str__(self) -> str:
        return f"{self.world_model} × {self.policy}"


@attrs.frozen
class Basis:
    """The settings that must agree before returns are pooled or ranked; each a line for readers.

    ``protocol``: frozen, finetuned or scratch. ``conventions``: the bundle, or every option.
    ``scale``: paper, laptop, ... ``data``: the data set's id. ``evaluation``: episodes and the seed
    of their initial states. ``budget``: updates x batch x horizon, of policies and pretraining.
    """

    protocol: str
    conventions: str
    scale: str
    data: str
    evaluation: str
    budget: str


@attrs.frozen
class Score:
    """One policy's final evaluation: the mean return, and the return of every episode if known.

    ``episodes`` is None if the source of an imported number does not give it.
    """

    mean: float
    returns: tuple[float, ...] = ()
    episodes: int | None = None


@attrs.frozen(kw_only=True)
class Record:
    """One run of policies. ``scores[task][seed]``; ``curves[task][seed]`` during training.

    ``model_errors``: horizon in agent steps -> held-out error of observations, in standard
    deviations. ``petaflops`` and ``seconds``: the cost of all training; ``pretraining_petaflops``
    and ``pretraining_seconds``: the part of it that pretrained the run's world model, which other
    runs may share; ``hardware``: the machine's device. ``checkpoint``: where the world model came
    from. ``seeds_ordered``: whether seeds of the same name in two runs are the same seeds, so that
    they may be paired. ``source``: the folder or the imported file. ``videos``: (task, seed) ->
    file. ``settings``: every other setting that changes results, by key path; empty for imported
    results.
    """

    name: str
    source: str
    experiment: str
    phase: str
    cell: Cell
    basis: Basis
    checkpoint: str
    scores: Mapping[str, Mapping[str, Score]]
    curves: Mapping[str, Mapping[str, Series]] = attrs.field(factory=dict)
    model_errors: Mapping[int, float] = attrs.field(factory=dict)
    petaflops: float | None = None
    seconds: float | None = None
    pretraining_petaflops: float = 0.0
    pretraining_seconds: float = 0.0
    hardware: str = ""
    health: Sequence[Finding] = ()
    seeds_ordered: bool = True
    videos: Mapping[tuple[str, str], str] = attrs.field(factory=dict)
    settings: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def policies(self) -> Iterator[tuple[str, str, Score]]:
        """Task, seed and score of every policy."""
        return ((task, seed, x) for task, by in self.scores.items() for seed, x in by.items())

    @property
    def pretrained(self) -> str:
        """The identity of the pretrained world model, wherever its files lie.

        A run that does not record it has a world model of its own.
        """
        return str(self.settings.get("world_model_weights") or self.checkpoint or self.source)


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
