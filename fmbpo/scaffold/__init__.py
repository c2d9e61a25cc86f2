"""Creates a new plugin: installable, documented, tested, and within the contract."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import keyword
import os
import re
from importlib.resources import files
from pathlib import Path

from fmbpo.base.files import disk_errors, remove_tree
from fmbpo.errors import UserError
from fmbpo.plugins import GROUPS, Kind, list_plugins

_FILES = ("pyproject.toml", "README.md", "tests/test_contract.py")
"""Templates of both kinds."""


def template(kind: Kind) -> str:
    """The plugin's own code, the same for every name."""
    return _read(f"{kind}/plugin.py.txt")


def new_plugin(kind: Kind, name: str, folder: Path) -> Path:
    """Write a plugin's project to ``folder / name``; returns that path.

    Raises ``UserError`` if the name is invalid or taken, or if the path exists or cannot be
    written; it leaves no incomplete project.
    """
    distribution = f"fmbpo-{name.replace('_', '-')}"
    _check_name(kind, name, distribution)
    project = folder / name
    if os.path.lexists(project):  # also true of a broken link
        remedy = "choose another name or --out"
        raise UserError("already exists", where=str(project), remedy=remedy)
    words = {
        "name": name,
        "kind": kind,
        "words": kind.replace("_", " "),
        "group": GROUPS[kind],
        "distribution": distribution,
    }
    contents = {path: _read(f"both/{path}.txt").format(**words) for path in _FILES}
    contents["experiment.toml"] = _read(f"{kind}/experiment.toml.txt").format(**words)
    contents |= {f"{name}/__init__.py": template(kind), f"{name}/py.typed": ""}
    aside = project.with_name(f".{project.name}.aside")
    remove_tree(aside)  # left by a process that was killed
    with disk_errors(project):
        try:
            aside.mkdir(parents=True)
            for path, text in contents.items():
                (aside / path).parent.mkdir(parents=True, exist_ok=True)
                (aside / path).write_text(text, encoding="utf-8")
            aside.rename(project)
        finally:
            remove_tree(aside)
    return project


def _read(source: str) -> str:
    return files(__name__).joinpath(*source.split("/")).read_text(encoding="utf-8")


def _check_name(kind: Kind, name: str, distribution: str) -> None:
    remedy = "choose another name"
    taken = [item for item in list_plugins() if item.kind == kind and item.name == name]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        what = f"{name!r} cannot be the name of a Python package"
        remedy = "use lower-case letters, digits and underscores: my_policy"
    elif taken:
        what = f"{taken[0].distribution} already provides a {kind.replace('_', ' ')} {name!r}"
    elif next(iter(importlib.metadata.distributions(name=distribution)), None):
        what = f"a distribution {distribution!r} is already installed, and would be replaced"
    elif importlib.util.find_spec(name) is not None:
        what = f"a Python package {name!r} is already installed, and would be hidden"
    else:
        return
    raise UserError(what, where=f"plugins new {kind} {name}", remedy=remedy)
