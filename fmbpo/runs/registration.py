"""``registration.json`` in a study's folder: what was registered, when, and every later change.

A version is the content that was registered, identified by its SHA-256. A change of the study makes
another version; it usually also makes another folder, since runs of other settings have other
names. So the history of a study is that of all folders with its name beside each other. A new
version copies the whole history, which therefore survives the removal of an older folder. Versions
are added and never changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from fmbpo.base.files import DAMAGED, read_object, write_json
from fmbpo.base.lock import only_writer
from fmbpo.base.structure import Problems, plain, structure
from fmbpo.errors import UserError
from fmbpo.runs.folder import differing_keys
from fmbpo.runs.plan import read_plan

REGISTRATION = "registration.json"
CELLS = "cells"
"""The table of a content that has one table for each cell."""


@attrs.frozen
class Version:
    """One registration, or an amendment of it.

    ``date``: ISO 8601, UTC. ``runs``: the folders of its runs. ``begun``: the runs of this study
    that had begun by then, of this version and of others. ``changes`` from the version before:
    ``key: old -> new``. ``content``: what ``sha256`` is the digest of.
    """

    sha256: str
    date: str
    runs: Sequence[str]
    begun: Sequence[str]
    changes: Sequence[str]
    content: Mapping[str, Any]

    def sentence(self, word: str) -> str:
        """When it was registered, and after how many runs; ``word``: Registered, Amended."""
        begun, own = len(self.begun), set(self.begun) <= set(self.runs)
        of = f" of {len(self.runs)}" if own else ""
        runs = "run" if begun == 1 and not of else "runs"
        known = f"after {begun}{of} {runs} of the study had begun"
        when = known if begun else "before the first run"
        return f"{word} on {self.day}, {when} (SHA-256 {self.sha256[:12]})"

    @property
    def day(self) -> str:
        """The date to the minute."""
        return f"{self.date[:16].replace('T', ' ')} UTC"


@attrs.frozen
class _File:
    study: str
    versions: Sequence[Version]


def digest(content: Mapping[str, Any]) -> str:
    """The SHA-256 of JSON values; independent of the order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def history(root: Path, study: str, *more: Path) -> list[Version]:
    """All versions of a study whose folders are in ``root``, and in ``more`` folders, oldest first.

    Raises ``UserError`` for a file that was edited or damaged.
    """
    found: dict[str, Version] = {}
    for folder in dict.fromkeys([*_folders(root, study), *more]):
        for version in _read(folder / REGISTRATION):
            first = found.setdefault(version.sha256, version)
            if version.date < first.date:
                found[version.sha256] = version
    return sorted(found.values(), key=lambda version: version.date)


def register(
    folder: Path, study: str, content: Mapping[str, Any], runs: Sequence[str]
) -> list[Version]:
    """The history, to which ``content`` was added in ``folder`` unless it has it already.

    ``runs``: the names of the folders beside it in which the runs will be. Raises ``UserError`` as
    ``history`` and ``write_json``, ``Taken`` if another process registers the study.
    """
    root = folder.parent
    with only_writer(root / f"{study}__registration"):
        file, versions = folder / REGISTRATION, history(root, study)
        if any(version.sha256 == digest(content) for version in versions):
            if not file.exists():
                write_json(file, plain(_File(study, versions)))
            return versions
        planned = (run.run for other in _folders(root, study) for run in read_plan(other))
        earlier = (run for version in versions for run in version.runs)
        known = dict.fromkeys([*runs, *earlier, *planned])
        new = Version(
            sha256=digest(content),
            date=datetime.now(UTC).isoformat(),
            runs=list(runs),
            begun=begun(root, known),
            changes=changes(versions[-1].content, content) if versions else [],
            content=content,
        )
        versions.append(new)
        write_json(file, plain(_File(study, versions)))
    return versions


def begun(root: Path, runs: Iterable[str]) -> list[str]:
    """Those of the runs whose folders exist in ``root``."""
    return [run for run in runs if (root / run / "config.json").exists()]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The keys at which two contents differ; a change in several cells is one line."""
    rest, new_rest = ({k: v for k, v in one.items() if k != CELLS} for one in (old, new))
    cells: dict[str, list[str]] = {}
    before, now = (one.get(CELLS, {}) for one in (old, new))
    for name in dict.fromkeys([*before, *now]):
        if name in before and name in now:
            lines = differing_keys(before[name], now[name])
        else:
            lines = ["added" if name in now else "removed"]
        for line in lines:
            cells.setdefault(line, []).append(name)
    return [
        *differing_keys(rest, new_rest),
        *(f"cell {' and '.join(names)}: {line}" for line, names in cells.items()),
    ]


def _folders(root: Path, study: str) -> list[Path]:
    found = root.iterdir() if root.is_dir() else ()
    return sorted(path for path in found if path.name.startswith(f"{study}__study__"))


def _read(file: Path) -> Iterator[Version]:
    if not file.exists():
        return
    try:
        versions = structure(read_object(file), _File).versions
    except Problems as error:
        raise UserError(str(error), where=str(file), remedy=DAMAGED) from error
    if not versions:
        raise UserError("it has no version", where=str(file), remedy=DAMAGED)
    for version in versions:
        if digest(version.content) != version.sha256:
            what = f"the registration of {version.date} does not match its SHA-256"
            raise UserError(what, where=str(file), remedy=DAMAGED)
        yield version
