"""A sampling planner in the true simulator: the source of good behaviour in collected data."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from attrs import evolve, frozen

from fmbpo.data.collecting.planner_rewards import Floats
from fmbpo.tasks.suite import Environment

# Noise scales of the samples: small ones refine the plan, large ones search for another.
_LOG_SCALE_RANGE = (float(np.log(0.15)), 0.0)
# Shortest and longest period of the repeating samples, in agent steps: for strides, hops, swings.
_PERIODS = (3, 30)


@frozen
class PlanSettings:
    """Settings of the planner's search in one task.

    Attributes:
        samples: candidate action sequences per decision.
        horizon: their length in agent steps.
        knots: knots of the interpolated noise.
        sigma: standard deviation of the noise at the knots, in units of action.
        temperature: of the exponential weights, relative to the returns' standard deviation.
        elites: candidates that are averaged.
        coarse: the planning time step, in multiples of the task's physics time step.
        repeats: share of the candidates that repeat past actions periodically, below 1.
    """

    samples: int
    horizon: int
    knots: int
    sigma: float
    temperature: float = 0.2
    elites: int = 8
    coarse: int = 1
    repeats: float = 0.0


class Model(Protocol):
    """The true simulator of a task, which rolls out candidates from a state of an episode.

    ``action_dim`` is the width of an action.
    """

    action_dim: int

    def sync(self, env: Environment) -> None:
        """Take over the present state of an environment of the task."""

    def returns(self, actions_NHU: Floats) -> Floats:
        """[N] sums of the rewards of N sequences of H agent steps from that state; a sequence whose
        simulation diverges has a value that is not finite."""


class Planner:
    """Replans at every agent step, starting from the previous plan shifted by one step.

    Of ``samples`` noisy copies of the plan, the best ``elites`` are averaged with weights
    ``exp((R - max R) / (std(R) temperature))``; the average is the new plan, and its first
    action is executed. A share ``repeats`` of the samples are not noisy copies: they follow the
    plan for a while and then repeat the preceding actions periodically. This continues a gait
    that was found by chance; noise alone would have to rediscover every stride.

    Args:
        model: rolls out the candidates.
        settings: of the search.
        effort: multiplies the number of samples.
    """

    def __init__(self, model: Model, settings: PlanSettings, effort: float = 1.0) -> None:
        samples = max(4, round(settings.samples * effort))
        self.settings = evolve(settings, samples=samples, elites=min(settings.elites, samples))
        self.model = model
        self._basis_HK = _interpolation(self.settings.horizon, self.settings.knots)
        self.reset()

    def reset(self) -> None:
        """Forget the plan, as at the start of an episode."""
        self._plan_HU = np.zeros((self.settings.horizon, self.model.action_dim))
        self._past_PU = np.zeros((0, self.model.action_dim))  # the last actions

    def act(self, env: Environment, rng: np.random.Generator) -> Floats:
        """The action [U] for the present state of the model's task; advances the plan."""
        self.model.sync(env)
        candidates = self._candidates(rng)
        returns = self.model.returns(candidates)
        returns[~np.isfinite(returns)] = -np.inf  # a diverged future is never chosen
        best = np.argsort(-returns, kind="stable")[: self.settings.elites]
        self._plan_HU = _weighted_mean(candidates[best], returns[best], self.settings.temperature)
        action: Floats = self._plan_HU[0].copy()
        self._past_PU = np.concatenate([self._past_PU, action[None]])[-_PERIODS[1] :]
        self._plan_HU = np.concatenate([self._plan_HU[1:], self._plan_HU[-1:]])
        return action

    def _candidates(self, rng: np.random.Generator) -> Floats:
        s = self.settings
        noise_NKU = rng.standard_normal((s.samples, s.knots, self.model.action_dim))
        log_scale = rng.uniform(*_LOG_SCALE_RANGE, (s.samples, 1, 1))
        noise_NHU = self._basis_HK @ (noise_NKU * (s.sigma * np.exp(log_scale)))
        candidates = np.clip(self._plan_HU + noise_NHU, -1.0, 1.0)
        candidates[0] = self._plan_HU
        candidates[1] = 0.0
        repeats = int(s.repeats * s.samples)
        if repeats:
            candidates[-repeats:] = self._repeats(repeats, rng)
        return np.asarray(candidates)

    def _repeats(self, count: int, rng: np.random.Generator) -> Floats:
        """[count, H, U]: the plan up to a random step, then past and plan repeated periodically."""
        known = np.concatenate([self._past_PU, self._plan_HU])
        H, now = len(self._plan_HU), len(self._past_PU)
        follow = rng.integers(0, H + 1, (count, 1))
        period = rng.integers(_PERIODS[0], _PERIODS[1] + 1, (count, 1))
        at = np.arange(H)
        again = follow - period + (at - follow) % period
        return np.asarray(known[np.maximum(now + np.where(at < follow, at, again), 0)])


def _interpolation(horizon: int, knots: int) -> Floats:
    """[H, K] weights that interpolate ``knots`` evenly spaced values linearly."""
    at = np.linspace(0, knots - 1, horizon)
    return np.asarray(np.clip(1 - np.abs(at[:, None] - np.arange(knots)), 0, 1))


def _weighted_mean(plans_EHU: Floats, returns_E: Floats, temperature: float) -> Floats:
    finite = np.isfinite(returns_E)
    if not finite.any():
        return np.zeros_like(plans_EHU[0])
    plans, returns = plans_EHU[finite], returns_E[finite]
    weights = np.exp((returns - returns.max()) / (returns.std() * temperature + 1e-12))
    return np.asarray(np.tensordot(weights / weights.sum(), plans, axes=1))
