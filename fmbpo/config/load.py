"""From a path on the command line to a checked ``Experiment``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import tomli

from fmbpo.base.structure import (
    Problem,
    Problems,
    describe,
    problem,
    register,
    structure,
    structure_class,
)
from fmbpo.config import toml
from fmbpo.config.protocols import PROTOCOLS, Protocol
from fmbpo.config.schema import DEFAULTED_TABLES, POLICY_TABLES, Experiment, PluginTable
from fmbpo.errors import UserError, UserErrors, did_you_mean
from fmbpo.plugins import Kind, list_plugins, load_plugin

PAPER, LAPTOP, EMBEDDED = "paper", "laptop", "embedded"
DATA_VARIABLE = "FMBPO_DATA"
"""Environment variable that names the data store of this machine."""

_HOW_DATA = f"give the data set's folder: --data PATH, or {DATA_VARIABLE}=PATH in the environment"
RESERVED = ("scale_reason", "origin")
"""Fields of ``Experiment`` that no file has."""


def of_alias(path: Path) -> Path | None:
    """The file in the same folder that has this one's name among its ``aliases``.

    Files that cannot be read are passed over.
    """
    for file in sorted(path.parent.glob("*.toml")):
        try:
            aliases = tomli.loads(file.read_text(encoding="utf-8")).get("aliases", [])
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(aliases, list) and path.stem in aliases:
            return file
    return None


def load_experiment(
    path: str | Path,
    *,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    data: str | None = None,
) -> Experiment:
    """Read, merge, structure and check an experiment file.

    ``scale=None`` chooses ``"paper"`` where a data set is configured (``data``, the environment
    variable ``FMBPO_DATA``, or ``data.path``), else ``"laptop"``, which then uses the embedded
    data set. Raises ``UserErrors`` with every mistake of the file (one ``UserError`` where it
    cannot even be read), each with the file and the key path that it came from.
    """
    path = Path(path)
    document = toml.read(path)
    if document.tree.get("kind") == "study":
        raise UserError(
            "this is a study, which names experiments, where an experiment is wanted",
            where=toml.display(path),
            remedy="`fmbpo run` and `fmbpo check` take studies; else name one of its experiments",
        )
    chosen, reason = _scale(document, scale, _data(document, overrides, data)[0], path)
    toml.apply_scale(document, chosen)
    toml.apply_overrides(document, overrides)
    for key in RESERVED:
        if key in document.tree:
            where = f"{document.origin[key]}: {key}"
            raise UserError("unknown key", where=where, remedy="remove it")
    place, source = _data(document, (), data)
    if not place:
        if chosen != LAPTOP:
            raise UserError(
                f"no data set is configured, and only the scale {LAPTOP!r} has its own",
                where=f"--scale {chosen}",
                remedy=_HOW_DATA,
            )
        place, source = EMBEDDED, f"scale {LAPTOP}"
    place = os.path.expanduser(place) if isinstance(place, str) else place
    if isinstance(document.tree.get("data", {}), dict):
        document.lay({"data": {"path": place}}, source)
    document.lay({"scale": chosen, "scale_reason": reason}, "--scale" if scale else "data")
    if "name" not in document.tree:
        document.lay({"name": path.stem}, toml.display(path))
    return structure_experiment(document.tree, document.origin, toml.display(path))


def structure_experiment(
    tree: Mapping[str, Any], origin: Mapping[str, str], file: str, *, check_data: bool = True
) -> Experiment:
    """The merged values as an ``Experiment``; ``UserErrors`` for all that is wrong with them."""
    found: list[Problem] = []
    experiment: Experiment | None = None
    try:
        experiment = structure({**tree, "origin": dict(origin)}, Experiment)
    except Problems as error:
        found.extend(error.problems)
    tasks = {key: _tasks(tree, key, found) for key in ("data", "grid")}
    if tasks["data"]:
        for index, name in enumerate(tasks["grid"] or ()):
            if name not in tasks["data"]:
                what = f"the task {name!r} is not among data.tasks"
                found.append(Problem(("grid", "tasks", index), what, "add it there"))
    if check_data:
        found.extend(_data_problems(tree))
    if found or experiment is None:
        raise UserErrors([user_error(item, origin, file) for item in found])
    experiment = attrs.evolve(
        experiment, data=attrs.evolve(experiment.data, tasks=tasks["data"] or [])
    )
    if experiment.grid is not None:
        grid = attrs.evolve(experiment.grid, tasks=tasks["grid"] or [])
        experiment = attrs.evolve(experiment, grid=grid)
    return experiment


def _data(document: toml.Document, overrides: Sequence[str], data: str | None) -> tuple[str, str]:
    """The configured data path (empty: none) and its origin."""
    if data:
        return data, "--data"
    origin = document.origin.get("data.path", "")
    table = document.tree.get("data")
    value = table.get("path") if isinstance(table, dict) else None
    for text in overrides:
        key, parsed = toml.parse_override(text)
        if key == ["data", "path"]:
            value, origin = parsed, toml.OVERRIDE
    if origin != toml.OVERRIDE and os.environ.get(DATA_VARIABLE):
        return os.environ[DATA_VARIABLE], f"environment variable {DATA_VARIABLE}"
    # A value of a wrong type is kept: structuring reports it.
    return value if value is not None else "", origin


def _scale(document: toml.Document, asked: str | None, place: str, path: Path) -> tuple[str, str]:
    """The scale, and the reason for it."""
    known = sorted({PAPER, *toml.scales(document)})
    if asked is not None:
        if asked not in known:
            raise UserError(
                f"{toml.display(path)} has no scale {asked!r}",
                where=f"--scale {asked}",
                remedy=f"{did_you_mean(asked, known)} (or define [scale.{asked}])",
            )
        return asked, f"asked for with --scale {asked}"
    if place and place != EMBEDDED:
        return PAPER, f"the data set {place} is configured"
    if LAPTOP not in known:
        raise UserError(
            f"no data set is configured, and the file has no scale {LAPTOP!r}",
            where=toml.display(path),
            remedy=_HOW_DATA,
        )
    return LAPTOP, f"no data set is configured; for the paper's scale, {_HOW_DATA}"


def _data_problems(tree: Mapping[str, Any]) -> list[Problem]:
    table = tree.get("data")
    path = table.get("path") if isinstance(table, Mapping) else None
    if not isinstance(path, str) or path in ("", EMBEDDED) or Path(path).exists():
        return []
    return [Problem(("data", "path"), f"the data set {path!r} does not exist", _HOW_DATA)]


def _tasks(tree: Mapping[str, Any], key: str, found: list[Problem]) -> list[str] | None:
    """The study's names of ``key.tasks``; unknown ones go to ``found``."""
    table = tree.get(key)
    names = table.get("tasks", []) if isinstance(table, Mapping) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None  # reported by structuring, where it is there at all
    from fmbpo.tasks.mt30 import task_info

    result = []
    for index, name in enumerate(names):
        try:
            normal = task_info(name).name
        except UserError as error:
            found.append(Problem((key, "tasks", index), error.what, error.remedy))
            continue
        if normal in result and name not in names[:index]:
            what = f"the task {normal!r} is there already under another spelling"
            found.append(Problem((key, "tasks", index), what, "remove one of the two"))
        result.append(normal)
    return result


def user_error(item: Problem, origin: Mapping[str, str], file: str) -> UserError:
    """A problem of a merged document, with the file and the key path that it came from."""
    names = [str(part) for part in item.path if not isinstance(part, int)]
    path = ".".join(names)
    source = origin.get(path) or next(
        (label for name, label in origin.items() if path and name.startswith(f"{path}.")), file
    )
    return UserError(
        item.what, where=f"{source}: {item.key}" if item.key else source, remedy=item.remedy
    )


@attrs.frozen
class _PluginValue:
    """A plugin's table with its kind, on its way to ``_plugin_table``."""

    kind: Kind
    value: Any


def _experiment(value: Mapping[str, Any], cls: type[Experiment]) -> Experiment:
    """Plugin tables get their kind, and the presence of tables is checked against ``kind``."""
    tree = {k: v for k, v in value.items() if v is not None}
    found: list[Problem] = []
    kind = tree.get("kind")
    present = [name for name in POLICY_TABLES if name in tree]
    if kind == "pretrain":
        for name in present:
            what = f"[{name}] has no place in an experiment of kind 'pretrain'"
            found.append(Problem((name,), what, 'remove it, or set kind = "policy"'))
    if kind == "policy":
        for name in DEFAULTED_TABLES:
            tree.setdefault(name, {})
        for name in POLICY_TABLES:
            if name not in tree:
                what = f"an experiment of kind 'policy' needs a table [{name}]"
                found.append(Problem((name,), what, _TABLE_HINTS[name]))
    if "world_model" in tree:
        tree["world_model"] = _PluginValue("world_model", tree["world_model"])
    if "policy" in tree:
        tree["policy"] = _PluginValue("policy", tree["policy"])
    experiment: Experiment | None = None
    try:
        experiment = structure_class(tree, cls)
    except Problems as error:
        # With tables too many or too few, the class itself objects too, without a path.
        seen = {item.path for item in found}
        rest = [item for item in error.problems if item.path not in seen]
        found.extend([item for item in rest if item.path] if found else rest)
    if found or experiment is None:
        raise Problems(found)
    return experiment


_TABLE_HINTS = {
    "protocol": 'write [protocol] with kind = "frozen" and world_model = "PRETRAINING EXPERIMENT"',
    "policy": 'write [policy] with plugin = "NAME"',
    "grid": "write [grid] with tasks and seeds",
}


def _plugin_table(value: _PluginValue, cls: type[PluginTable]) -> PluginTable:
    """The plugin first, then its table with that plugin's ``Config``."""
    if not isinstance(value.value, Mapping):
        raise problem(f"{describe(value.value)} where a table is wanted", 'write plugin = "NAME"')
    settings = dict(value.value)
    name = settings.pop("plugin", None)
    if not isinstance(name, str):
        installed = [item.name for item in list_plugins() if item.kind == value.kind]
        what = "missing" if name is None else f"{describe(name)} where a string is wanted"
        raise problem(what, f"installed plugins: {', '.join(installed) or 'none'}", "plugin")
    try:
        component = load_plugin(value.kind, name)
    except UserError as error:
        raise problem(error.what, error.remedy, "plugin") from error
    return cls(plugin=name, config=structure(settings, component.Config), component=component)


def _protocol(value: Any, _: type[Protocol]) -> Protocol:
    """The class that ``kind`` names."""
    if not isinstance(value, Mapping):
        raise problem(f"{describe(value)} where a table is wanted", _TABLE_HINTS["protocol"])
    kind = value.get("kind")
    if kind is None:
        raise problem("missing", f"known: {', '.join(PROTOCOLS)}", "kind")
    if not isinstance(kind, str) or kind not in PROTOCOLS:
        what = f"unknown protocol {kind!r}"
        raise problem(what, did_you_mean(str(kind), PROTOCOLS), "kind")
    protocol: Protocol = structure(value, PROTOCOLS[kind])
    return protocol


_HOOKS: dict[type[Any], Callable[[Any, Any], Any]] = {
    Experiment: _experiment,
    PluginTable: _plugin_table,
    Protocol: _protocol,
}
for _cls, _hook in _HOOKS.items():
    register(_cls, _hook)
