"""The registration of a study before it runs: mistakes, changes, and the power of its tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from fmbpo.compare.contrasts import Contrast
from fmbpo.compare.hypotheses import Plan, plan_of
from fmbpo.compare.power import (
    ALPHA,
    WANTED,
    equivalence_power,
    planned,
    power,
    replicates_needed,
    smallest_found,
)
from fmbpo.config.registration import Expected, RegistrationConfig
from fmbpo.config.schema import Experiment
from fmbpo.config.study_file import Study
from fmbpo.data.store import Store
from fmbpo.errors import UserError
from fmbpo.running.preflight.inputs import Candidate
from fmbpo.running.preflight.table import Rows
from fmbpo.running.registration import PlannedCell, content_of
from fmbpo.runs.registration import begun, changes, digest, history
from fmbpo.training.dataset import chosen_tasks, store_suite

SUBJECT, POWER = "registration", "power"


def _tasks(store: Store, experiment: Experiment) -> list[str]:
    suite = store_suite(store, experiment.tasks)
    return chosen_tasks(store, experiment.data, suite)


def check_registration(
    rows: Rows, study: Study, candidates: Sequence[Candidate], root: Path
) -> None:
    """Add rows on the study's registration; none for a study that never had one.

    Without data or names of all runs, which have failed rows of their own, nothing is checked.
    """
    past = rows.attempt("", SUBJECT, lambda: history(root, study.name))
    if past is None or not (study.registration or past):
        return
    cells: dict[str, PlannedCell] = {}
    for one in candidates:
        if one.recorded is None or one.names is None or one.store is None:
            return
        e, store = one.experiment, one.store
        tasks = e.grid.tasks or rows.attempt(one.cell, "tasks", partial(_tasks, store, e))
        if tasks is None:
            return
        cells[one.cell] = PlannedCell(one.recorded, store.id, tasks, one.names)
    content = rows.attempt("", SUBJECT, lambda: content_of(study, cells))
    if content is None:
        return
    plan = None
    if config := study.registration:
        plan = rows.attempt("", SUBJECT, lambda: plan_of(content, study.file))
        if plan is None:
            return
    sha256 = digest(content)
    known = next((version for version in past if version.sha256 == sha256), None)
    if known is not None:
        rows.ok("", SUBJECT, f"SHA-256 {sha256}, of {known.day}")
    elif past:
        what = "; ".join(changes(past[-1].content, content))
        remedy = "`fmbpo run` records an amendment, which every report shows; undo the changes, or "
        remedy += "say in the report why they were made"
        rows.warn("", SUBJECT, f"changed since {past[-1].day}: {what}", remedy)
    else:
        runs = dict.fromkeys(run for cell in cells.values() for run in cell.names)
        if early := begun(root, runs):
            what = f"{len(early)} of {len(runs)} runs have begun: a registration now is late"
            rows.warn("", SUBJECT, what, "every report says so; register before the first run")
        else:
            rows.ok("", SUBJECT, f"SHA-256 {sha256}, which `fmbpo run` writes before the first run")
    if plan is not None and config is not None:
        _compare_with_grid(rows, plan, cells)
        for name, (contrast, expected) in plan.hypotheses.items():
            _power(rows, name, contrast, expected, config, cells)


def _compare_with_grid(rows: Rows, plan: Plan, cells: Mapping[str, PlannedCell]) -> None:
    """Differences between the registration and the grids of the cells."""
    for name, cell in cells.items():
        seeds = len(cell.experiment.grid.seeds)
        if seeds != plan.replicates:
            what = f"grid.seeds has {seeds} replicates, {plan.replicates} are registered"
            rows.warn(name, SUBJECT, what, "make them equal: grid.seeds, registration.replicates")
    said = f"endpoint: {', '.join(plan.tasks)}"
    there = {task for cell in cells.values() for task in cell.tasks}
    for task in plan.development_tasks:
        said += f"; {task} is {'reported apart' if task in there else 'not in the grid'}"
    rows.ok("", SUBJECT, said)


def _power(
    rows: Rows,
    name: str,
    contrast: Contrast,
    expected: Expected,
    config: RegistrationConfig,
    cells: Mapping[str, PlannedCell],
) -> None:
    """What the planned replicates can show of one hypothesis."""
    key = "world_model" if contrast.kind == "world_model" else "policy"
    spread: float | None = getattr(config.spread, key)
    if spread is None:
        what = f"{name}: the power of {contrast.name} needs the spread between replicates"
        error = UserError(what, where="registration.spread", remedy=f"add {key} = NUMBER to spread")
        rows.fail("", POWER, error)
        return
    single = [
        cell.experiment.world_model.level
        for cell in cells.values()
        if getattr(cell.experiment.protocol, "checkpoint", "")
    ]
    if single and contrast.kind != "policy":
        what = f"{name}: one world model of {single[0]}, so there will be no verdict"
        rows.warn("", POWER, what, "train world models, or register hypotheses on policies")
        return
    alpha, margin, n = ALPHA / len(config.hypotheses), config.margin, config.replicates
    test = planned(contrast, spread, n)
    found, smallest = power(test, margin, alpha), smallest_found(test, alpha)
    equal = equivalence_power(test, margin, alpha=alpha)
    said = f"{name} ({contrast.name} {_expected(expected, margin)}): {n} replicates "
    equivalence = f"show equivalence with {equal:.0%} if there is no difference"
    if expected == "equivalent":  # a difference must exceed the margin
        smallest += margin
        difference = f"a difference of {smallest:.3f} with a probability of {WANTED:.0%}"
        detail = f"{said}{equivalence}, and find {difference}"
    else:
        difference = f"a difference of {smallest:.3f} with a probability of {WANTED:.0%}"
        detail = f"{said}find {difference}, and one of {margin:g} (the margin) with {found:.0%}; "
        detail += f"they {equivalence}"

    def reached(replicates: int) -> float:
        more = planned(contrast, spread, replicates)
        if expected == "equivalent":
            return equivalence_power(more, margin, alpha=alpha)
        return power(more, margin, alpha)

    if reached(n) >= WANTED:
        rows.ok("", POWER, detail)
        return
    what = "show equivalence" if expected == "equivalent" else f"find a difference of {margin:g}"
    needed = replicates_needed(reached) or "more than 1000"
    rows.warn("", POWER, detail, f"{needed} replicates {what} with {WANTED:.0%}")


def _expected(expected: Expected, margin: float) -> str:
    return f"within ±{margin:g}" if expected == "equivalent" else f"{expected} 0"
