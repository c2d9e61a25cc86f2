"""The numbers of a section: returns, effects, profiles and costs of comparable records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal

import numpy as np

from fmbpo.compare import effects, statistics
from fmbpo.compare.comparison import OVERALL, Cell, CellResult, Cost, Profile, Record, Section
from fmbpo.compare.effects import Values
from fmbpo.tasks.mt30 import MT30

UNIT = 1000.0
"""The highest return, by which returns are divided before tasks are averaged."""
THRESHOLDS = tuple(i / 50 for i in range(51))
"""Thresholds of performance profiles, in returns divided by ``UNIT``."""


def make_section(title: str, records: Sequence[Record], mixed: Sequence[str]) -> Section:
    """All numbers about records that may be compared; records of one cell are combined."""
    table: dict[Cell, dict[str, dict[str, float]]] = {}
    for record in records:
        for task, seed, score in record.policies:
            table.setdefault(record.cell, {}).setdefault(task, {})[seed] = score.mean
    tasks = dict.fromkeys(task for by_task in table.values() for task in by_task)
    shared = [task for task in tasks if all(task in by_task for by_task in table.values())]
    wanted = {task: [task] for task in tasks} | ({OVERALL: shared} if shared else {})
    unordered = {record.cell for record in records if not record.seeds_ordered}
    return Section(
        title=title,
        bases=list(dict.fromkeys(record.basis for record in records)),
        mixed=list(mixed),
        records=list(records),
        cells=list(table),
        tasks=shared,
        results=[
            _result(table, cell, name, tasks)
            for cell in table
            for name, tasks in wanted.items()
            if table[cell].keys() >= set(tasks)
        ],
        effects=[
            effects.effect(one, table, tasks, task=name, unit=_unit(name), unordered=unordered)
            for name, tasks in wanted.items()
            for one in effects.contrasts([c for c in table if table[c].keys() >= set(tasks)])
        ],
        profiles=[_profile(cell, table, shared) for cell in table if shared],
        costs=[_cost(cell, records, table) for cell in table],
        model_errors=_model_errors(records),
    )


def _blocks(table: Values, cell: Cell, tasks: Iterable[str], unit: float) -> list[statistics.Array]:
    """One block ``(1, seeds)`` per task, in an order that does not depend on names."""
    return [np.array([sorted(table[cell][task].values())]) / unit for task in sorted(tasks)]


def _result(table: Values, cell: Cell, name: str, tasks: Sequence[str]) -> CellResult:
    unit = _unit(name)
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


def _unit(task: str) -> float:
    return UNIT if task == OVERALL else 1.0


def _published(name: str, tasks: Sequence[str], unit: float) -> float | None:
    """The mean of the published returns; None unless all are published."""
    if not all(task in MT30 for task in tasks):
        return None
    return fmean(getattr(MT30[task], name) for task in tasks) / unit


def _profile(cell: Cell, table: Values, tasks: Sequence[str]) -> Profile:
    thresholds = np.array(THRESHOLDS)[:, None]
    above = [(block > thresholds).astype(np.float64) for block in _blocks(table, cell, tasks, UNIT)]
    share = statistics.share_above(*above)
    low, high = statistics.bootstrap_interval(above, statistics.share_above) or (share, share)
    return Profile(cell, THRESHOLDS, share.tolist(), low.tolist(), high.tolist())


def _cost(cell: Cell, records: Sequence[Record], table: Values) -> Cost:
    mine = [record for record in records if record.cell == cell]
    petaflops = _total(mine, "petaflops")
    seconds = _total(mine, "seconds")
    hours = None if seconds is None else seconds / 3600
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
    """Means over the runs of each world model, by horizon."""
    found: dict[str, dict[int, list[float]]] = {}
    for record in records:
        for horizon, error in sorted(record.model_errors.items()):
            found.setdefault(record.cell.world_model, {}).setdefault(horizon, []).append(error)
    return {
        model: {horizon: fmean(errors) for horizon, errors in by.items()}
        for model, by in found.items()
    }
