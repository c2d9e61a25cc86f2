"""Results that no run of this program made: from a CSV file to folders that reports read."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fmbpo.base.files import disk_errors, read_json, write_json
from fmbpo.compare.record import Basis, Cell, Record, Score
from fmbpo.errors import UserError, did_you_mean
from fmbpo.runs.status import IMPORTED
from fmbpo.tasks.mt30 import task_info

FILE = IMPORTED
"""What marks a folder of imported results."""
NOT_STATED = "not stated"
"""What a basis says where the file says nothing."""

_HIGHEST, _HAIR = 1000.0, 1e-6
"""Every return lies in 0..1000: a thousand rewards of 0..1. The hair is for what sums round."""
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)
_COUNT = re.compile(r"\d{1,18}", re.ASCII)
_LONGEST = 40
"""Characters of a part of a folder's name."""
_KEY = ("phase", "experiment", "protocol", "world_model", "policy")
_SHARED = ("conventions", "scale", "data", "evaluation", "budget", "checkpoint", "seeds_ordered")
_NEEDED = ("phase", "protocol", "world_model", "policy", "task", "seed", "return")
_COLUMNS = (*_NEEDED, "experiment", *_SHARED, "episodes")


def import_results(file: Path, root: Path) -> list[Path]:
    """One folder for each (phase, experiment, protocol, cell) of a CSV file, in its order.

    A row is one seed's mean return, from 0 to 1000. Columns: phase, protocol, world_model,
    policy, task, seed, return; optional: experiment, conventions, scale, data, evaluation, budget,
    checkpoint, episodes, seeds_ordered (true or false: whether seeds of the same name are the same
    seeds). The optional ones but ``episodes`` must be the same in all rows of a folder.

    The same import again changes nothing. Raises ``UserError`` naming the line for what is wrong
    in the file, and where a folder holds another import; nothing is written then.
    """
    contents: dict[tuple[str, ...], dict[str, Any]] = {}
    for number, row in _rows(file):
        where = f"{file}:{number}"
        key = tuple(row[name] for name in _KEY)
        shared = {name: row[name] for name in _SHARED}
        content = contents.setdefault(
            key, {**dict(zip(_KEY, key, strict=True)), **shared, "tasks": {}}
        )
        for name in _SHARED:
            if content[name] != shared[name]:
                raise UserError(
                    f"{name} is {shared[name]!r} here and {content[name]!r} in an earlier line of "
                    f"phase {row['phase']}, {row['protocol']}, {row['world_model']} × "
                    f"{row['policy']}",
                    where=where,
                    remedy="give parts with different settings different names as experiments",
                )
        seeds = content["tasks"].setdefault(row["task"], {})
        if row["seed"] in seeds:
            raise UserError(
                f"a second return of {row['task']}, seed {row['seed']}",
                where=where,
                remedy="keep the one that counts",
            )
        seeds[row["seed"]] = {"return": row["return"], "episodes": row["episodes"]}
    if not contents:
        raise UserError("has no results", where=str(file))
    folders = {root / _folder(key): content for key, content in contents.items()}
    with disk_errors(root):
        there = {folder for folder in folders if (folder / FILE).is_file()}
    for folder, content in folders.items():
        if folder in there and read_json(folder / FILE) != content:
            raise UserError(
                "another import of the same phase, protocol and cell is there",
                where=str(folder),
                remedy="remove that folder to replace it, or name this one's experiment",
            )
    for folder, content in folders.items():
        if folder not in there:
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / FILE, content)
    return list(folders)


def read_imported(folder: Path) -> Record:
    """The record of an imported folder. Raises ``UserError`` where its file is damaged."""
    content = read_json(folder / FILE)
    try:
        return _record(folder, content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"a key is missing or of the wrong kind ({error})",
            where=str(folder / FILE),
            remedy="remove the folder and import the results again",
        ) from error


def _record(folder: Path, content: Mapping[str, Any]) -> Record:
    scores = {
        task: {
            seed: Score(float(entry["return"]), episodes=entry["episodes"])
            for seed, entry in seeds.items()
        }
        for task, seeds in content["tasks"].items()
    }
    stated = ("conventions", "scale", "data", "evaluation", "budget")
    return Record(
        name=folder.name,
        source=str(folder / FILE),
        experiment=content["experiment"],
        phase=content["phase"],
        cell=Cell(content["world_model"], content["policy"]),
        basis=Basis(content["protocol"], *(content[name] or NOT_STATED for name in stated)),
        checkpoint=content["checkpoint"],
        scores=scores,
        seeds_ordered=content["seeds_ordered"],
    )


def _folder(key: tuple[str, ...]) -> str:
    """Readable, and by the digest never that of another key."""
    phase, experiment, protocol, *cell = key
    parts = [f"imported-phase{phase}", experiment, protocol, "-".join(cell)]
    clean = [re.sub(r"[^A-Za-z0-9.+-]+", "-", part)[:_LONGEST].strip("-") for part in parts]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:10]
    return "__".join([*filter(None, clean), digest])


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Checked rows with the numbers of their lines."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(file)) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError("not UTF-8", where=f"{file}:{line}", remedy="save it as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise UserError("is empty", where=str(file), remedy=f"columns: {', '.join(_COLUMNS)}")
        header = [name.strip() for name in header]
        _check_header(header, f"{file}:{reader.line_num}")
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, _row(header, cells, f"{file}:{reader.line_num}")
    except csv.Error as error:
        raise UserError(f"not CSV ({error})", where=f"{file}:{reader.line_num}") from error


def _check_header(header: list[str], where: str) -> None:
    for name in header:
        if name not in _COLUMNS:
            other = re.search(r"[;\t|]", name)
            remedy = "separate columns by commas" if other else did_you_mean(name, _COLUMNS)
            raise UserError(f"unknown column {name!r}", where=where, remedy=remedy)
        if header.count(name) > 1:
            raise UserError(f"column {name!r} stands there twice", where=where)
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise UserError(
            f"missing column{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            where=where,
            remedy=f"needed: {', '.join(_NEEDED)}",
        )


def _row(header: list[str], cells: list[str], where: str) -> dict[str, Any]:
    if len(cells) != len(header):
        raise UserError(f"{len(cells)} values for {len(header)} columns", where=where)
    row: dict[str, Any] = dict.fromkeys(_COLUMNS, "")
    row.update((name, cell.strip()) for name, cell in zip(header, cells, strict=True))
    for name in _NEEDED:
        if not row[name]:
            raise UserError(f"{name} is empty", where=where)
    try:
        row["task"] = task_info(row["task"]).name
    except UserError as error:
        raise UserError(error.what, where=where, remedy=error.remedy) from error
    if not _COUNT.fullmatch(row["seed"]):
        what = f"seed {_short(row['seed'])} is no whole number of at most 18 digits"
        raise UserError(what, where=where)
    row["return"], row["seed"] = _return(row["return"], where), str(int(row["seed"]))
    if row["episodes"] and not (_COUNT.fullmatch(row["episodes"]) and int(row["episodes"])):
        what = f"episodes {_short(row['episodes'])} is no number of episodes"
        raise UserError(what, where=where)
    row["episodes"] = int(row["episodes"]) if row["episodes"] else None
    ordered = {"": True, "true": True, "false": False}
    if row["seeds_ordered"].lower() not in ordered:
        raise UserError(f"seeds_ordered {row['seeds_ordered']!r} is not true or false", where=where)
    row["seeds_ordered"] = ordered[row["seeds_ordered"].lower()]
    return row


def _return(text: str, where: str) -> float:
    if not _DECIMAL.fullmatch(text):
        raise UserError(
            f"return {_short(text)} is no decimal number",
            where=where,
            remedy="write it as 972.5 or 9.725e+02",
        )
    value = float(text)
    if not -_HAIR <= value <= _HIGHEST + _HAIR:
        raise UserError(
            f"return {_short(text)} is outside 0..{_HIGHEST:.0f}",
            where=where,
            remedy="give the mean sum of rewards of whole episodes, neither scaled nor normalised",
        )
    return value


def _short(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...")
