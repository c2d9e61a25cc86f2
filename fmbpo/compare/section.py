"""The numbers of a section: returns, effects, profiles and costs of comparable records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal

import numpy as np

from fmbpo.compare import effects, statistics
from fmbpo.compare.comparison import (
    OVERALL,
    Cell,
    CellResult,
    Cost,
    Effect,
    Profile,
    Record,
    Section,
)
from fmbpo.tasks.mt30 import MT30

UNIT = 1000.0
"""The highest return, by which returns are divided before tasks are averaged."""
THRESHOLDS = tuple(i / 50 for i in range(51))
"""Thresholds of performance profiles, in returns divided by ``UNIT``."""
_HOUR = 3600.0

Table = dict[Cell, dict[str, dict[str, float]]]
"""Mean returns, ``table[cell][task][seed]``."""


def returns_of(records: Sequence[Record]) -> Table:
    """All records' mean returns by cell; records of one cell are combined."""
    table: Table = {}
    for record in records:
        for task, seed, score in record.policies:
            table.setdefault(record.cell, {}).setdefault(task, {})[seed] = score.mean
    return table


def all_tasks(table: Table) -> list[str]:
    """Every task that a cell has."""
    return list(dict.fromkeys(task for tasks in table.values() for task in tasks))


def make_section(title: str, records: Sequence[Record], mixed: Sequence[str]) -> Section:
    """All numbers about records that may be compared."""
    table = returns_of(records)
    shared = [task for task in all_tasks(table) if all(task in table[cell] for cell in table)]
    return Section(
        title=title,
        bases=list(dict.fromkeys(record.basis for record in records)),
        mixed=list(mixed),
        records=list(records),
        cells=list(table),
        tasks=shared,
        results=_results(table, shared),
        effects=_effects(table, shared, {r.cell for r in records if not r.seeds_ordered}),
        profiles=[_profile(cell, table, shared) for cell in table if shared],
        costs=[_cost(cell, records, table) for cell in table],
        model_errors=_model_errors(records),
    )


def _blocks(table: Table, cell: Cell, tasks: Iterable[str], unit: float) -> list[statistics.Array]:
    """One block ``(1, seeds)`` per task, in an order that does not depend on names."""
    return [np.array([sorted(table[cell][task].values())]) / unit for task in sorted(tasks)]


def _results(table: Table, shared: Sequence[str]) -> list[CellResult]:
    found = []
    for cell, tasks in table.items():
        own = [task for task in all_tasks(table) if task in tasks]
        found += [_result(table, cell, task, [task], 1.0) for task in own]
        found += [_result(table, cell, OVERALL, shared, UNIT)] if shared else []
    return found


def _result(table: Table, cell: Cell, name: str, tasks: Sequence[str], unit: float) -> CellResult:
    blocks = _blocks(table, cell, tasks, unit)
    by_seed = [table[cell][task] for task in tasks]
    seeds = [seed for seed in by_seed[0] if all(seed in one for one in by_seed)]
    return CellResult(
        cell=cell,
        task=name,
        seeds=seeds,
        values=[fmean(one[seed] for one in by_seed) / unit for seed in seeds],
        mean=statistics.estimate(blocks, statistics.mean),
        iqm=statistics.estimate(blocks, statistics.iqm),
        pwm=_published("pwm_return", tasks, unit),
        tdmpc2=_published("tdmpc2_return", tasks, unit),
    )


def _published(name: str, tasks: Sequence[str], unit: float) -> float | None:
    """The mean of the published returns; None unless all are published."""
    if not all(task in MT30 for task in tasks):
        return None
    return fmean(getattr(MT30[task], name) for task in tasks) / unit


def _effects(table: Table, shared: Sequence[str], unordered: set[Cell]) -> list[Effect]:
    found = []
    for task in all_tasks(table):
        cells = [cell for cell in table if task in table[cell]]
        for one in effects.contrasts(cells):
            found.append(effects.effect(one, table, [task], task=task, unordered=unordered))
    for one in effects.contrasts(list(table)) if shared else []:
        found.append(
            effects.effect(one, table, shared, task=OVERALL, unit=UNIT, unordered=unordered)
        )
    return found


def _profile(cell: Cell, table: Table, tasks: Sequence[str]) -> Profile:
    thresholds = np.array(THRESHOLDS)[:, None]
    above = [(block > thresholds).astype(np.float64) for block in _blocks(table, cell, tasks, UNIT)]
    share = statistics.share_above(*above)
    ends = statistics.bootstrap_interval(above, statistics.share_above)
    low, high = (share, share) if ends is None else ends
    return Profile(cell, THRESHOLDS, share.tolist(), low.tolist(), high.tolist())


def _cost(cell: Cell, records: Sequence[Record], table: Table) -> Cost:
    mine = [record for record in records if record.cell == cell]
    petaflops = _total(mine, "petaflops")
    seconds = _total(mine, "seconds")
    hours = None if seconds is None else seconds / _HOUR
    mean = fmean(fmean(seeds.values()) for seeds in table[cell].values())
    hardware = ", ".join(dict.fromkeys(record.hardware for record in mine if record.hardware))
    per = [mean / spent if spent else None for spent in (petaflops, hours)]
    return Cost(cell, petaflops, hours, hardware, *per)


def _total(records: Sequence[Record], unit: Literal["petaflops", "seconds"]) -> float | None:
    """The cost of all training, each pretraining once; None if a run does not record it."""
    total, pretraining = 0.0, dict[str, float]()
    for record in records:
        value, part = getattr(record, unit), getattr(record, f"pretraining_{unit}")
        if value is None:
            return None
        total += value - part
        pretraining[record.pretrained] = part
    return total + sum(pretraining.values())


def _model_errors(records: Sequence[Record]) -> dict[str, dict[int, float]]:
    """Means over the runs of each world model that were measured at the same horizons."""
    found: dict[str, dict[int, list[float]]] = {}
    for record in records:
        for horizon, error in sorted(record.model_errors.items()):
            found.setdefault(record.cell.world_model, {}).setdefault(horizon, []).append(error)
    return {
        model: {horizon: fmean(errors) for horizon, errors in by.items()}
        for model, by in found.items()
    }
