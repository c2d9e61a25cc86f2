"""``plan.json`` in a study's folder: its runs, written before the first one begins.

``fmbpo status`` lists those that have not begun as queued. Several processes may start the study:
they write the same content.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from fmbpo.base.files import write_json
from fmbpo.base.structure import plain, read_as

PLAN, STUDY = "plan.json", "study.json"


@attrs.frozen
class PlannedRun:
    """A run by the name of its folder; a pretraining run has no tasks. ``of``: the study's name for
    its cell; ``policies`` of a task and seed; ``iterations`` of a stage."""

    run: str
    of: str
    phase: str
    tasks: Sequence[str]
    seeds: Sequence[int]
    iterations: int
    policies: int = 1


@attrs.frozen
class _Plan:
    study: str
    runs: Sequence[PlannedRun]


def write_plan(folder: Path, study: str, runs: Sequence[PlannedRun]) -> None:
    """Write the plan to the study's folder. Raises ``UserError`` as ``write_json``."""
    write_json(folder / PLAN, plain(_Plan(study, runs)))


def read_plan(folder: Path) -> Sequence[PlannedRun]:
    """The runs of a plan; empty if it is missing or damaged."""
    plan = read_as(folder / PLAN, _Plan)
    return plan.runs if plan is not None else []
