"""The numbers of a section: returns, effects, profiles and costs of comparable records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from statistics import fmean
from typing import Literal

import attrs
import numpy as np

from fmbpo.compare import statistics
from fmbpo.compare.comparison import (
    OVERALL,
    PLANNER,
    UNIT,
    Cell,
    CellResult,
    Cost,
    Estimate,
    Profile,
    Progress,
    Record,
    Score,
    Section,
)
from fmbpo.compare.contrasts import Declared
from fmbpo.compare.effects import effects
from fmbpo.compare.failures import failures
from fmbpo.compare.gradients import gradient_effects
from fmbpo.compare.strata import Scores, strata
from fmbpo.compare.t_test import difference
from fmbpo.tasks.mt30 import MT30

THRESHOLDS = tuple(i / 50 for i in range(51))
"""Thresholds of performance profiles, in returns divided by ``UNIT``."""


def make_section(
    title: str,
    records: Sequence[Record],
    mixed: Sequence[str],
    declared: Declared | None = None,
) -> Section:
    """All numbers about records that may be compared; records of one cell are combined.

    ``declared``: the contrasts that the study declares.
    """
    table = scores_of(records)
    tasks = dict.fromkeys(task for by_task in table.values() for task in by_task)
    shared = [task for task in tasks if all(task in by_task for by_task in table.values())]
    wanted = {task: [task] for task in tasks} | ({OVERALL: shared} if shared else {})
    references = _references(records)
    return Section(
        title=title,
        bases=list(dict.fromkeys(record.basis for record in records)),
        mixed=list(mixed),
        records=list(records),
        cells=list(table),
        tasks=shared,
        world_models=_world_models(records),
        references=references,
        results=[
            _result(table, cell, name, tasks)
            for cell in table
            for name, tasks in wanted.items()
            if table[cell].keys() >= set(tasks)
        ],
        failures=failures(table, references.get(PLANNER, {})),
        effects=effects(table, wanted, {name: _unit(name) for name in wanted}, declared),
        profiles=[_profile(cell, table, shared) for cell in table if shared],
        costs=[_cost(cell, records) for cell in table],
        progress=[found for cell in table if (found := _progress(cell, records, table, shared))],
        model_errors=_model_errors(records),
        gradients=gradient_effects(records, declared),
    )


def scores_of(records: Sequence[Record]) -> Scores:
    """The scores of the records' policies; records of one cell are combined."""
    table: dict[Cell, dict[str, dict[str, Score]]] = {}
    for record in records:
        for task, seed, score in record.policies:
            table.setdefault(record.cell, {}).setdefault(task, {})[seed] = score
    return table


def _result(table: Scores, cell: Cell, name: str, tasks: Sequence[str]) -> CellResult:
    unit = _unit(name)
    parts = strata(_divided(table, cell, unit), [cell], tasks)
    by_seed = [table[cell][task] for task in tasks]
    seeds = [seed for seed in by_seed[0] if all(seed in one for one in by_seed)]
    return CellResult(
        cell=cell,
        task=name,
        seeds=seeds,
        values=[fmean(one[seed].mean for one in by_seed) / unit for seed in seeds],
        mean=difference(parts, {cell: 1.0}).estimate,
        iqm=statistics.iqm_of(parts),
        policies=sum(map(len, by_seed)),
        world_models=_number(score for one in by_seed for score in one.values()),
        pwm=_published("pwm_return", tasks, unit),
        tdmpc2=_published("tdmpc2_return", tasks, unit),
    )


def _number(scores: Iterable[Score]) -> int:
    """The number of world models that these policies were trained in, 0 if each has its own."""
    found = {score.world_model for score in scores}
    return 0 if "" in found else len(found)


def _world_models(records: Sequence[Record]) -> dict[str, int]:
    kinds = dict.fromkeys(record.cell.world_model for record in records)
    return {
        kind: _number(
            score for r in records if r.cell.world_model == kind for *_, score in r.policies
        )
        for kind in kinds
    }


def _references(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Means over the runs that know a return, by name and task."""
    found: dict[str, dict[str, list[float]]] = {}
    for record in records:
        for name, by_task in record.references.items():
            for task, value in by_task.items():
                found.setdefault(name, {}).setdefault(task, []).append(value)
    return {
        name: {task: fmean(values) for task, values in by_task.items()}
        for name, by_task in found.items()
    }


def _divided(table: Scores, cell: Cell, unit: float) -> Scores:
    """The scores of one cell with returns divided by ``unit``."""
    return {
        cell: {
            task: {seed: attrs.evolve(x, mean=x.mean / unit) for seed, x in seeds.items()}
            for task, seeds in table[cell].items()
        }
    }


def _unit(task: str) -> float:
    return UNIT if task == OVERALL else 1.0


def _published(name: str, tasks: Sequence[str], unit: float) -> float | None:
    """The mean of the published returns; None unless all are published."""
    if not all(task in MT30 for task in tasks):
        return None
    return fmean(getattr(MT30[task], name) for task in tasks) / unit


def _profile(cell: Cell, table: Scores, tasks: Sequence[str]) -> Profile:
    parts = strata(_divided(table, cell, UNIT), [cell], tasks)
    share, low, high = statistics.profile(parts, np.array(THRESHOLDS))
    return Profile(cell, THRESHOLDS, share.tolist(), low.tolist(), high.tolist())


def _cost(cell: Cell, records: Sequence[Record]) -> Cost:
    mine = [record for record in records if record.cell == cell]
    petaflops, seconds = _spent(mine, "petaflops"), _spent(mine, "seconds")
    hardware = ", ".join(dict.fromkeys(record.hardware for record in mine if record.hardware))
    evaluations = {record.evaluations for record in mine}
    return Cost(
        cell,
        sum(petaflops) if petaflops else None,
        sum(seconds) / 3600 if seconds else None,
        hardware,
        evaluations.pop() if len(evaluations) == 1 else None,
    )


def _progress(
    cell: Cell, records: Sequence[Record], table: Scores, tasks: Sequence[str]
) -> Progress | None:
    """At the iterations that all its policies were evaluated at; None without curves or cost.

    Every iteration costs the same, and the last one of the curves ends the training.
    """
    mine = [record for record in records if record.cell == cell]
    curves: dict[tuple[str, str], dict[int, float]] = {
        (task, seed): dict(series)
        for record in mine
        for task, seeds in record.curves.items()
        for seed, series in seeds.items()
    }
    wanted = [curves.get((task, seed), {}) for task in tasks for seed in table[cell][task]]
    shared = set.intersection(*(set(one) for one in wanted)) if wanted else set()
    iterations = sorted(x for x in shared if all(isfinite(one[x]) for one in wanted))
    spent = _spent(mine, "petaflops")
    if not spent or not iterations or iterations[-1] <= 0:
        return None

    def at(iteration: int) -> Estimate:
        scores = {
            cell: {
                task: {
                    seed: attrs.evolve(x, mean=curves[task, seed][iteration] / UNIT)
                    for seed, x in table[cell][task].items()
                }
                for task in tasks
            }
        }
        return difference(strata(scores, [cell], tasks), {cell: 1.0}).estimate

    learning, pretraining = spent
    share = learning / iterations[-1]
    return Progress(cell, [(pretraining + share * x, at(x)) for x in iterations])


def _spent(
    records: Sequence[Record], unit: Literal["petaflops", "seconds"]
) -> tuple[float, float] | None:
    """The cost of policy learning and of pretraining, each world model's once; None if a run does
    not record it."""
    learning, pretraining = 0.0, dict[str, float]()
    for record in records:
        value, part = getattr(record, unit), getattr(record, f"pretraining_{unit}")
        if value is None:
            return None
        learning += value - part
        models = record.pretrained
        pretraining |= dict.fromkeys(models, part / len(models))
    return learning, sum(pretraining.values())


def _model_errors(records: Sequence[Record]) -> dict[str, dict[int, float]]:
    """Means over the runs of each world model, by horizon."""
    found: dict[str, dict[int, list[float]]] = {}
    for record in records:
        for horizon, error in sorted(record.model_errors.items()):
            found.setdefault(record.cell.world_model, {}).setdefault(horizon, []).append(error)
    return {
        model: {horizon: fmean(errors) for horizon, errors in by.items()}
        for model, by in found.items()
    }
