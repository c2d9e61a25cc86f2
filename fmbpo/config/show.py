"""The resolved configuration of an experiment, or of a study's cells, as TOML with its origins."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmbpo.base.files import display
from fmbpo.config import toml
from fmbpo.config.identity import origins, resolved
from fmbpo.config.load import load_experiment
from fmbpo.config.study_file import Study, is_study, load_study

COMMENT_COLUMN = 60
"""Comments align after lines of at most this length; a longer line does not move the others."""


def shown(
    path: Path, *, scale: str | None = None, overrides: Sequence[str] = (), data: str | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """``resolved`` and ``origins`` of the experiment; arguments and errors of ``load_experiment``.

    For a study: its keys, and each resolved cell under ``cells.NAME``.
    """
    if not is_study(path):
        experiment = load_experiment(path, scale=scale, overrides=overrides, data=data)
        return resolved(experiment), origins(experiment)
    study = load_study(path, scale=scale, overrides=overrides, data=data)
    own = {"kind": "study"} | {k: getattr(study, k) for k in ("name", "description", "factors")}
    file, written = display(path), toml.read(path).origin
    given = {"name": file, "description": "default"}
    sources = {key: written.get(key, given.get(key, file)) for key in own}
    for name in study.cells:
        sources |= _origins_of_cell(study, name, overrides, file)
    cells = {name: resolved(experiment) for name, experiment in study.cells.items()}
    return {**own, "cells": cells}, sources


def _origins_of_cell(
    study: Study, name: str, overrides: Sequence[str], file: str
) -> Iterator[tuple[str, str]]:
    """Distinguishes overrides in the study from those on the command line, which win."""
    asked = [".".join(toml.parse_override(text)[0]) for text in overrides]
    for key, origin in origins(study.cells[name]).items():
        mine = not any(f"{key}.".startswith(f"{path}.") for path in asked)
        if origin == toml.OVERRIDE and mine:
            origin = f"{origin} (cells.{name} of {file})"
        yield f"cells.{name}.{key}", origin


def toml_text(values: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """Tables as TOML that parses back to them, with ``comments`` (by key path) after the values.

    TOML has no ``None``: a value that is not set becomes a comment.
    """
    return "\n".join("\n".join(block) + "\n" for block in _blocks(values, comments or {}, ()))


def _blocks(
    table: Mapping[str, Any], comments: Mapping[str, str], at: tuple[str, ...]
) -> Iterator[list[str]]:
    """The lines of a table, then those of each table in it."""
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping) and value}
    rows = [(key, value) for key, value in table.items() if key not in inner]
    lines = [
        f"{_key(key)} = {_value(value)}" if value is not None else f"# {_key(key)} is not set"
        for key, value in rows
    ]
    width = max((len(line) for line in lines if len(line) <= COMMENT_COLUMN), default=0)
    notes = [comments.get(".".join([*at, key]), "") for key, _ in rows]
    block = [
        f"{line.ljust(width)}  # {_comment(comment)}" if comment else line
        for line, comment in zip(lines, notes, strict=True)
    ]
    header = [f"[{'.'.join(map(_key, at))}]"] if at else []
    if block:
        yield header + block
    for key, value in inner.items():
        yield from _blocks(value, comments, (*at, key))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        items = {key: item for key, item in value.items() if item is not None}
        inside = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in items.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return _string(str(value))


def _string(text: str) -> str:
    """JSON's escapes are also TOML's; DEL needs one in TOML only."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
