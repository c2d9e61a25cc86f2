"""Recipes: the behaviours that a collected data set mixes, and their shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from attrs import evolve, field, frozen
from attrs.validators import and_, ge, gt, lt, matches_re

from fmbpo.base.structure import Problems, structure
from fmbpo.errors import UserError, UserErrors, did_you_mean
from fmbpo.tasks.mt30 import MT30

_AMOUNT: Any = and_(ge(0), lt(1e6))
_SHARE: Any = and_(gt(0), lt(1e6))


@frozen
class Behaviour:
    """One kind of behaviour in a mix.

    Attributes:
        name: its name in the store: letters, digits, ``.``, ``_`` and ``-``.
        kind: ``planner`` or ``random``.
        share: share of the episodes; the shares of a recipe are normalised.
        noise: standard deviation of the Gaussian noise added to the planner's actions.
        effort: multiplies the planner's number of samples.
        smooth: random actions are correlated in time, which explores further than white noise.
        bursts: random actions are held for a while, with rests between them.
        interrupted: smooth random actions alternate with the planner.
    """

    name: str = field(validator=matches_re(r"[\w.-]{1,60}"))
    kind: Literal["planner", "random"]
    share: float = field(validator=_SHARE)
    noise: float = field(default=0.0, validator=_AMOUNT)
    effort: float = field(default=1.0, validator=_AMOUNT)
    smooth: bool = False
    bursts: bool = False
    interrupted: bool = False

    @property
    def plain(self) -> bool:
        """Whether this is the unmodified planner or white noise, as reference returns need."""
        return not (self.noise or self.smooth or self.bursts or self.interrupted)


@frozen
class Recipe:
    """A mix of behaviours, and the defaults of a request.

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
at rest is at its goal, as it is in the planner's episodes."""

RECOVER = Behaviour("planner-interrupted", kind="planner", share=1.0, interrupted=True)
"""The interrupted planner, which recovers from bad states. Without these episodes a policy that
misses its goal reaches states that neither its model nor its critics have seen."""

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
    """The recipe of that name; UserError, naming the closest, if it does not exist."""
    if name not in RECIPES:
        raise UserError(f"no recipe {name!r}", remedy=did_you_mean(name, RECIPES))
    return RECIPES[name]


def with_noise(deviations: Sequence[float]) -> tuple[Behaviour, ...]:
    """The planner with each of these standard deviations of action noise, in equal shares.

    UserError if the list is empty, or has a number that is repeated, negative or not finite.
    """
    if not deviations or len(set(deviations)) < len(deviations):
        raise UserError("give at least one, and each only once", where="noise")
    try:
        return tuple(_planner(1.0, noise) for noise in deviations)
    except ValueError as error:
        # attrs' validators raise with the message first and the objects after it.
        what, remedy = str(error.args[0]), "give numbers from 0 to less than 1,000,000"
        raise UserError(what, where="noise", remedy=remedy) from error


def behaviours(recipe: Mapping[str, Mapping[str, Any]]) -> tuple[Behaviour, ...]:
    """A mix from tables: fields of `Behaviour` by the behaviour's name.

    UserError for no behaviour, UserErrors for unknown fields and bad values.
    """
    named = {name: {**settings, "name": name} for name, settings in recipe.items()}
    if not named:
        raise UserError("no behaviour", where="recipe", remedy="name at least one")
    try:
        return tuple(structure(named, dict[str, Behaviour]).values())
    except Problems as error:
        raise UserErrors(
            UserError(one.what, where=f"recipe, {one.key}", remedy=one.remedy)
            for one in error.problems
        ) from error


def schedule(mix: Sequence[Behaviour], episodes: int) -> list[Behaviour]:
    """[episodes] behaviour of each, spread evenly; a shorter schedule is a prefix of a longer."""
    share = np.array([b.share for b in mix], np.float64)
    share /= share.sum()
    count = np.zeros(len(mix))
    order = []
    for e in range(episodes):
        which = int(np.argmax(share * (e + 1) - count))
        count[which] += 1
        order.append(mix[which])
    return order
