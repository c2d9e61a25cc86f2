"""Verdicts on expected differences with an equivalence margin.

Each hypothesis has two tests at the level of all other tests (``t_test.LEVEL``):

* of a *difference*: two-sided, from 0; if equivalence is expected, from the nearer end of the
  margin.
* of *equivalence*: two one-sided tests (TOST, Schuirmann 1987, J. Pharmacokinet. Biopharm. 15): the
  difference is significantly above the margin's lower end and below its upper end.

Several hypotheses are corrected by Holm's procedure. The null hypotheses of one hypothesis's two
tests exclude each other, so at most one of them can be true, and the number of hypotheses takes the
place of the number of tests (Shaffer 1986, J. Am. Stat. Assoc. 81).
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from scipy.special import stdtr

from fmbpo.compare.comparison import OVERALL, UNIT, Effect, Outcome
from fmbpo.compare.t_test import LEVEL, p_value
from fmbpo.config.registration import Expected


@attrs.frozen
class PValues:
    """p values of a hypothesis's two tests; 1 without an estimate of the variance.

    If that estimate is 0, they are 0 or 1, by the difference itself.
    """

    difference: float
    equivalence: float


def p_values(effect: Effect, margin: float, expected: Expected) -> PValues:
    """The p values of this hypothesis alone; ``margin``: of returns / ``UNIT``."""
    error, freedom = effect.error, effect.freedom
    if error is None or freedom is None:
        return PValues(1.0, 1.0)
    size = abs(effect.difference.value)
    limit = margin if effect.task == OVERALL else margin * UNIT
    beyond = max(size - limit, 0.0) if expected == "equivalent" else size
    inside = limit - size
    equivalence = float(stdtr(freedom, -inside / error)) if error else float(inside <= 0)
    return PValues(float(p_value(beyond, error, freedom)), equivalence)


def corrected(found: Sequence[PValues]) -> list[PValues]:
    """The p values of all hypotheses together, by Holm's procedure with Shaffer's factors.

    The factor of a p value is the number of hypotheses of which a test is left.
    """
    ordered = sorted(
        (p, place, name) for place, one in enumerate(found) for name, p in attrs.asdict(one).items()
    )
    left, adjusted, highest = [2] * len(found), [dict[str, float]() for _ in found], 0.0
    for p, place, name in ordered:
        highest = max(highest, min(1.0, p * sum(map(bool, left))))
        adjusted[place][name] = highest
        left[place] -= 1
    return [PValues(**one) for one in adjusted]


def outcome(value: float, p: PValues, expected: Expected) -> Outcome:
    """What the tests say about an expectation of a difference, whose estimate is ``value``.

    A difference that is equivalent to none is "equivalent", even if it is significant, because the
    margin says that it does not matter; it supports an expected equivalence. An expected direction
    is contradicted by a significant difference in the other, an expected equivalence by one that is
    significantly beyond the margin.
    """
    level = 1 - LEVEL
    if p.equivalence < level:
        return "supported" if expected == "equivalent" else "equivalent"
    if p.difference >= level:
        return "undecided"
    sign = "above" if value > 0 else "below"
    return "supported" if expected == sign else "contradicted"
