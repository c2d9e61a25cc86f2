"""Runs and their comparison as data, which the report shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from fmbpo.config.factors import Factor
from fmbpo.config.registration import Expected
from fmbpo.runs.findings import Finding
from fmbpo.runs.registration import Version
from fmbpo.runs.summary import RealityCheck

OVERALL = ""
"""The task of a number over all tasks."""
UNIT = 1000.0
"""The highest return, by which returns are divided before tasks are averaged."""
UNDECIDED = "undecided"
"""The verdict if a difference may be due to chance."""
NO_VERDICT = "no verdict"
"""The verdict if nothing can tell a difference from chance, as from a single world model."""
PLANNER, RANDOM, CLONED = "planner", "random", "cloned"
"""The names of the returns that a run measures beside its policies'; cloned: behaviour cloning."""
SMALL_SCALES = ("laptop", "mini")
"""Scales with small networks and short training, which replicate no published return."""
EXPLORATORY = "Everything here is exploratory: it tests no registered hypothesis."
"""The sentence of a comparison without registered hypotheses."""
Outcome: TypeAlias = Literal["supported", "contradicted", "equivalent", "undecided"]
"""The verdict on a hypothesis."""
Series: TypeAlias = Sequence[tuple[int, float]]
"""(iteration, value) pairs."""


@attrs.frozen(order=True)
class Cell:
    """A cell of the factorial: a level of each factor, by name.

    A level is a named configuration of a plugin; without a name of its own, it has the plugin's.
    """

    world_model: str
    policy: str

    def __str__(self) -> str:
        return f"{self.world_model} × {self.policy}"


@attrs.frozen
class Basis:
    """The settings that must agree before returns are pooled or ranked; each as text.

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
    """One policy's final evaluation: the mean, and every return and their number if known.

    ``world_model``: the identity of the world model that the policy was trained in, such as a
    digest of its weights. Policies with the same identity met the same world model; an empty one
    says that the policy has its own, as when both are trained from scratch. ``stochastic``: the
    mean with the policy's noise drawn; ``action_noise``: the standard deviation of its actions;
    ``untrained``: the mean return on its task of the run's policies before training; ``reality``:
    its imagined against its real returns.
    """

    mean: float
    returns: tuple[float, ...] = ()
    episodes: int | None = None
    world_model: str = ""
    stochastic: float | None = None
    action_noise: float | None = None
    untrained: float | None = None
    reality: RealityCheck | None = None


@attrs.frozen(kw_only=True)
class Record:
    """One run of policies. ``scores[task][seed]``; ``curves[task][seed]`` during training.

    ``model_errors``: horizon in agent steps -> held-out error of observations, in standard
    deviations. ``gradients[metric][replicate]``: measures of the actor's gradients during training
    (``fmbpo.base.metrics.GRADIENTS``), means over the replicate's policies. ``evaluations``: passes
    through the networks of the world model and of the policy per imagined step. ``petaflops`` and
    ``seconds``: the cost of all training; ``pretraining_*``: the part that pretrained the world
    model, which other runs may share. ``checkpoint``: the world model's origin. ``source``: the
    folder or the imported file. ``videos``: (task, seed) -> file. ``references[name][task]``: other
    returns that the run knows, such as the planner's. ``settings``: all other settings that change
    results, by key path; empty for imported results.
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
    gradients: Mapping[str, Mapping[str, Series]] = attrs.field(factory=dict)
    evaluations: tuple[int, int] | None = None
    petaflops: float | None = None
    seconds: float | None = None
    pretraining_petaflops: float = 0.0
    pretraining_seconds: float = 0.0
    hardware: str = ""
    health: Sequence[Finding] = ()
    videos: Mapping[tuple[str, str], str] = attrs.field(factory=dict)
    references: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict)
    settings: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def policies(self) -> Iterator[tuple[str, str, Score]]:
        """Task, seed and score of every policy."""
        return ((task, seed, x) for task, by in self.scores.items() for seed, x in by.items())

    @property
    def pretrained(self) -> set[str]:
        """The identities of its world models; of those trained from scratch, the run itself."""
        return {score.world_model or self.source for *_, score in self.policies}


@attrs.frozen
class Estimate:
    """A number and its 95 % interval; both ends are None without one (a single replicate)."""

    value: float
    low: float | None = None
    high: float | None = None


@attrs.frozen
class CellResult:
    """One cell on one task, or over all (``task == OVERALL``).

    ``mean`` and ``iqm`` (interquartile mean) over seeds: returns (0 to 1000) on one task, returns
    divided by 1000 over all. ``policies``: their number, and ``world_models`` that of the world
    models they were trained in, 0 if each has its own. ``pwm`` and ``tdmpc2``: published returns or
    their mean, if known.
    """

    cell: Cell
    task: str
    seeds: Sequence[str]
    values: Sequence[float]
    mean: Estimate
    iqm: Estimate
    policies: int
    world_models: int
    pwm: float | None = None
    tdmpc2: float | None = None


@attrs.frozen(kw_only=True)
class Effect:
    """A contrast between cells on one task, or over all.

    ``name``: for example ``"policy: flow - mlp"``. ``levels``: the two levels of the factor that it
    compares; of an interaction those of both factors. ``label``: the name that the study gives it.
    ``difference``, in the unit of
    ``CellResult.mean``, is positive if the level named first is better; its interval takes this
    number alone. ``error`` and ``freedom``: its standard error and Student's degrees of freedom.
    ``p``: two-sided; on a single task after Holm's correction for all tasks. ``improvement``: the
    probability that the level named first is better on a random task and seed, None for an
    interaction. ``paired``: in the same world models. ``verdict``: "flow ahead", "mlp ahead",
    "undecided" or "no verdict". ``scope``: where a verdict holds, if not in general. ``reason``:
    why there is no verdict; without one there is no interval, error or ``p`` either.
    """

    name: str
    kind: Literal["world_model", "policy", "interaction"]
    task: str
    levels: Mapping[Factor, tuple[str, str]] = attrs.field(factory=dict)
    label: str = ""
    difference: Estimate
    error: float | None = None
    freedom: float | None = None
    p: float | None = None
    improvement: Estimate | None
    paired: bool
    verdict: str
    scope: str = ""
    reason: str = ""

    @property
    def note(self) -> str:
        """The scope of the verdict, or the reason why there is none."""
        return self.scope or self.reason


@attrs.frozen
class Failures:
    """Policies of a cell whose return is below a share of the planner's.

    ``policies``: the number on tasks with a planner's return above 0. ``by_task``: the failed ones
    of each task that has any. ``rate``: their share with its exact (Clopper-Pearson) interval,
    which takes policies as independent.
    """

    cell: Cell
    policies: int
    by_task: Mapping[str, int]
    rate: Estimate

    @property
    def failed(self) -> int:
        """The number of failed policies."""
        return sum(self.by_task.values())


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
    """The cost of a cell's training, each pretraining once; None if it is not recorded.

    ``evaluations``: as in ``Record``.
    """

    cell: Cell
    petaflops: float | None
    hours: float | None
    hardware: str
    evaluations: tuple[int, int] | None


@attrs.frozen
class Progress:
    """Mean returns / 1000 over all tasks, at the operations (PFLOP) that a cell had taken.

    Operations cover all its tasks and seeds, and begin with those of the pretraining.
    """

    cell: Cell
    points: Sequence[tuple[float, Estimate]]


@attrs.frozen(kw_only=True)
class Section:
    """Runs that may be compared: one basis, or several if mixing was allowed.

    ``title`` names the basis and the mixed fields. Only ``tasks``, which all cells have, enter
    overall numbers. All lists are in the order of ``cells``, tasks in the study's order.
    ``world_models``: the number of each kind, 0 if every policy has its own. ``references``: as in
    ``Record``, means over the runs.
    """

    title: str
    bases: Sequence[Basis]
    mixed: Sequence[str]
    records: Sequence[Record]
    cells: Sequence[Cell]
    tasks: Sequence[str]
    world_models: Mapping[str, int]
    references: Mapping[str, Mapping[str, float]]
    results: Sequence[CellResult]
    failures: Sequence[Failures]
    effects: Sequence[Effect]
    profiles: Sequence[Profile]
    costs: Sequence[Cost]
    progress: Sequence[Progress] = ()
    model_errors: Mapping[str, Mapping[int, float]]
    """World model's level -> horizon -> error."""
    gradients: Mapping[str, Sequence[Effect]] = attrs.field(factory=dict)
    """Metric -> effects on its logarithm (``fmbpo.compare.gradients``)."""


@attrs.frozen(kw_only=True)
class Hypothesis:
    """A registered hypothesis and its verdict, which ``sentence`` says in words.

    ``contrast``: its title. ``effect``: over the registered tasks; its own ``p`` and verdict have
    no correction. ``p_difference`` and ``p_equivalence``: of both tests, corrected for the number
    of hypotheses. ``development``: the same contrast over the development tasks, None if none was
    run.
    """

    name: str
    contrast: str
    expected: Expected
    outcome: Outcome
    sentence: str
    effect: Effect
    p_difference: float
    p_equivalence: float
    development: Effect | None = None


@attrs.frozen(kw_only=True)
class Registered:
    """A study that was registered: its hypotheses, and the history of its registration.

    ``tasks``: those of the endpoint. ``margin``: of returns / ``UNIT``. ``rules``: how verdicts are
    reached. ``history``: the registration and its amendments, oldest first. ``warnings``: what a
    reader must know first, such as amendments.
    """

    study: str
    hypotheses: Sequence[Hypothesis] = ()
    tasks: Sequence[str] = ()
    development_tasks: Sequence[str] = ()
    margin: float = 0.0
    rules: Sequence[str] = ()
    history: Sequence[Version]
    warnings: Sequence[str] = ()

    @property
    def amendments(self) -> Sequence[Version]:
        """All versions but the first."""
        return self.history[1:]


@attrs.frozen(kw_only=True)
class Comparison:
    """All sections. ``attention``: warnings to read first, by section title ("": all sections).

    ``description``: that of the study, if it is one. ``registered``: the registered studies;
    everything in the sections is exploratory.
    """

    name: str
    description: str = ""
    sections: Sequence[Section]
    attention: Mapping[str, Sequence[str]]
    registered: Sequence[Registered] = ()

    @property
    def hypotheses(self) -> list[Hypothesis]:
        """The hypotheses of all registered studies."""
        return [one for study in self.registered for one in study.hypotheses]
