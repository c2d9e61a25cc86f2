"""What a study registers before its first run: hypotheses, rules, and all that defines the runs.

Everything that changes results or verdicts is in the content, and nothing else: of a cell, the
settings that identify its runs (``fmbpo.config.identity.identifying``), its data and its levels;
the versions of fmbpo and of the plugins; contrasts and hypotheses. So a change of the device, of
threads or of W&B is none of the study.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from fmbpo.base.structure import plain
from fmbpo.compare.hypotheses import RULES
from fmbpo.config.identity import canonical, identifying, resolved
from fmbpo.config.schema import Experiment
from fmbpo.config.study_file import Study
from fmbpo.errors import UserError
from fmbpo.running.names import RunNames
from fmbpo.runs.registration import CELLS, Version, digest, history, register
from fmbpo.runs.summary import versions


@attrs.frozen
class PlannedCell:
    """A cell of a study before it runs. ``experiment``: with the residence of its data settled;
    ``tasks``: of its grid."""

    experiment: Experiment
    data_id: str
    tasks: Sequence[str]
    names: RunNames


def content_of(study: Study, cells: Mapping[str, PlannedCell]) -> dict[str, Any]:
    """The content of a registration; ``"registration"`` is None if the study has none.

    Raises ``UserError`` if a registered study has a cell without policies.
    """
    for name, cell in cells.items():
        if study.registration and cell.experiment.policy is None:
            what = f"the cell {name} has no policies, so hypotheses have no returns to judge"
            remedy = "register a study of policies"
            raise UserError(what, where=f"{study.file}: registration", remedy=remedy)
    return {
        "study": study.name,
        "registration": _registration(study, [cell.tasks for cell in cells.values()]),
        "contrasts": study.contrasts,
        "versions": {
            "fmbpo": versions()["fmbpo"],
            **{role: made for cell in cells.values() for role, made in _plugins(cell.experiment)},
        },
        CELLS: {name: _cell(cell) for name, cell in cells.items()},
    }


def register_study(
    study: Study, cells: Mapping[str, PlannedCell], folder: Path
) -> tuple[str, list[Version]]:
    """Register the study, if it has hypotheses or once had some, in its folder.

    Returns the SHA-256 of its version, which is empty for a study that never was registered, and
    the history. Raises ``UserError`` as ``fmbpo.runs.registration.register``.
    """
    if study.registration is None and not history(folder.parent, study.name):
        return "", []
    runs = list(dict.fromkeys(run for cell in cells.values() for run in cell.names))
    content = content_of(study, cells)
    return digest(content), register(folder, study.name, content, runs)


def _registration(study: Study, tasks: Sequence[Sequence[str]]) -> dict[str, Any] | None:
    """The table of the file, with the tasks of the endpoint and the rules."""
    if study.registration is None:
        return None
    apart = study.registration.development_tasks
    shared = [task for task in tasks[0] if all(task in others for others in tasks)]
    mine: dict[str, Any] = canonical(plain(study.registration))
    return {**mine, "tasks": [task for task in shared if task not in apart], "rules": list(RULES)}


def _plugins(e: Experiment) -> Iterable[tuple[str, str]]:
    """The distribution and version of each plugin, by its role and name."""
    for role, table in (("world_model", e.world_model), ("policy", e.policy)):
        if table is not None:
            made = f"{table.component.distribution} {table.component.version}"
            yield f"{role} {table.plugin}", made


def _cell(cell: PlannedCell) -> dict[str, Any]:
    e = cell.experiment
    levels = {"world_model": e.world_model.level, "policy": e.policy.level if e.policy else ""}
    values = canonical(identifying(resolved(e)))
    return {"levels": levels, "data_id": cell.data_id, **values}
