"""Results from outside this program: from a CSV file to folders that reports read."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmbpo.base.files import CHECK_FILE, disk_errors, read_json, write_json
from fmbpo.compare.comparison import Basis, Cell, Record, Score
from fmbpo.errors import UserError, did_you_mean
from fmbpo.runs.status import IMPORTED
from fmbpo.tasks.mt30 import mt30_task

NOT_STATED = "not stated"
"""The entry of a basis that the file does not give."""
_HIGHEST, _TOLERANCE = 1000.0, 1e-6
"""Returns are in 0..1000: a thousand rewards of 0..1. The tolerance is for rounded sums."""
_LONGEST = 40
"""The most characters of a part of a folder's name, and of a value in a message."""
_KEY = ("phase", "experiment", "protocol", "world_model", "policy")
_STATED = ("conventions", "scale", "data", "evaluation", "budget")
_SHARED = (*_STATED, "checkpoint")
_NEEDED = ("phase", "protocol", "world_model", "policy", "task", "seed", "return")
_COLUMNS = (*_NEEDED, "experiment", *_SHARED, "episodes")
_FORMAT = "correct the file; docs/statistics.md has its format"
_FORMS = {
    "seed": (r"\d{1,18}", "is not a whole number of at most 18 digits", ""),
    "return": (
        r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?",
        "is not a decimal number",
        "write it as 972.5 or 9.725e+02",
    ),
    "episodes": (r"|0*[1-9]\d{0,17}", "is not a number of episodes", ""),
}
"""The columns that are not plain text: the pattern, and the problem and remedy without a match."""


def import_results(file: Path, root: Path) -> list[Path]:
    """One folder for each (phase, experiment, protocol, cell) of a CSV file, in its order.

    A row is one seed's mean return, from 0 to 1000. Columns: phase, protocol, world_model,
    policy, task, seed, return; optional: experiment, conventions, scale, data, evaluation, budget,
    checkpoint, episodes. All optional columns except ``episodes`` must be the same in all rows of a
    folder. The checkpoint names the world model in which all its policies were trained.

    Repeating an import changes nothing. Raises ``UserError`` for a mistake in the file, with its
    line, and for a folder that contains another import; nothing is written then.
    """
    folders = {root / _folder(key): content for key, content in _contents(file).items()}
    with disk_errors(root):
        for folder, content in folders.items():
            if (folder / IMPORTED).is_file() and read_json(folder / IMPORTED) != content:
                raise UserError(
                    "there is another import of the same phase, protocol and cell",
                    where=str(folder),
                    remedy="remove that folder to replace it, or name this import's experiment",
                )
        for folder, content in folders.items():
            if not (folder / IMPORTED).is_file():
                folder.mkdir(parents=True, exist_ok=True)
                write_json(folder / IMPORTED, content)
    return list(folders)


def read_imported(folder: Path) -> Record:
    """The record of an imported folder.

    Raises ``UserError`` if its file cannot be read; ``KeyError``, ``TypeError``, ``ValueError`` or
    ``AttributeError`` if its content is not that of an import.
    """
    content = read_json(folder / IMPORTED)
    scratch = content["protocol"] == "scratch"
    world_model = "" if scratch else content["checkpoint"] or f"that of {content['world_model']}"
    return Record(
        name=folder.name,
        source=str(folder / IMPORTED),
        experiment=content["experiment"],
        phase=content["phase"],
        cell=Cell(content["world_model"], content["policy"]),
        basis=Basis(content["protocol"], *(content[name] or NOT_STATED for name in _STATED)),
        checkpoint=content["checkpoint"],
        scores={
            task: {
                seed: Score(float(entry["return"]), (), entry["episodes"], world_model)
                for seed, entry in seeds.items()
            }
            for task, seeds in content["tasks"].items()
        },
    )


def _folder(key: tuple[str, ...]) -> str:
    """A readable name, with a digest that makes it unique."""
    phase, experiment, protocol, *cell = key
    parts = [f"imported-phase{phase}", experiment, protocol, "-".join(cell)]
    clean = [re.sub(r"[^A-Za-z0-9.+-]+", "-", part)[:_LONGEST].strip("-") for part in parts]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:10]
    return "__".join([*filter(None, clean), digest])


def _contents(file: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """The content of each folder."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise UserError(what, where=str(file), remedy=CHECK_FILE) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError("not UTF-8", where=f"{file}:{line}", remedy="save it as UTF-8") from error
    if not text.strip():
        raise UserError("is empty", where=str(file), remedy=f"columns: {', '.join(_COLUMNS)}")
    contents: dict[tuple[str, ...], dict[str, Any]] = {}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        _check_header(header)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                _add(_row(header, cells), contents)
    except csv.Error as error:
        where = f"{file}:{reader.line_num}"
        raise UserError(f"not CSV ({error})", where=where, remedy=_FORMAT) from error
    except UserError as error:
        where = f"{file}:{reader.line_num}"
        raise UserError(error.what, where=where, remedy=error.remedy or _FORMAT) from error
    if not contents:
        raise UserError("has no results", where=str(file), remedy=_FORMAT)
    return contents


def _add(row: Mapping[str, Any], contents: dict[tuple[str, ...], dict[str, Any]]) -> None:
    new = {**{name: row[name] for name in (*_KEY, *_SHARED)}, "tasks": {}}
    content = contents.setdefault(tuple(row[name] for name in _KEY), new)
    for name in _SHARED:
        if content[name] != row[name]:
            raise UserError(
                f"{name} is {row[name]!r} here and {content[name]!r} in an earlier line of "
                f"phase {row['phase']}, {row['protocol']}, {row['world_model']} × {row['policy']}",
                remedy="give parts with different settings different experiment names",
            )
    task, seed = row["task"], row["seed"]
    seeds = content["tasks"].setdefault(task, {})
    if seed in seeds:
        raise UserError(f"a second return of {task}, seed {seed}", remedy="keep the valid one")
    seeds[seed] = {"return": row["return"], "episodes": row["episodes"]}


def _check_header(header: Sequence[str]) -> None:
    for name in header:
        if name not in _COLUMNS:
            other = re.search(r"[;\t|]", name)
            remedy = "separate columns by commas" if other else did_you_mean(name, _COLUMNS)
            raise UserError(f"unknown column {name!r}", remedy=remedy)
        if header.count(name) > 1:
            raise UserError(f"column {name!r} occurs twice")
    if missing := [name for name in _NEEDED if name not in header]:
        raise UserError(f"missing column {', '.join(missing)}")


def _row(header: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """Values by column, checked and converted."""
    if len(cells) != len(header):
        raise UserError(f"{len(cells)} values for {len(header)} columns")
    row: dict[str, Any] = dict.fromkeys(_COLUMNS, "")
    row.update((name, cell.strip()) for name, cell in zip(header, cells, strict=True))
    for name in _NEEDED:
        if not row[name]:
            raise UserError(f"{name} is empty")
    short = {
        n: repr(x if len(x) <= _LONGEST else f"{x[: _LONGEST - 3]}...") for n, x in row.items()
    }
    for name, (form, what, remedy) in _FORMS.items():
        if not re.fullmatch(form, row[name], re.ASCII | re.IGNORECASE):
            raise UserError(f"{name} {short[name]} {what}", remedy=remedy)
    row["task"] = mt30_task(row["task"]).name
    row["seed"] = str(int(row["seed"]))
    row["return"] = float(row["return"])
    row["episodes"] = int(row["episodes"]) if row["episodes"] else None
    if not -_TOLERANCE <= row["return"] <= _HIGHEST + _TOLERANCE:
        raise UserError(
            f"return {short['return']} is outside 0..{_HIGHEST:.0f}",
            remedy="give the mean sum of rewards of whole episodes, neither scaled nor normalised",
        )
    return row
