"""A run as comparisons see it: its returns, and everything that they rest on."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from fmbpo.runs.findings import Finding

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

    @classmethod
    def of(cls, returns: Sequence[float]) -> Score:
        """From the returns of all episodes."""
        return cls(statistics.fmean(returns), tuple(returns), len(returns))


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
