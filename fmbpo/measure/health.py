"""Gates that a credible result passes; each failure is a finding in the summary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs

from fmbpo.base import metrics
from fmbpo.measure.validation import OVERALL, Measures
from fmbpo.nn import two_hot
from fmbpo.runs.findings import Finding
from fmbpo.runs.summary import RealityCheck
from fmbpo.tasks.suite import TaskInfo

TOLERANCE = 0.02
"""The largest relative difference in size between world models that count as equal."""
OPTIMISM = 0.1
"""The share of the largest discounted return by which imagined returns may exceed real ones."""
UNIFORM = math.log(two_hot.BINS)
"""The reward's cross-entropy under equal logits: a constant that looks like a loss."""


def world_model_health(measures: Measures, where: str = "") -> list[Finding]:
    """The gates that a world model's held-out measures fail (see ``Validator``).

    ``where``: the model's cell, if it has one; else a finding about one task names the task.
    """
    found = [
        finding
        for task, own in measures.items()
        if task != OVERALL
        for finding in _task_health(own, where or task)
    ]
    whole = measures[OVERALL]
    entropy = whole.get(metrics.REWARD_CROSS_ENTROPY, math.inf)  # a model without bins has none
    rank = whole[metrics.EFFECTIVE_RANK]
    off = whole.get(metrics.SIMPLEX_ERROR, 0.0)
    gates = {
        Finding("loss_at_floor",
                f"the reward's cross-entropy is that of equal logits, ln {two_hot.BINS}",
                f"{entropy:.3f}", where): abs(entropy - UNIFORM) < 1e-3 * UNIFORM,
        Finding("latent_collapsed", "the latent has collapsed",
                f"effective rank {rank:.2f}", where): rank < 2,
        Finding("off_simplex", "latents leave the simplex", f"by {off:.3g}", where): off > 1e-3,
    }  # fmt: skip
    return [*found, *(finding for finding, failed in gates.items() if failed)]


def _task_health(measures: Mapping[str, float], where: str) -> list[Finding]:
    """The gates that the measures of one task fail."""
    longest = max(metrics.by_horizon(measures, metrics.OBS_ERROR))

    def ahead(measure: str) -> float:
        return measures[metrics.at_horizon(measure, longest)]

    slope = measures[metrics.REWARD_ACTION_GRADIENT]
    spread, real = measures[metrics.REWARD_STD], measures[metrics.REAL_REWARD_STD]
    rmse, constant = ahead(metrics.REWARD_RMSE), ahead(metrics.CONSTANT_REWARD_RMSE)
    error, copy = ahead(metrics.OBS_ERROR), ahead(metrics.COPY_ERROR)
    # If the real reward does not vary, it has no R², and a constant reward is right.
    varies, r2 = metrics.REWARD_R2 in measures, measures.get(metrics.REWARD_R2, 0.0)
    gates = {
        Finding("reward_unexplained", "the decoded reward explains nothing on held-out episodes",
                f"R² {r2:.3f}", where): r2 <= 0 and varies,
        Finding("reward_constant", "the decoded reward is constant",
                f"standard deviation {spread:.2g}, of the real one {real:.2g}", where):
            spread <= 0.01 * real and varies,
        Finding("reward_ignores_action",
                "the decoded reward has no gradient with respect to the action",
                f"{slope:.2g}", where): slope < 1e-6 and varies,
        Finding("reward_no_better_than_mean",
                f"the decoded reward {longest} steps ahead is worse than the task's mean",
                f"{rmse:.3f} against {constant:.3f}", where): rmse > constant and varies,
        Finding("worse_than_copy",
                f"the predicted observations {longest} steps ahead are worse than no change",
                f"{error:.3f} against {copy:.3f} standard deviations", where): error > copy,
    }  # fmt: skip
    return [finding for finding, failed in gates.items() if failed]


def learning_health(before: Measures, after: Measures, where: str = "") -> list[Finding]:
    """Whether a world model's score got worse by a half while it learned beside a policy."""
    old, new = before[OVERALL][metrics.SCORE], after[OVERALL][metrics.SCORE]
    if new <= 1.5 * old:
        return []
    message = "the world model got worse while the policy learned"
    return [Finding("got_worse", message, f"score {old:.3f} -> {new:.3f}", where)]


def returns_health(returns: Mapping[str, Sequence[float]]) -> list[Finding]:
    """Policies that behave identically, by the final returns of each cell's episodes."""
    seen: dict[tuple[float, ...], str] = {}
    found = []
    for cell, row in returns.items():
        twin = seen.setdefault(tuple(row), cell)
        if twin != cell and len(set(row)) > 1:
            message = "two policies have identical returns in every episode"
            found.append(Finding("identical_returns", message, f"those of {twin}", cell))
    return found


def reality_health(
    found: Mapping[str, tuple[TaskInfo, RealityCheck | None]], discount: float
) -> list[Finding]:
    """Whether policies imagine far more than the simulator gives, by the cells' tasks and checks.

    The gate: a tenth of the largest discounted return of an episode. In MT30 every agent step then
    has the reward 2, so that it is as much as 100 of an undiscounted return of 1000. A task whose
    largest reward is not known has no such gate.
    """
    findings = []
    for cell, (task, one) in found.items():
        largest = _largest_return(task, discount)
        if one is None:
            message = "imagined returns are not finite"
            findings.append(Finding("imagined_not_finite", message, "", cell))
        elif one.episode.difference > OPTIMISM * largest:
            message = "the policy imagines far more than the simulator gives"
            detail = f"{one.episode.imagined:.1f} against {one.episode.real:.1f}, discounted"
            findings.append(Finding("imagined_too_high", message, detail, cell))
    return findings


def _largest_return(task: TaskInfo, discount: float) -> float:
    """Of an episode, discounted; infinite if it is not known."""
    steps = task.episode_steps
    weight = (1 - discount**steps) / (1 - discount) if discount < 1 else steps
    return math.inf if task.largest_reward is None else task.largest_reward * weight


def size_health(parity: float | None) -> list[Finding]:
    """Whether a world model's size is that of the MLP model of the same widths, within 2 %."""
    if parity is None or abs(parity) <= TOLERANCE:
        return []
    message = "the world models differ in size as well as in kind"
    return [Finding("size_parity", message, f"{parity:+.1%} against the MLP model's")]


class Watch:
    """The gates that a stage fails while it trains, each with its first iteration."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str], int] = {}

    def update(
        self, iteration: int, findings: Sequence[Finding]
    ) -> tuple[list[Finding], list[tuple[str, str]]]:
        """Replace the findings; returns the new ones, and the (gate, place) of mended ones."""
        new = [f for f in findings if f.key not in self._since]
        now = {f.key for f in findings}
        mended = [key for key in self._since if key not in now]
        self._since = {f.key: self._since.get(f.key, iteration) for f in findings}
        return [attrs.evolve(f, since=iteration) for f in new], mended

    def dated(self, findings: Sequence[Finding]) -> list[Finding]:
        """The findings with their first iterations."""
        return [attrs.evolve(f, since=self._since.get(f.key)) for f in findings]

    def state(self) -> list[tuple[str, str, int]]:
        """State for a checkpoint."""
        return [(*key, iteration) for key, iteration in self._since.items()]

    def load(self, state: Sequence[tuple[str, str, int]]) -> None:
        """Restore the state of a checkpoint."""
        self._since = {(gate, where): iteration for gate, where, iteration in state}
