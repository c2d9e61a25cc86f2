"""A new plugin to begin with: installable, documented, tested, and within the contract."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
from importlib.resources import files
from pathlib import Path

from fmbpo.errors import UserError
from fmbpo.registry import GROUPS, Kind, list_plugins
from fmbpo.runs.files import disk_errors

_FILES = {
    "pyproject.toml": "both/pyproject.toml.txt",
    "README.md": "both/README.md.txt",
    "tests/test_contract.py": "both/test_contract.py.txt",
}


def template(kind: Kind) -> str:
    """The plugin's own code, the same for every name."""
    return (files(__name__) / kind / "plugin.py.txt").read_text(encoding="utf-8")


def new_plugin(kind: Kind, name: str, folder: Path) -> Path:
    """Write a plugin's project to ``folder / name``; returns that path.

    Raises ``UserError`` for a name that cannot be a plugin's, that is taken, or a place that is
    there already; nothing is left half-written.
    """
    _check_name(kind, name)
    place = folder / name
    if place.exists():
        raise UserError("is there already", where=str(place), remedy="choose another name or --out")
    words = {
        "name": name,
        "kind": kind,
        "words": kind.replace("_", " "),
        "group": GROUPS[kind],
        "distribution": f"fmbpo-{name.replace('_', '-')}",
    }
    aside = folder / f".{name}.aside"
    with disk_errors(place):
        shutil.rmtree(aside, ignore_errors=True)
        contents = {path: _read(source).format(**words) for path, source in _FILES.items()}
        contents[f"{name}/__init__.py"] = template(kind)
        contents[f"{name}/py.typed"] = ""
        for path, text in contents.items():
            (aside / path).parent.mkdir(parents=True, exist_ok=True)
            (aside / path).write_text(text, encoding="utf-8")
        aside.rename(place)
    return place


def _read(source: str) -> str:
    return files(__name__).joinpath(*source.split("/")).read_text(encoding="utf-8")


def _check_name(kind: Kind, name: str) -> None:
    where = f"plugins new {kind} {name}"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(
            f"{name!r} cannot be the name of a Python package",
            where=where,
            remedy="use lower-case letters, digits and underscores: my_policy",
        )
    taken = [item for item in list_plugins() if item.kind == kind and item.name == name]
    if taken:
        raise UserError(
            f"{taken[0].distribution} offers a {kind.replace('_', ' ')} {name!r} already",
            where=where,
            remedy="choose another name",
        )
    if importlib.util.find_spec(name) is not None:
        raise UserError(
            f"a Python package {name!r} is installed already, and would be hidden",
            where=where,
            remedy="choose another name",
        )
