"""Reads what a study registered from its folder, with the verdicts on its hypotheses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmbpo.base.files import read_object
from fmbpo.base.structure import fit
from fmbpo.compare.comparison import Record, Registered
from fmbpo.compare.hypotheses import judged, plan_of, replicates_in
from fmbpo.errors import UserError
from fmbpo.runs.plan import STUDY
from fmbpo.runs.registration import REGISTRATION, Version, history

_SHOWN = 3
"""The number of changes that a warning names."""


def registered_in(paths: Sequence[Path], records: Sequence[Record]) -> list[Registered]:
    """The registered studies among the folders, judged by their own runs among ``records``.

    Raises ``UserError`` for a registration that was edited, damaged or removed.
    """
    found = []
    for path in dict.fromkeys(path.resolve() for path in paths):
        if not (path / STUDY).is_file():
            continue
        study = read_object(path / STUDY)
        name = str(study.get("name"))
        versions = history(path.parent, name, path)
        sha256 = (fit(study.get("registration"), dict[str, Any]) or {}).get("sha256", "")
        if sha256 and not any(version.sha256 == sha256 for version in versions):
            what = f"the registration that the study ran with (SHA-256 {sha256[:12]}) is missing"
            remedy = "restore the file: without it, the registered hypotheses are unknown"
            raise UserError(what, where=str(path / REGISTRATION), remedy=remedy)
        if versions:
            sources = {str((path.parent / run).resolve()) for run in study["cells"].values()}
            own = [record for record in records if record.source in sources]
            found.append(registered(name, sha256, versions, own, path))
    return found


def registered(
    study: str, sha256: str, versions: Sequence[Version], records: Sequence[Record], folder: Path
) -> Registered:
    """A study and its verdicts.

    ``sha256``: the version that the ``records``, which are all of the study, belong to.
    """
    mine = next((version for version in versions if version.sha256 == sha256), None)
    content: Mapping[str, Any] = mine.content if mine else {}
    if mine is None or content["registration"] is None:
        what = "These runs are of a version without registration: all results are exploratory."
        return Registered(
            study=study, history=versions, warnings=_warnings(study, versions, mine, [what])
        )
    plan = plan_of(content, str(folder / REGISTRATION))
    numbers, notes = replicates_in(records), list[str]()
    if numbers != [plan.replicates]:
        have = " or ".join(map(str, numbers))
        notes.append(f"Replicates per cell: {have}; registered: {plan.replicates}.")
    return Registered(
        study=study,
        hypotheses=judged(plan, records),
        tasks=plan.tasks,
        development_tasks=plan.development_tasks,
        margin=plan.margin,
        rules=content["registration"]["rules"],
        history=versions,
        warnings=_warnings(study, versions, mine, notes),
    )


def _warnings(
    study: str, versions: Sequence[Version], mine: Version | None, notes: Sequence[str]
) -> list[str]:
    """What a reader must know about the history, and the ``notes``."""
    first, *later = versions
    lines = [f"{first.sentence('Registered')}."] if first.begun else []
    for version in later:
        number = len(version.changes)
        few = "; ".join(version.changes) if number <= _SHOWN else f"{number} changes"
        lines.append(f"{version.sentence('Amended')}: {few}.")
    if mine is not None and mine is not versions[-1]:
        lines.append(f"The runs here are those of the version of {mine.day}.")
    return [f"{study}: {line}" for line in [*lines, *notes]]
