"""Recipes: which behaviours a collected data set mixes, and in which shares."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attrs import evolve, fields, frozen

from fmbpo.errors import UserError, did_you_mean
from fmbpo.tasks.mt30 import MT30


@frozen
class Behaviour:
    """One kind of behaviour in a mix.

    Attributes:
        name: its name in the store.
        kind: ``planner`` or ``random``.
        share: share of the episodes; the shares of a recipe are normalised.
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

    @property
    def plain(self) -> bool:
        """Whether this is the unmodified planner or white noise, as in reference returns."""
        return not (self.noise or self.smooth or self.bursts or self.interrupted)


@frozen
class Recipe:
    """A mix, with the defaults of a request.

    Attributes:
        mix: the behaviours.
        tasks: names of tasks; if empty, a request must name them.
        episodes: episodes per task.
    """

    mix: tuple[Behaviour, ...]
    tasks: tuple[str, ...] = ()
    episodes: int = 64


EXPLORE = Behaviour("random-bursts", kind="random", share=1.0, bursts=True)
"""Bursts and rests, in states where a planner never stays. Without them a model learns that a body
at rest is at its goal, since in the planner's episodes it is."""

RECOVER = Behaviour("planner-interrupted", kind="planner", share=1.0, interrupted=True)
"""The planner, interrupted: it recovers from bad states. Without these episodes a policy that once
misses its goal is in states that neither its model nor its critics have seen."""

_LARGEST = 1e6
_RANDOM = Behaviour("random", kind="random", share=1.0)
_SMOOTH = Behaviour("random-smooth", kind="random", share=1.0, smooth=True)


def _planner(share: float, noise: float = 0.0, effort: float = 1.0) -> Behaviour:
    name = f"planner-noise-{noise:g}" if noise else "planner"
    return Behaviour(name, "planner", share, noise, effort)


RECIPES: dict[str, Recipe] = {
    "default": Recipe(
        (
            _planner(0.35),
            _planner(0.30, noise=0.3),
            _planner(0.15, noise=0.6, effort=0.5),
            evolve(_RANDOM, share=0.10),
            evolve(_SMOOTH, share=0.10),
        )
    ),
    "random": Recipe((evolve(_RANDOM, share=0.5), evolve(_SMOOTH, share=0.5))),
    "mt30-mini": Recipe(
        (
            _planner(7),
            _planner(5, noise=0.3),
            _planner(3, noise=0.6, effort=0.5),
            evolve(RECOVER, share=2),
            _RANDOM,
            _SMOOTH,
            EXPLORE,
        ),
        tasks=tuple(MT30),
        episodes=20,
    ),
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UserError: there is none; the remedy names the closest.
    """
    if name not in RECIPES:
        raise UserError(f"no recipe {name!r}", remedy=did_you_mean(name, RECIPES))
    return RECIPES[name]


def with_noise(deviations: Sequence[float]) -> tuple[Behaviour, ...]:
    """The planner with each of these standard deviations of action noise, in equal shares.

    Raises:
        UserError: none is given, one twice, or one that is negative or not finite.
    """
    if not deviations or len(set(deviations)) < len(deviations):
        raise UserError("give at least one, and each only once", where="noise")
    for noise in deviations:
        _check_value("deviation", noise, "noise")
    return tuple(_planner(1.0, noise) for noise in deviations)


def behaviours(recipe: Mapping[str, Mapping[str, Any]]) -> tuple[Behaviour, ...]:
    """A mix from tables: fields of `Behaviour` by the behaviour's name.

    Raises:
        UserError: an unknown field or kind, shares that are not positive, or no behaviour.
    """
    known = {f.name for f in fields(Behaviour)} - {"name"}
    mix = []
    for name, settings in recipe.items():
        where = f"recipe, behaviour {name!r}"
        if not re.fullmatch(r"[\w.-]{1,60}", name):
            raise UserError(
                "is not a valid name", where=where, remedy="letters, digits, '.', '_' and '-'"
            )
        for key in settings:
            if key not in known:
                raise UserError(f"unknown {key!r}", where=where, remedy=did_you_mean(key, known))
        if settings.get("kind") not in ("planner", "random"):
            raise UserError("kind is missing or unknown", where=where, remedy="planner or random")
        for key, value in settings.items():
            _check_value(key, value, where)
        if not settings.get("share", 0) > 0:
            raise UserError("share must be above 0", where=where)
        mix.append(Behaviour(name, **settings))
    if not mix:
        raise UserError("no behaviour", where="recipe", remedy="name at least one")
    return tuple(mix)


def _check_value(key: str, value: object, where: str) -> None:
    if key in ("smooth", "bursts", "interrupted"):
        if not isinstance(value, bool):
            raise UserError(f"{key} is {value!r}", where=where, remedy="true or false")
    elif key != "kind" and (
        isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LARGEST
    ):
        raise UserError(f"{key} is {value!r}", where=where, remedy="a number, 0 or more")


def schedule(mix: Sequence[Behaviour], episodes: int) -> list[Behaviour]:
    """[episodes] the behaviour of each, spread evenly; a shorter schedule is a prefix of it."""
    share = np.array([b.share for b in mix], np.float64)
    share /= share.sum()
    count = np.zeros(len(mix))
    order = []
    for e in range(episodes):
        which = int(np.argmax(share * (e + 1) - count))
        count[which] += 1
        order.append(mix[which])
    return order
