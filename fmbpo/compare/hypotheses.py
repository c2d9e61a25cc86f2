"""Registered hypotheses: the contrasts that they are about, and the verdicts on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from fmbpo.base.metrics import replicate_of
from fmbpo.compare.comparison import (
    OVERALL,
    UNDECIDED,
    UNIT,
    Cell,
    Effect,
    Estimate,
    Hypothesis,
    Record,
)
from fmbpo.compare.contrasts import Contrast, contrasts, declaration
from fmbpo.compare.effects import effect
from fmbpo.compare.equivalence import PValues, corrected, outcome, p_values
from fmbpo.compare.power import (
    ALPHA,
    WANTED,
    equivalence_power,
    power,
    replicates_needed,
    rescaled,
)
from fmbpo.compare.section import scores_of
from fmbpo.compare.t_test import LEVEL
from fmbpo.config.registration import Expected
from fmbpo.errors import UserError, UserErrors, did_you_mean

_PERCENT = f"{100 * (1 - LEVEL):.0f} %"
RULES = (
    "Endpoint: the mean over tasks of the return divided by 1000, in the evaluation of the last "
    "iterate. Every task counts the same. Development tasks do not count.",
    "Test of a difference: Student's t, two-sided, with the degrees of freedom of Welch and "
    "Satterthwaite; of world models against the variance between replicates, of policies and "
    "interactions within them. If equivalence is expected, the difference is tested against the "
    "nearer end of the margin.",
    "Test of equivalence: two one-sided t tests (TOST) against both ends of the margin.",
    f"Level: {_PERCENT} for all hypotheses together, by Holm's correction. At most one of a "
    "hypothesis's two null hypotheses can be true, so hypotheses are counted, not tests (Shaffer "
    "1986).",
    "Verdict: a difference that is equivalent to none is equivalent, and this supports an expected "
    "equivalence. A significant difference supports an expected direction or contradicts it; one "
    "beyond the margin contradicts an expected equivalence. Otherwise the hypothesis is undecided.",
    "Exclusions: none. A policy that fails to learn counts with its return. A run that ends with "
    "an error is continued, not replaced, and there is no verdict before all runs have ended.",
)
"""How verdicts are reached: a part of every registration."""


@attrs.frozen(kw_only=True)
class Plan:
    """A registration, ready to judge: contrast and expectation of each hypothesis, by its name.

    ``replicates``: planned ones, of each kind of world model.
    """

    hypotheses: Mapping[str, tuple[Contrast, Expected]]
    tasks: Sequence[str]
    development_tasks: Sequence[str]
    margin: float
    replicates: int


def plan_of(content: Mapping[str, Any], where: str) -> Plan:
    """The plan in a registration's content (``fmbpo.running.registration.content_of``).

    Raises ``UserErrors`` with all mistakes: a contrast that is unknown or named twice, cells that
    hypotheses cannot tell apart, and an endpoint without tasks.
    """
    registration, wrong = content["registration"], list[UserError]()

    def mistake(what: str, key: str, remedy: str) -> None:
        wrong.append(UserError(what, where=f"{where}: {key}", remedy=remedy))

    cells = {name: Cell(**cell["levels"]) for name, cell in content["cells"].items()}
    for name, cell in cells.items():
        first = next(other for other, one in cells.items() if one == cell)
        if first != name:
            what = f"hypotheses cannot tell the cells {first} and {name} apart: both are {cell}"
            mistake(what, "registration", "give their levels different names (level = ...)")
    if not registration["tasks"]:
        what = "no task is left for the endpoint: all tasks of the grid are development tasks"
        mistake(what, "registration.development_tasks", "add tasks to grid.tasks")
    known = _known(list(dict.fromkeys(cells.values())), content["contrasts"])
    found: dict[str, tuple[Contrast, Expected]] = {}
    for name, hypothesis in registration["hypotheses"].items():
        contrast, key = known.get(hypothesis["contrast"]), f"registration.hypotheses.{name}"
        if contrast is None:
            remedy = did_you_mean(hypothesis["contrast"], known)
            mistake(f"there is no contrast {hypothesis['contrast']!r}", key, remedy)
        elif other := next((n for n, (one, _) in found.items() if _same(one, contrast)), ""):
            what = f"{other!r} is about the same contrast, or about its reverse"
            mistake(what, key, "keep one of them")
        else:
            found[name] = contrast, hypothesis["expected"]
    if wrong:
        raise UserErrors(wrong)
    return Plan(
        hypotheses=found,
        tasks=registration["tasks"],
        development_tasks=registration["development_tasks"],
        margin=registration["margin"],
        replicates=registration["replicates"],
    )


def _known(cells: Sequence[Cell], declared: Mapping[str, object]) -> dict[str, Contrast]:
    """The contrasts of these cells by all their names."""
    pairs = {name: found for name, one in declared.items() if (found := declaration(one))}
    all_of_them = contrasts(cells, pairs)
    crossed = [one for one in all_of_them if one.kind == "interaction"]
    known = {"interaction": crossed[0]} if len(crossed) == 1 else {}
    for one in all_of_them:
        bare = one.title.removeprefix(f"{one.declared} (").removesuffix(")")
        names = [one.declared, bare if one.declared else one.title, one.title, one.name]
        known |= dict.fromkeys(filter(None, names), one)
    return known


def _same(one: Contrast, other: Contrast) -> bool:
    """Whether two contrasts are one question, asked in either direction."""
    reverse = {cell: -weight for cell, weight in other.weights.items()}
    return one.weights in (other.weights, reverse)


def judged(plan: Plan, records: Sequence[Record]) -> list[Hypothesis]:
    """The verdicts, from the records of all runs of the study."""
    scores = scores_of(records)
    bases = list(dict.fromkeys(record.basis for record in records))
    differing = [
        field.name
        for field in attrs.fields(type(bases[0]))
        if len({getattr(basis, field.name) for basis in bases}) > 1
    ]

    def over(of: Contrast, tasks: Sequence[str]) -> Effect:
        found = effect(of, scores, tasks, task=OVERALL, unit=UNIT)
        if not differing:
            return found
        return attrs.evolve(
            found, difference=Estimate(found.difference.value), error=None, freedom=None, p=None,
            reason=f"the runs differ in {', '.join(differing)}",
        )  # fmt: skip

    effects = [over(of, plan.tasks) for of, _ in plan.hypotheses.values()]
    expected = [expectation for _, expectation in plan.hypotheses.values()]
    found = corrected([p_values(e, plan.margin, x) for e, x in zip(effects, expected, strict=True)])
    done = set.intersection(*(set(by_task) for by_task in scores.values()))
    apart = [task for task in plan.development_tasks if task in done]
    hypotheses, numbers = [], replicates_in(records)
    for (name, (of, x)), one, p in zip(plan.hypotheses.items(), effects, found, strict=True):
        verdict = outcome(one.difference.value, p, x)
        more = _more(one, x, plan, numbers) if verdict == UNDECIDED else ""
        hypotheses.append(
            Hypothesis(
                name=name,
                contrast=of.name,
                expected=x,
                outcome=verdict,
                sentence=f"{name}: {verdict}. {_reason(of, one, p, x, plan.margin)}.{more}",
                effect=one,
                p_difference=p.difference,
                p_equivalence=p.equivalence,
                development=over(of, apart) if apart else None,
            )
        )
    return hypotheses


def replicates_in(records: Sequence[Record]) -> list[int]:
    """The numbers of replicates that the cells have."""
    seeds: dict[Cell, set[str]] = {}
    for record in records:
        for _, seed, _ in record.policies:
            seeds.setdefault(record.cell, set()).add(replicate_of(seed))
    return sorted({len(one) for one in seeds.values()})


def _reason(of: Contrast, one: Effect, p: PValues, expected: Expected, margin: float) -> str:
    """What was found, and what the tests say of it."""
    value, low, high = attrs.astuple(one.difference)
    interval = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
    found = f"{of.name} is {value:+.3f}{interval}"
    if one.reason:
        return f"{found}; no test: {one.reason}"
    scope = f", {one.scope}" if one.scope else ""
    if one.error == 0:
        scope += "; all replicates agree exactly, so there is no variance to test against"
    inside, away = f"within ±{margin:g}", "0"
    if expected == "equivalent":
        away = f"{margin if value > 0 else -margin:+g}"
    level = 1 - LEVEL
    if p.equivalence < level:
        return f"{found}, {inside} ({_p(p.equivalence)}){scope}"
    if p.difference < level:
        side = "above" if value > 0 else "below"
        return f"{found}, {side} {away} ({_p(p.difference)}){scope}"
    other = f"outside ±{margin:g}" if expected == "equivalent" else "different from 0"
    both = f"{other} ({_p(p.difference)}) or {inside} ({_p(p.equivalence)})"
    return f"{found}; it is not shown to be {both}{scope}"


def _more(one: Effect, expected: Expected, plan: Plan, numbers: Sequence[int]) -> str:
    """The number of replicates that a study needs to decide the hypothesis, with this spread; empty
    if the kinds of world model have different numbers of them."""
    if not one.error or not one.freedom or len(numbers) > 1 or numbers[0] < 2:
        return ""
    error, freedom, replicates = one.error, one.freedom, numbers[0]
    margin, alpha = plan.margin, ALPHA / len(plan.hypotheses)

    def reached(more: int) -> float:
        test = rescaled(error, freedom, replicates, more)
        equal = equivalence_power(test, margin, alpha=alpha)
        return equal if expected == "equivalent" else min(equal, power(test, margin, alpha))

    does = f"tell a difference of {margin:g} from none"
    if expected == "equivalent":
        does = "show equivalence, if there is no difference,"
    needed = replicates_needed(reached)
    if needed is not None and needed <= replicates:
        return (
            f" With this spread, {needed} replicates of each kind {does} in {WANTED:.0%} of all "
            "studies: the true difference may lie between."
        )
    return (
        f" A new study needs {needed or 'more than 1000'} replicates of each kind to {does} with a "
        f"probability of {WANTED:.0%}, if they spread as these {replicates} do."
    )


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.0005 else f"p = {value:.3f}"
