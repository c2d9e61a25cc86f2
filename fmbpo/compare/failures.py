"""Failed policies: those that return much less than the planner, as after a swing-up that fails."""

from __future__ import annotations

from collections.abc import Mapping

from fmbpo.compare.comparison import Estimate, Failures
from fmbpo.compare.strata import Scores
from fmbpo.compare.t_test import LEVEL

SHARE = 0.6
"""A policy fails if its return is below this share of the planner's."""


def failures(scores: Scores, planner: Mapping[str, float]) -> list[Failures]:
    """The failed policies of each cell; ``planner``: its return by task.

    Tasks without such a return, or with one of 0 or less, are left out; so are cells that have
    no other.
    """
    found = []
    for cell, by_task in scores.items():
        judged = {task: seeds for task, seeds in by_task.items() if planner.get(task, 0.0) > 0}
        policies = sum(map(len, judged.values()))
        failed = {
            task: sum(score.mean < SHARE * planner[task] for score in seeds.values())
            for task, seeds in judged.items()
        }
        if policies:
            rate = proportion(sum(failed.values()), policies)
            found.append(Failures(cell, policies, {t: n for t, n in failed.items() if n}, rate))
    return found


def proportion(number: int, of: int) -> Estimate:
    """``number / of`` with its exact interval (Clopper and Pearson 1934, Biometrika 26)."""
    from scipy.stats import binomtest  # importing scipy.stats takes a second

    ends = binomtest(number, of).proportion_ci(LEVEL, method="exact")
    return Estimate(number / of, float(ends.low), float(ends.high))
