"""``summary.json``: the results of a run. The classes here are its schema.

Returns are sums of the environment's rewards over an episode (0 to 1000 in DeepMind control).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import attrs

from fmbpo.base.files import read_object
from fmbpo.base.structure import IF_KNOWN, Problems, agree, derived, plain, structure
from fmbpo.errors import UserError
from fmbpo.runs.findings import Finding
from fmbpo.runs.folder import RunFolder

Protocol: TypeAlias = Literal["frozen", "finetuned", "scratch"]
Numbers: TypeAlias = int | float | dict[str, int | float]
"""One number, or numbers by part of the run."""


def _returns(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(map(float, values))


def _measured(_: Any, field: attrs.Attribute[Any], value: Any) -> None:
    numbers = value if isinstance(value, tuple) else () if value is None else (value,)
    if value == ():
        raise ValueError("a seed without episodes has no result")
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{field.name} has a value that is not a finite number")


def _optional(kw_only: bool = True, **options: Any) -> Any:
    return attrs.field(default=None, validator=_measured, kw_only=kw_only, **options)


def _mean_of(name: str) -> Any:
    """A field with the mean of the returns in another field; None without them."""

    def mean(result: Any) -> float | None:
        returns = getattr(result, name)
        return statistics.fmean(returns) if returns else None

    def check(result: Any, field: attrs.Attribute[Any], value: float | None) -> None:
        wanted = mean(result)
        known = value is not None and wanted is not None
        if not (agree(value or 0.0, wanted or 0.0) if known else value is wanted):
            raise ValueError(f"{field.name} {value} is not the mean of {name}")

    default = attrs.Factory(mean, takes_self=True)
    return attrs.field(default=default, validator=check, kw_only=True, metadata=IF_KNOWN)


@derived("difference")
@attrs.frozen
class Gap:
    """Imagined and real discounted returns from a number of ``starts``: their means, and the root
    mean square of imagined minus real."""

    imagined: float = attrs.field(validator=_measured)
    real: float = attrs.field(validator=_measured)
    rms: float = attrs.field(validator=_measured)
    starts: int

    @property
    def difference(self) -> float:
        """Imagined minus real."""
        return self.imagined - self.real


@attrs.frozen
class RealityCheck:
    """A policy's imagined against its real returns (``fmbpo.measure.reality`` defines them).

    ``episode``: from the initial states, to the end of the episode and with the critic's value.
    ``horizon``: the rewards over the horizon of imagination, from states spread over the episodes;
    None if these are shorter. ``disagreement``: of the replicates' world models over the horizon,
    root mean square over the starts; None with one world model. ``rank_correlation``: Spearman's,
    of the disagreement and the absolute error over the horizon; None also if one is constant.
    """

    episode: Gap
    horizon: Gap | None = attrs.field(default=None, metadata=IF_KNOWN)
    disagreement: float | None = _optional(kw_only=False, metadata=IF_KNOWN)
    rank_correlation: float | None = _optional(kw_only=False, metadata=IF_KNOWN)


@derived("return_mean", "return_std", "episodes")
@attrs.frozen
class SeedResult:
    """The final evaluation of one seed: the return of every episode of the deterministic policy.

    ``planned_returns``: those of planning in the world model at every step, if requested.
    ``stochastic_returns``: those of the same episodes with the policy's noise drawn.
    ``action_noise``: the standard deviation of the actions over that noise, root mean square over
    states of the deterministic episodes and the action's dimensions. ``reality``: imagined minus
    real returns; None if the policy imagines something that is not finite.
    """

    returns: tuple[float, ...] = attrs.field(converter=_returns, validator=_measured)
    planned_returns: tuple[float, ...] | None = _optional(
        kw_only=False, converter=_returns, metadata=IF_KNOWN
    )
    stochastic_returns: tuple[float, ...] | None = _optional(converter=_returns, metadata=IF_KNOWN)
    stochastic_return_mean: float | None = _mean_of("stochastic_returns")
    action_noise: float | None = _optional(metadata=IF_KNOWN)
    reality: RealityCheck | None = attrs.field(default=None, metadata=IF_KNOWN, kw_only=True)

    @property
    def return_mean(self) -> float:
        """Mean over episodes."""
        return statistics.fmean(self.returns)

    @property
    def return_std(self) -> float:
        """Standard deviation over episodes, with n in the denominator."""
        return statistics.pstdev(self.returns)

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.returns)


@attrs.frozen
class TaskResult:
    """One task: its seeds, and the returns to compare them with; None if not measured or published.

    ``cloned_returns``: those of behaviour cloning on the same data; ``reference_return``: the
    planner's, on the true simulator; ``pwm_return``: the published one.
    """

    seeds: dict[str, SeedResult]
    random_return_mean: float | None = _optional()
    untrained_return_mean: float | None = _optional()
    reference_return: float | None = _optional()
    random_returns: tuple[float, ...] | None = _optional(converter=_returns, metadata=IF_KNOWN)
    untrained_returns: tuple[float, ...] | None = _optional(converter=_returns, metadata=IF_KNOWN)
    cloned_returns: tuple[float, ...] | None = _optional(converter=_returns, metadata=IF_KNOWN)
    cloned_return_mean: float | None = _mean_of("cloned_returns")
    pwm_return: float | None = _optional(metadata=IF_KNOWN)

    def __attrs_post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("a task without seeds has no result")
        for name in ("random", "untrained"):
            returns, mean = getattr(self, f"{name}_returns"), getattr(self, f"{name}_return_mean")
            if returns and not (mean is not None and agree(mean, statistics.fmean(returns))):
                raise ValueError(f"{name}_return_mean {mean} is not the mean of {name}_returns")

    @property
    def return_mean(self) -> float:
        """Mean of the policies' means."""
        return statistics.fmean(seed.return_mean for seed in self.seeds.values())


@attrs.frozen
class Part:
    """A plugin in the run. ``version``: the one that trained it, None if the plugin did not (an
    imported checkpoint); ``parameters``: their number, by part of the network; ``evaluations``:
    passes through the dynamics network (policies: the velocity network) per step."""

    plugin: str
    version: str | None
    parameters: dict[str, int]
    evaluations: int


@attrs.frozen
class WorldModelPart(Part):
    """The world model: its ``checkpoint``, and ``size_parity``, its size divided by that of an MLP
    model of the same widths, minus 1. ``checkpoints``: by replicate, if each has its own."""

    checkpoint: str | None = None
    size_parity: float | None = None
    checkpoints: dict[str, str] | None = attrs.field(default=None, metadata=IF_KNOWN)


@attrs.frozen
class Summary:
    """A run's results. A pretraining run has no policy, no protocol and no tasks.

    ``conventions``: the bundle's name, or every option. ``wm_validation``: the world model's
    held-out measures, means over the replicates, with R² and score of each task under ``by_task``;
    ``before_...`` and ``after_...``: of models that learned beside policies. ``flops`` and
    ``seconds``: of all training updates, by part if there are two; ``seconds`` include the
    evaluations during training. ``health``: the gates that did not pass. ``planning``: the settings
    of planning at test time, if any.
    """

    experiment: str
    scale: str
    protocol: Protocol | None
    conventions: str | dict[str, Any]
    world_model: WorldModelPart
    policy: Part | None
    tasks: dict[str, TaskResult]
    wm_validation: dict[str, Any]
    flops: Numbers
    seconds: Numbers
    versions: dict[str, str]
    health: list[Finding]
    planning: dict[str, Any] | None

    def __attrs_post_init__(self) -> None:
        if self.protocol not in (None, *get_args(Protocol)):
            raise ValueError(f"protocol {self.protocol!r} is not one of {get_args(Protocol)}")
        if bool(self.policy) != bool(self.tasks) or bool(self.policy) != bool(self.protocol):
            raise ValueError("policy, protocol and tasks belong together: all or none")

    @property
    def training_cost(self) -> tuple[float, float]:
        """PFLOP and seconds of all training updates."""
        flops, seconds = (
            sum(x.values()) if isinstance(x, dict) else x for x in (self.flops, self.seconds)
        )
        return flops / 1e15, seconds

    @property
    def conventions_text(self) -> str:
        """The bundle's name, or every option, in one line."""
        if isinstance(self.conventions, str):
            return self.conventions
        return ", ".join(f"{key} {value}" for key, value in self.conventions.items())

    def to_json(self) -> dict[str, Any]:
        """The content of ``summary.json``; ``from_json`` gives the same summary back."""
        content: dict[str, Any] = plain(self)
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, where: str = "summary.json") -> Summary:
        """The summary with this content.

        Raises ``UserError`` for missing or unknown keys, wrong types, and inconsistent means.
        """
        try:
            return structure(content, cls)
        except Problems as error:
            remedy = "the file was edited or is of another version"
            raise UserError(str(error), where=where, remedy=remedy) from error

    @classmethod
    def of_run(cls, folder: RunFolder) -> Summary:
        """The results of a complete run. ``UserError`` if they are missing or cannot be read."""
        file = folder.path / "summary.json"
        return cls.from_json(read_object(file), where=str(file))


def read_summary(run: Path) -> Summary | None:
    """The summary of the run in a folder; None if the run is not complete.

    Raises ``UserError`` if it cannot be read, or if the folder is not a run's.
    """
    if not (run / "summary.json").is_file():
        return None
    folder = RunFolder.open(run)
    try:
        return Summary.of_run(folder)
    except UserError as error:
        remedy = "move summary.json away: the same command makes it again from the checkpoints"
        raise UserError(error.what, where=error.where, remedy=remedy) from error


def versions() -> dict[str, str]:
    """Versions of the software that results depend on, without importing it."""
    import platform
    from importlib.metadata import version

    names = ("fmbpo", "torch", "numpy", "mujoco", "dm_control")
    return {**{name: version(name) for name in names}, "python": platform.python_version()}
