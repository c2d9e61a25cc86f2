"""How data are collected: the mix of behaviours, and the policies that carry them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import fields, frozen
from numpy.typing import NDArray

from fmbpo.data.planner import Planner
from fmbpo.errors import UserError, did_you_mean

Policy = Callable[[Any], NDArray[np.float64]]


@frozen
class Behaviour:
    """One kind of behaviour in a mix.

    Attributes:
        name: how the store calls it.
        kind: ``planner`` or ``random``.
        share: of the episodes; the shares of a recipe are normalised.
        noise: standard deviation of the gaussian noise added to the planner's actions.
        effort: multiplies the planner's number of samples.
        smooth: random actions correlated in time (which travel further than white noise).
        bursts: random actions held for a while, with rests between them.
        interrupted: smooth random actions take turns with the planner.
    """

    name: str
    kind: str
    share: float
    noise: float = 0.0
    effort: float = 1.0
    smooth: bool = False
    bursts: bool = False
    interrupted: bool = False


EXPLORE = Behaviour("random-bursts", kind="random", share=1.0, bursts=True)
"""Bursts and rests: the places where a planner never stays. Without them a model learns that what
rests is at its goal, since in the planner's episodes it is."""

RECOVER = Behaviour("planner-interrupted", kind="planner", share=1.0, interrupted=True)
"""The planner called away and back again: how good behaviour is found from bad states. Without
them a policy that once misses its goal is where neither its model nor its critics have been."""

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {
        "planner": {"kind": "planner", "share": 0.35},
        "planner-noise-0.3": {"kind": "planner", "share": 0.30, "noise": 0.3},
        "planner-noise-0.6": {"kind": "planner", "share": 0.15, "noise": 0.6, "effort": 0.5},
        "random": {"kind": "random", "share": 0.10},
        "random-smooth": {"kind": "random", "share": 0.10, "smooth": True},
    },
    "random": {
        "random": {"kind": "random", "share": 0.5},
        "random-smooth": {"kind": "random", "share": 0.5, "smooth": True},
    },
}


def behaviours(recipe: Mapping[str, Mapping[str, Any]] | str) -> list[Behaviour]:
    """The behaviours of a recipe, given by its name or as fields of `Behaviour` by name.

    Raises:
        UserError: no such recipe, an unknown field or kind, or shares that are not positive.
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise UserError(f"no recipe {recipe!r}", remedy=did_you_mean(recipe, RECIPES))
        recipe = RECIPES[recipe]
    known = {f.name for f in fields(Behaviour)} - {"name"}
    mix = []
    for name, settings in recipe.items():
        where = f"recipe, behaviour {name!r}"
        for key in settings:
            if key not in known:
                raise UserError(f"unknown {key!r}", where=where, remedy=did_you_mean(key, known))
        if settings.get("kind") not in ("planner", "random"):
            raise UserError("kind is missing or unknown", where=where, remedy="planner or random")
        if not settings.get("share", 0) > 0:
            raise UserError("share must be above 0", where=where)
        mix.append(Behaviour(name, **settings))
    if not mix:
        raise UserError("no behaviour", where="recipe", remedy="name at least one")
    return mix


def schedule(mix: Sequence[Behaviour], episodes: int) -> list[int]:
    """[episodes] the behaviour of each, spread evenly; a shorter schedule is a prefix of it."""
    share = np.array([b.share for b in mix])
    share /= share.sum()
    count = np.zeros(len(mix))
    order = []
    for e in range(episodes):
        which = int(np.argmax(share * (e + 1) - count))
        count[which] += 1
        order.append(which)
    return order


def make_policy(
    behaviour: Behaviour, task: str, action_dim: int, rng: np.random.Generator
) -> Policy:
    """A policy for one episode: from the dm_control environment to an action [U], unclipped."""
    if behaviour.kind == "planner":
        planner = Planner(task, behaviour.effort)
        if behaviour.interrupted:
            return _Interrupted(planner, action_dim, rng)
        return lambda env: planner.act(env, rng) + behaviour.noise * rng.standard_normal(action_dim)
    if behaviour.smooth:
        return _SmoothNoise(action_dim, rng)
    if behaviour.bursts:
        return _Bursts(action_dim, rng)
    return lambda env: rng.uniform(-1.0, 1.0, action_dim)


class _SmoothNoise:
    """Noise of a correlation length and size drawn anew for every episode."""

    def __init__(self, action_dim: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._keep = float(np.exp(-1.0 / rng.uniform(3.0, 40.0)))  # 3 to 40 agent steps
        self._sigma = rng.uniform(0.4, 1.5)
        self._noise = rng.standard_normal(action_dim)

    def __call__(self, _env: Any) -> NDArray[np.float64]:
        action = self._sigma * self._noise
        fresh = self._rng.standard_normal(len(self._noise))
        self._noise = self._keep * self._noise + np.sqrt(1 - self._keep**2) * fresh
        return action


class _Bursts:
    """A random action held for 2 to 16 agent steps, then none for up to 40, and again."""

    def __init__(self, action_dim: int, rng: np.random.Generator) -> None:
        self._rng, self._width = rng, action_dim
        self._plan: list[NDArray[np.float64]] = []

    def __call__(self, _env: Any) -> NDArray[np.float64]:
        if not self._plan:
            push = self._rng.uniform(-1.0, 1.0, self._width)
            rest = np.zeros(self._width)
            self._plan = [push] * int(self._rng.integers(2, 17))
            self._plan += [rest] * int(self._rng.integers(0, 41))
        return self._plan.pop(0)


class _Interrupted:
    """The planner and smooth noise in turns of 20 to 60 agent steps each, noise first."""

    def __init__(self, planner: Planner, action_dim: int, rng: np.random.Generator) -> None:
        self._planner, self._rng, self._width = planner, rng, action_dim
        self._noise: _SmoothNoise | None = None
        self._left = 0

    def __call__(self, env: Any) -> NDArray[np.float64]:
        if not self._left:
            self._left = int(self._rng.integers(20, 61))
            if self._noise is None:
                self._noise = _SmoothNoise(self._width, self._rng)
            else:
                self._noise = None
                self._planner.reset()
        self._left -= 1
        if self._noise is not None:
            return self._noise(env)
        return self._planner.act(env, self._rng)
