"""Creates a new plugin or a new suite of tasks: installable, documented, tested, and checked."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import keyword
import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeAlias

from fmbpo.base.files import disk_errors, remove_tree
from fmbpo.errors import UserError
from fmbpo.plugins import GROUPS, Kind, entry_points
from fmbpo.tasks.known import GROUP

Template: TypeAlias = Kind | Literal["tasks"]

_SUITE = "my_tasks"
"""The name of the suite in its template, which is replaced."""


def template(of: Template) -> str:
    """The code of a plugin, the same for every name; of a suite, that of ``my_tasks``."""
    return _read("tasks/suite.py.txt" if of == "tasks" else f"{of}/plugin.py.txt")


def new_plugin(kind: Kind, name: str, folder: Path) -> Path:
    """Write a plugin's project to ``folder / name``; returns that path.

    Raises ``UserError`` if the name is invalid or taken, or if the path exists or cannot be
    written; it leaves no incomplete project.
    """
    kind_words = kind.replace("_", " ")
    words = {"name": name, "kind": kind, "words": kind_words, "group": GROUPS[kind]}
    words |= {"description": f"A {kind_words}", "object": "plugin"}
    _check_name(name, GROUPS[kind], kind_words, where=f"plugins new {kind} {name}")
    sources = {path: f"both/{path}.txt" for path in ("README.md", "tests/test_contract.py")}
    sources["experiment.toml"] = f"{kind}/experiment.toml.txt"
    return _write(folder / name, words, sources, template(kind))


def new_suite(name: str, folder: Path) -> tuple[Path, list[str]]:
    """Write the project of a suite of tasks; returns its path and the names of the tasks.

    Raises ``UserError`` as ``new_plugin``.
    """
    tasks = [f"{name.replace('_', '-')}-{task}" for task in ("reach", "follow")]
    words = {"name": name, "group": GROUP, "description": "A suite of tasks", "object": "SUITE"}
    words |= {"tasks": json.dumps(tasks), "joined": ",".join(tasks), "task": tasks[0]}
    _check_name(name, GROUP, "suite of tasks", where=f"tasks new {name}")
    paths = ("README.md", "tests/test_tasks.py", "experiment.toml")
    code = template("tasks").replace(_SUITE, name)
    code = code.replace(_SUITE.replace("_", "-"), name.replace("_", "-"))
    return _write(folder / name, words, {path: f"tasks/{path}.txt" for path in paths}, code), tasks


def _write(project: Path, words: Mapping[str, str], sources: Mapping[str, str], code: str) -> Path:
    """Write aside, then rename. ``sources``: the project's files and their templates."""
    if os.path.lexists(project):  # also true of a broken link
        remedy = "choose another name or --out"
        raise UserError("already exists", where=str(project), remedy=remedy)
    name, filled = words["name"], {**words, "distribution": _distribution(words["name"])}
    sources = {"pyproject.toml": "pyproject.toml.txt", **sources}
    contents = {path: _read(source).format(**filled) for path, source in sources.items()}
    contents |= {f"{name}/__init__.py": code, f"{name}/py.typed": ""}
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


def _distribution(name: str) -> str:
    return f"fmbpo-{name.replace('_', '-')}"


def _check_name(name: str, group: str, words: str, where: str) -> None:
    """``UserError`` unless a package, a distribution and an entry point can have the name.

    ``words``: what the group's entry points offer.
    """
    remedy, distribution = "choose another name", _distribution(name)
    taken = [owner for entry, owner, _ in entry_points([group])[0] if entry.name == name]
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        what = f"{name!r} cannot be the name of a Python package"
        remedy = "use lower-case letters, digits and single underscores: "
        remedy += f"my_{words.split()[-1]}"
    elif taken:
        what = f"{taken[0]} already provides a {words} {name!r}"
    elif next(iter(importlib.metadata.distributions(name=distribution)), None):
        what = f"a distribution {distribution!r} is already installed, and would be replaced"
    elif importlib.util.find_spec(name) is not None:
        what = f"a Python package {name!r} is already installed, and would be hidden"
    else:
        return
    raise UserError(what, where=where, remedy=remedy)
