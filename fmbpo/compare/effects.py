"""Effects of the factorial: a contrast's size, its test, its verdict and its scope.

Every effect is tested by Student's t against the variance of the replicates that it rests on
(``strata``, ``t_test``):

* A world model's effect is judged by the variance between world models of a kind: Welch's t over
  the replicates' means over policies and tasks.
* The effect of a policy is judged within world models: where both policies met the same world
  models, by the variance of their differences in each; otherwise the policies are independent
  samples. The same holds for an interaction, which compares these differences between two kinds.
* If every policy has its own world model, each cell and task is a sample of its own.

From one world model of a kind there is no verdict on world models, and none on an interaction,
which is about two kinds: another one of that kind might differ as much. A verdict on policies then
holds in this world model.

On single tasks, p values have Holm's correction over all tasks of an effect (Holm 1979). The effect
over all tasks is one test and has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from fmbpo.compare import statistics
from fmbpo.compare.comparison import NO_VERDICT, OVERALL, UNDECIDED, Cell, Effect
from fmbpo.compare.contrasts import Contrast, Declared, contrasts
from fmbpo.compare.strata import Scores, Stratum, single_models, strata
from fmbpo.compare.t_test import LEVEL, Difference, difference, holm


def effects(
    scores: Scores,
    tasks: Mapping[str, Sequence[str]],
    units: Mapping[str, float],
    declared: Declared | None = None,
) -> list[Effect]:
    """All effects on single tasks and over all of them, in the order of ``tasks``.

    ``tasks``: the tasks that a result averages, by its name (``OVERALL``, or the task's).
    ``units``: its divisor. A result has the cells that have all of its tasks.
    """
    found: list[tuple[Contrast, Effect]] = []
    for name, averaged in tasks.items():
        cells = [cell for cell, by_task in scores.items() if by_task.keys() >= set(averaged)]
        for of in contrasts(cells, declared):
            one = effect(of, scores, averaged, task=name, unit=units[name])
            found.append((of, one))
    return corrected(found)


def effect(
    of: Contrast, scores: Scores, tasks: Sequence[str], *, task: str, unit: float = 1.0
) -> Effect:
    """The contrast averaged over ``tasks``; ``task`` is the name of the result.

    ``unit`` divides the difference. ``p`` and the verdict are those of this test alone.
    """
    parts = strata(scores, of.weights, tasks)
    weights = {cell: weight / unit for cell, weight in of.weights.items()}
    single = single_models(scores, of.weights, tasks)
    found, reason = difference(parts, weights), _reason(of, parts, single)
    if reason:
        found = Difference(found.value)
    return Effect(
        name=of.name,
        kind=of.kind,
        task=task,
        levels=of.levels,
        label=of.declared,
        difference=found.estimate,
        error=found.error,
        freedom=found.freedom,
        p=found.p,
        improvement=statistics.improvement(parts, of.pairs, interval=not reason),
        paired=all(_cancels(part, of.weights) for part in parts),
        verdict=_verdict(of, found.value, found.p),
        scope="" if reason else _scope(of, single),
        reason=reason,
    )


def corrected(found: Sequence[tuple[Contrast, Effect]]) -> list[Effect]:
    """The effects, on single tasks with Holm's p and its verdict: one family for each contrast."""
    adjusted: dict[tuple[str, str], float] = {}
    for title in dict.fromkeys(of.title for of, _ in found):
        family = {
            one.task: one.p
            for of, one in found
            if of.title == title and one.task != OVERALL and one.p is not None
        }
        if family:
            values = holm(list(family.values())).tolist()
            adjusted |= {(title, task): p for task, p in zip(family, values, strict=True)}
    effects = []
    for of, one in found:
        p = adjusted.get((of.title, one.task), one.p)
        verdict = _verdict(of, one.difference.value, p)
        effects.append(attrs.evolve(one, p=p, verdict=verdict))
    return effects


def _verdict(of: Contrast, value: float, p: float | None) -> str:
    if p is None:
        return NO_VERDICT
    if p >= 1 - LEVEL:
        return UNDECIDED
    return of.above if value > 0 else of.below


def _reason(of: Contrast, parts: Sequence[Stratum], single: Sequence[str]) -> str:
    """Why there is no verdict; empty if there is one."""
    if single and of.kind != "policy":
        kinds = " and one of ".join(single)
        return f"one world model of {kinds}: another of its kind may differ as much"
    alone = {
        str(cell): None
        for part in parts
        for cell, task in part.groups
        if part.having((cell, task)) < 2
    }
    return f"a single replicate of {', '.join(alone)}" if alone else ""


def _scope(of: Contrast, single: Sequence[str]) -> str:
    """Where a verdict on policies holds; empty if it is about the kinds of world models."""
    kinds = {cell.world_model for cell in of.weights}
    if not single:
        return ""
    if len(kinds) == 1:
        return "in this one world model"
    return f"in one world model of {' and one of '.join(single)}"


def _cancels(part: Stratum, weights: Mapping[Cell, float]) -> bool:
    """Whether the level of a world model of this stratum has no influence."""
    cells = {cell for cell, _ in part.groups}
    return bool(np.isclose(sum(weights[cell] for cell in cells), 0.0))
