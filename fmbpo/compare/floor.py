"""Tasks at the floor: no cell returns much more than the random policy, so cells hardly differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fmbpo.compare.comparison import OVERALL, PLANNER, RANDOM, CellResult

SHARE = 0.1
"""A task is at the floor if every cell's mean is less than this share of the way from the random
policy's return to the planner's."""


def at_floor(
    results: Sequence[CellResult], references: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """The tasks at the floor, in the order of ``results``.

    ``references``: as in ``Section``. A task without the random policy's return, or without a
    planner's above it, is not judged.
    """
    random, planner = references.get(RANDOM, {}), references.get(PLANNER, {})
    best: dict[str, float] = {}
    for result in results:
        if result.task != OVERALL:
            best[result.task] = max(result.mean.value, best.get(result.task, result.mean.value))
    leads = {task: planner[task] - random[task] for task in best if task in random.keys() & planner}
    return [
        task
        for task, lead in leads.items()
        if lead > 0 and best[task] < random[task] + SHARE * lead
    ]
