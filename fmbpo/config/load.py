"""From a path on the command line to a checked ``Experiment``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from fmbpo.base.files import display, path_of
from fmbpo.base.structure import (
    Problem,
    Problems,
    T,
    describe,
    problem,
    register,
    structure,
    structure_class,
)
from fmbpo.config import toml
from fmbpo.config.catalogue import find
from fmbpo.config.protocols import PROTOCOLS, Protocol
from fmbpo.config.schema import DEFAULTED_TABLES, POLICY_TABLES, Experiment, PluginTable
from fmbpo.errors import UserError, UserErrors, did_you_mean
from fmbpo.plugins import GROUPS, Kind, load_plugin
from fmbpo.runs.folder import PART
from fmbpo.tasks.known import suite_with, task_info
from fmbpo.tasks.table import GymnasiumTable

PAPER, LAPTOP, EMBEDDED = "paper", "laptop", "embedded"
DATA_VARIABLE = "FMBPO_DATA"
"""Environment variable for the data store of this machine."""

_HOW_DATA = f"give the data set's folder: --data PATH, or {DATA_VARIABLE}=PATH in the environment"
RESERVED = ("scale_reason", "origin")
"""Fields of ``Experiment`` that a file cannot set."""


def load_experiment(
    path: str | Path,
    *,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    data: str | Path | None = None,
) -> Experiment:
    """Read, merge, structure and check an experiment: a file, or a name of the catalogue.

    ``scale=None`` chooses ``"paper"`` if a data set is configured (``data``, the environment
    variable ``FMBPO_DATA``, or ``data.path``), else ``"laptop"`` with the embedded data set. Raises
    ``UserErrors`` with every mistake, its file and key path, or ``UserError`` if the file cannot be
    read.
    """
    path = find(path)
    document = toml.read(path)
    if document.tree.get("kind") == "study":
        what = "this is a study, not an experiment"
        remedy = "name one of its experiments; `fmbpo run` and `fmbpo check` also accept studies"
        raise UserError(what, where=display(path), remedy=remedy)
    toml.apply_overrides(document, overrides)  # they may set data.path, which decides the scale
    chosen, reason = _scale(document, scale, _data(document, data)[0], path)
    toml.apply_scale(document, chosen)
    toml.apply_overrides(document, overrides)
    for key in RESERVED:
        if key in document.tree:
            where = f"{document.origin[key]}: {key}"
            raise UserError("unknown key", where=where, remedy="remove it")
    store, origin = _data(document, data)
    if not store and chosen != LAPTOP:
        what = f"no data set is configured, and only the scale {LAPTOP!r} has its own"
        raise UserError(what, where=f"--scale {chosen}", remedy=_HOW_DATA)
    if not store:
        store, origin = EMBEDDED, f"scale {LAPTOP}"
    # ``structured`` reports other types.
    if isinstance(store, str) and store != EMBEDDED and not path_of(store).exists():
        what, where = f"the data set {store!r} does not exist", f"{origin}: data.path"
        raise UserError(what, where=where, remedy=_HOW_DATA)
    if isinstance(document.tree.get("data", {}), dict):
        document.lay({"data": {"path": store}}, origin)
    document.lay({"scale": chosen, "scale_reason": reason}, "--scale" if scale else "data")
    if "name" not in document.tree:
        document.lay({"name": path.stem}, display(path))
    tree = {**document.tree, "origin": dict(document.origin)}
    return structured(tree, Experiment, document.origin, display(path))


def load_tasks(path: str | Path) -> dict[str, GymnasiumTable]:
    """The tasks that an experiment file or a name of the catalogue defines, without its data.

    Raises ``UserErrors`` with every mistake in them.
    """
    path = find(path)
    document = toml.read(path)
    tree = {"tasks": document.tree.get("tasks", {})}
    return structured(tree, _OnlyTasks, document.origin, display(path)).tasks


@attrs.frozen
class _OnlyTasks:
    tasks: dict[str, GymnasiumTable]


def _only_tasks(value: Mapping[str, Any], cls: type[_OnlyTasks]) -> _OnlyTasks:
    if found := list(_task_problems(value)):
        raise Problems(found)
    tasks: _OnlyTasks = structure_class(value, cls)
    return tasks


def _data(document: toml.Document, data: str | Path | None) -> tuple[str, str]:
    """The configured data path (empty if not configured) and its origin."""
    if data:
        return str(data), "--data"
    origin = document.origin.get("data.path", "")
    if origin != toml.OVERRIDE and os.environ.get(DATA_VARIABLE):
        return os.environ[DATA_VARIABLE], f"environment variable {DATA_VARIABLE}"
    table = document.tree.get("data")
    # A value of a wrong type is kept, and ``structured`` reports it.
    return table.get("path", "") if isinstance(table, dict) else "", origin


def _scale(document: toml.Document, asked: str | None, store: str, path: Path) -> tuple[str, str]:
    """The scale and the reason for it."""
    known = sorted({PAPER, *toml.scales(document)})
    if asked is not None:
        if asked not in known:
            what = f"{display(path)} has no scale {asked!r}"
            remedy = f"{did_you_mean(asked, known)} (or define [scale.{asked}])"
            raise UserError(what, where=f"--scale {asked}", remedy=remedy)
        return asked, f"asked for with --scale {asked}"
    if store and store != EMBEDDED:
        return PAPER, f"the data set {store} is configured"
    if LAPTOP not in known:
        what, remedy = f"no data set is configured, and the file has no scale {LAPTOP!r}", _HOW_DATA
        raise UserError(what, where=display(path), remedy=remedy)
    return LAPTOP, f"no data set is configured; for the paper's scale, {_HOW_DATA}"


def structured(tree: Mapping[str, Any], cls: type[T], origin: Mapping[str, str], file: str) -> T:
    """The merged values as an instance of ``cls``.

    Raises ``UserErrors`` with every mistake, its file and key path.
    """

    def located(item: Problem) -> UserError:
        path = ".".join(part for part in item.path if isinstance(part, str))
        below = [label for name, label in origin.items() if path and name.startswith(f"{path}.")]
        source = origin.get(path) or next(iter(below), file)
        where = f"{source}: {item.key}" if item.key else source
        return UserError(item.what, where=where, remedy=item.remedy)

    try:
        return structure(tree, cls)
    except Problems as error:
        raise UserErrors(map(located, error.problems)) from None


_PLUGIN_HINT = 'write plugin = "NAME"'
_TABLE_HINTS = {
    "protocol": 'write [protocol] with kind = "frozen" and world_model = "PRETRAINING EXPERIMENT"',
    "policy": 'write [policy] with plugin = "NAME"',
}


def _experiment(value: Mapping[str, Any], cls: type[Experiment]) -> Experiment:
    """Checks that the tables fit ``kind``, and adds the plugin's kind to each plugin's table."""
    tree = {k: v for k, v in value.items() if v is not None}
    found: list[Problem] = []
    pretrain = tree.get("pretrain")
    if isinstance(pretrain, Mapping) and "seed" in pretrain:
        what, remedy = "unknown key", "each replicate has its own world model: set grid.seeds"
        found.append(Problem(("pretrain", "seed"), what, remedy))
        tree["pretrain"] = {key: value for key, value in pretrain.items() if key != "seed"}
    found += _task_problems(tree)
    if tree.get("kind") == "pretrain":
        what, remedy = "an experiment of kind 'pretrain' takes no table", "remove it"
        found += [Problem((t,), f"{what} [{t}]", remedy) for t in POLICY_TABLES if t in tree]
        grid = tree.get("grid")
        for key, none in (("tasks", []), ("policies_per_model", 1)):
            if isinstance(grid, Mapping) and grid.get(key, none) != none:
                what = "an experiment of kind 'pretrain' has no policies"
                found.append(Problem(("grid", key), what, "remove it"))
    if tree.get("kind") == "policy":
        tree = {key: {} for key in DEFAULTED_TABLES} | tree
        what = "an experiment of kind 'policy' needs a table"
        missing = [table for table in POLICY_TABLES if table not in tree]
        found += [Problem((t,), f"{what} [{t}]", _TABLE_HINTS[t]) for t in missing]
    tree |= {kind: (kind, tree[kind]) for kind in GROUPS if kind in tree}
    try:
        experiment: Experiment = structure_class(tree, cls)
    except Problems as error:
        found += error.problems
    if found:
        raise Problems(found)
    return experiment


def _task_problems(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Defined tasks with names that cannot be used, and names of tasks that do not exist."""
    own = tree.get("tasks")
    own = own if isinstance(own, Mapping) else {}
    for name in own:
        if not re.fullmatch(PART, name):
            remedy = "use letters, digits, dots, hyphens and single underscores"
            yield Problem(("tasks", name), f"{name!r} does not name a task", remedy)
        elif suite := suite_with(name):
            what = f"the suite {suite.name} already has a task {name!r}"
            yield Problem(("tasks", name), what, "choose another name")
    for key in ("data", "grid"):
        table = tree.get(key)
        names = table.get("tasks") if isinstance(table, Mapping) else None
        for name in names if isinstance(names, list) else ():
            try:
                if isinstance(name, str) and name not in own and suite_with(name) is None:
                    task_info(name, own)  # raises
            except UserError as error:
                yield Problem((key, "tasks"), error.what, error.remedy)


def _plugin_table(value: tuple[Kind, Any], cls: type[PluginTable]) -> PluginTable:
    """Loads the plugin, then structures its table with the plugin's ``Config``."""
    kind, table = value
    if not isinstance(table, Mapping):
        raise problem(f"{describe(table)} instead of a table", _PLUGIN_HINT)
    settings = dict(table)
    name = str(settings.pop("plugin", ""))
    if not name:
        raise problem("missing", f"{_PLUGIN_HINT}; `fmbpo plugins` lists them", "plugin")
    level = settings.pop("level", None)
    if level is not None and not (isinstance(level, str) and re.fullmatch(PART, level)):
        what = f"{describe(level)} does not name a level"
        raise problem(what, "use letters, digits, dots, hyphens and single underscores", "level")
    try:
        component = load_plugin(kind, name)
    except UserError as error:
        raise problem(error.what, error.remedy, "plugin") from error
    config = structure(settings, component.Config)
    return cls(plugin=name, level=level or name, config=config, component=component)


def _protocol(value: Any, _: type[Protocol]) -> Protocol:
    if not isinstance(value, Mapping):
        raise problem(f"{describe(value)} instead of a table", _TABLE_HINTS["protocol"])
    kind = value.get("kind", "")
    if not isinstance(kind, str) or kind not in PROTOCOLS:
        what = f"unknown protocol {describe(kind)}" if kind != "" else "missing"
        raise problem(what, did_you_mean(str(kind), PROTOCOLS), "kind")
    return structure(value, PROTOCOLS[kind])


register(Experiment, _experiment)
register(_OnlyTasks, _only_tasks)
register(PluginTable, _plugin_table)
register(Protocol, _protocol)
