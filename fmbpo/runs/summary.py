"""``summary.json``: what a run found, in exactly one shape.

Only this module builds it; the closing table, the run registry and the statistics read it. Returns
are sums of the environment's rewards over an episode (0 to 1000 in DeepMind control).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import attrs

from fmbpo.errors import UserError
from fmbpo.runs.findings import Finding
from fmbpo.runs.folder import RunFolder

Protocol: TypeAlias = Literal["frozen", "finetuned", "scratch"]
Numbers: TypeAlias = float | dict[str, float]
"""One number, or numbers by the part of the run that they belong to."""


def _returns(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)


def _finite(_: Any, field: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{field.name} is {value}, not a finite number")


_baseline: Any = {"default": None, "validator": _finite, "kw_only": True}


@attrs.frozen
class SeedResult:
    """The final evaluation of one seed: the return of every episode.

    ``return_std`` is the standard deviation over episodes with n in the denominator, as numpy's.
    ``planned_returns``: of planning in the world model at every step, where it was asked for.
    """

    returns: tuple[float, ...] = attrs.field(converter=_returns)
    planned_returns: tuple[float, ...] | None = attrs.field(default=None, converter=_returns)

    def __attrs_post_init__(self) -> None:
        if not self.returns or self.planned_returns == ():
            raise ValueError("a seed without episodes has no result")
        if not all(map(math.isfinite, (*self.returns, *(self.planned_returns or ())))):
            raise ValueError("a return is not a finite number")

    @property
    def return_mean(self) -> float:
        """Mean over episodes."""
        return statistics.fmean(self.returns)

    @property
    def return_std(self) -> float:
        """Standard deviation over episodes."""
        return statistics.pstdev(self.returns)

    def to_json(self) -> dict[str, Any]:
        """The entry under ``seeds``."""
        entry = {
            "return_mean": self.return_mean,
            "return_std": self.return_std,
            "episodes": len(self.returns),
            "returns": list(self.returns),
        }
        if self.planned_returns is not None:
            entry["planned_returns"] = list(self.planned_returns)
        return entry


@attrs.frozen
class TaskResult:
    """One task: its seeds and what their returns are to be held against.

    ``reference_return`` is the planner's (it knows the true simulator); ``pwm_return`` the
    published one. None where something was not measured or published.
    """

    seeds: dict[str, SeedResult]
    random_return_mean: float | None = attrs.field(**_baseline)
    untrained_return_mean: float | None = attrs.field(**_baseline)
    reference_return: float | None = attrs.field(**_baseline)
    pwm_return: float | None = attrs.field(**_baseline)
    random_returns: tuple[float, ...] | None = attrs.field(
        default=None, converter=_returns, kw_only=True
    )
    untrained_returns: tuple[float, ...] | None = attrs.field(
        default=None, converter=_returns, kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("a task without seeds has no result")
        for name in ("random", "untrained"):
            returns, mean = getattr(self, f"{name}_returns"), getattr(self, f"{name}_return_mean")
            if returns and (mean is None or not _close(mean, statistics.fmean(returns))):
                raise ValueError(f"{name}_return_mean {mean} is not the mean of {name}_returns")

    @property
    def seed_means(self) -> list[float]:
        """The mean return of every seed."""
        return [seed.return_mean for seed in self.seeds.values()]

    @property
    def return_mean(self) -> float:
        """Mean of the seeds' means."""
        return statistics.fmean(self.seed_means)

    def to_json(self) -> dict[str, Any]:
        """The entry under ``tasks``; the optional keys only where they are known."""
        entry: dict[str, Any] = {
            "seeds": {name: seed.to_json() for name, seed in self.seeds.items()},
            "random_return_mean": self.random_return_mean,
            "untrained_return_mean": self.untrained_return_mean,
            "reference_return": self.reference_return,
        }
        for name in ("random_returns", "untrained_returns"):
            if (returns := getattr(self, name)) is not None:
                entry[name] = list(returns)
        if self.pwm_return is not None:
            entry["pwm_return"] = self.pwm_return
        return entry


@attrs.frozen
class Part:
    """A plugin at its place in the run.

    ``parameters``: their number, by part of the network; ``evaluations``: passes through the
    dynamics (policies: the velocity) network for one step. World models: ``checkpoint`` is where
    it came from, ``size_parity`` its size over that of an MLP model of the same widths, minus 1.
    """

    plugin: str
    version: str
    parameters: dict[str, int]
    evaluations: int
    checkpoint: str | None = None
    size_parity: float | None = None


@attrs.frozen
class Summary:
    """A run's results. A pretraining run has no policy, no protocol and no tasks.

    ``conventions``: the bundle's name, or every option. ``wm_validation``: the world model's
    held-out measures. ``planning``: the settings of planning at test time, None where there was
    none. ``flops`` and ``seconds``: of all training
    updates, by part where there are two; evaluations count in ``seconds`` as far as they are made
    during training. ``health``: the gates that did not pass.
    """

    experiment: str
    scale: str
    protocol: Protocol | None
    conventions: str | dict[str, Any]
    world_model: Part
    policy: Part | None
    tasks: dict[str, TaskResult]
    wm_validation: dict[str, Any]
    flops: Numbers
    seconds: Numbers
    versions: dict[str, str]
    health: list[Finding]
    planning: dict[str, Any] | None

    def __attrs_post_init__(self) -> None:
        if self.protocol is not None and self.protocol not in get_args(Protocol):
            raise ValueError(f"protocol {self.protocol!r} is none of {get_args(Protocol)}")
        if bool(self.policy) != bool(self.tasks) or bool(self.policy) != bool(self.protocol):
            raise ValueError("policy, protocol and tasks belong together: all or none")

    @property
    def training_cost(self) -> tuple[float, float]:
        """PFLOP and seconds of all training updates."""
        flops, seconds = (
            sum(x.values()) if isinstance(x, dict) else x for x in (self.flops, self.seconds)
        )
        return flops / 1e15, seconds

    def to_json(self) -> dict[str, Any]:
        """The content of ``summary.json``; ``from_json`` gives the same summary back."""
        entry = attrs.asdict(self, recurse=False)
        entry["world_model"] = attrs.asdict(self.world_model)
        entry["policy"] = self.policy and {
            key: getattr(self.policy, key)
            for key in ("plugin", "version", "parameters", "evaluations")
        }
        entry["tasks"] = {name: task.to_json() for name, task in self.tasks.items()}
        entry["health"] = [finding.to_json() for finding in self.health]
        return entry

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, where: str = "summary.json") -> Summary:
        """Check a summary's shape and numbers and take it in.

        Raises ``UserError`` for missing and unknown keys, wrong types, and means that are not
        those of the returns beside them.
        """
        try:
            keys = {field.name for field in attrs.fields(cls)}
            _exactly(content, keys, set(), "summary")
            for key in ("experiment", "scale"):
                _typed(content[key], str, key)
            if not isinstance(content["conventions"], dict):
                _typed(content["conventions"], str, "conventions")
            for key in ("wm_validation", "versions", "tasks"):
                _typed(content[key], dict, key)
            if content["planning"] is not None:
                _typed(content["planning"], dict, "planning")
            _typed(content["health"], list, "health")
            for key in ("flops", "seconds"):
                _numbers(content[key], key)
            policy = content["policy"]
            return cls(
                **{
                    **content,
                    "world_model": _part(
                        content["world_model"], "world_model", {"checkpoint", "size_parity"}
                    ),
                    "policy": None if policy is None else _part(policy, "policy", set()),
                    "tasks": {
                        name: _task(task, f"tasks.{name}")
                        for name, task in content["tasks"].items()
                    },
                    "health": [Finding.from_json(item) for item in content["health"]],
                }
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(
                str(error), where=where, remedy="the file was edited or is of another version"
            ) from error


def read_summary(run: Path) -> Summary | None:
    """The summary of the run in a folder, checked; None where the run is not complete.

    Raises ``UserError`` for a summary that cannot be read, and for one in a folder without a run.
    """
    if not (run / "summary.json").is_file():
        return None
    folder = RunFolder.open(run)
    try:
        return Summary.from_json(folder.summary(), where=str(run / "summary.json"))
    except UserError as error:
        remedy = "move summary.json away: the same command makes it again from the checkpoints"
        raise UserError(error.what, where=error.where, remedy=remedy) from error


def versions() -> dict[str, str]:
    """Versions of what results depend on, by distribution; nothing is imported for it."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("fmbpo", "torch", "numpy", "mujoco", "dm_control"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return {**found, "python": platform.python_version()}


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)


def _exactly(content: Any, required: set[str], optional: set[str], path: str) -> None:
    _typed(content, dict, path)
    if missing := required - set(content):
        raise ValueError(f"{path}: missing {', '.join(sorted(missing))}")
    if unknown := set(content) - required - optional:
        raise ValueError(f"{path}: unknown {', '.join(sorted(unknown))}")


def _typed(value: Any, kind: type, path: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{path}: {value!r} is no {kind.__name__}")


def _numbers(value: Any, path: str) -> None:
    for number in value.values() if isinstance(value, dict) else [value]:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError(f"{path}: {number!r} is no number")


def _part(content: Any, path: str, more: set[str]) -> Part:
    _exactly(content, {"plugin", "version", "parameters", "evaluations"} | more, set(), path)
    _typed(content["plugin"], str, f"{path}.plugin")
    _typed(content["version"], str, f"{path}.version")
    _typed(content["evaluations"], int, f"{path}.evaluations")
    _typed(content["parameters"], dict, f"{path}.parameters")
    _numbers(content["parameters"], f"{path}.parameters")
    return Part(**content)


def _task(content: Any, path: str) -> TaskResult:
    means = {"random_return_mean", "untrained_return_mean", "reference_return"}
    _exactly(
        content, {"seeds"} | means, {"random_returns", "untrained_returns", "pwm_return"}, path
    )
    seeds = {}
    for name, entry in content["seeds"].items():
        place = f"{path}.seeds.{name}"
        keys = {"return_mean", "return_std", "episodes", "returns"}
        _exactly(entry, keys, {"planned_returns"}, place)
        seed = seeds[name] = SeedResult(entry["returns"], entry.get("planned_returns"))
        right = seed.to_json()
        for key in ("return_mean", "return_std", "episodes"):
            if not _close(entry[key], right[key]):
                raise ValueError(f"{place}.{key} is {entry[key]}, its returns give {right[key]}")
    try:
        return TaskResult(**{**content, "seeds": seeds})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
