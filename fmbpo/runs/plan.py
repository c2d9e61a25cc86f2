"""``plan.json`` in a study's folder: the runs that it will need, written before the first begins.

With it ``fmbpo status`` shows what has not begun as queued. Whoever starts the study writes the
same content, so that several processes may.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from fmbpo.base.files import read_json, write_json
from fmbpo.errors import UserError

PLAN = "plan.json"


@attrs.frozen(kw_only=True)
class PlannedRun:
    """A run by the name of its folder; a pretraining run has no tasks.

    ``of``: the study's name for its cell; ``iterations`` of a stage.
    """

    run: str
    of: str
    phase: str
    tasks: Sequence[str]
    seeds: Sequence[int]
    iterations: int


def write_plan(folder: Path, study: str, runs: Sequence[PlannedRun]) -> None:
    """Make the study's folder, and the plan in it. Raises ``UserError`` as ``write_json``."""
    write_json(folder / PLAN, {"study": study, "runs": [attrs.asdict(run) for run in runs]})


def read_plan(folder: Path) -> list[PlannedRun]:
    """The runs of a plan; empty where there is none, without those that cannot be understood."""
    try:
        content = read_json(folder / PLAN)
        return [run for run in map(_planned, content["runs"]) if run is not None]
    except (UserError, KeyError, TypeError):
        return []


def _planned(content: Any) -> PlannedRun | None:
    try:
        run = PlannedRun(**content)
        sound = all(isinstance(text, str) for text in (run.run, run.of, run.phase, *run.tasks))
        sound = sound and all(type(number) is int for number in (*run.seeds, run.iterations))
    except TypeError:
        return None
    return run if sound else None
