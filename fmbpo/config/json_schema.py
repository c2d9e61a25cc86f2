"""A JSON Schema (draft 2020-12) of experiment and study files, for editors.

It follows the classes that structure the files and the ``Config`` of every installed plugin: keys,
types, words (``Literal``), defaults and docstrings. It describes one file before merging, and thus
requires no key: a missing value may come from a file that this one extends. ``[policy]`` and
``[world_model]`` must fit the plugin that they name, ``[protocol]`` its ``kind``; if a table names
neither, one plugin or kind must have all its keys. ``fmbpo check`` checks ranges, lengths and rules
between keys.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import json
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from fmbpo.base.structure import plain
from fmbpo.config.load import RESERVED
from fmbpo.config.protocols import PROTOCOLS, Protocol
from fmbpo.config.schema import POLICY_TABLES, Experiment, PluginTable, tables
from fmbpo.config.study_file import StudyConfig
from fmbpo.config.toml import NOT_IN_OVERLAY
from fmbpo.errors import UserError
from fmbpo.plugins import Listing, list_plugins, load_plugin

Schema = dict[str, Any]

_SCALARS = {int: "integer", float: "number", bool: "boolean", str: "string"}
_EXTENDS = {
    "type": "array",
    "items": {"type": "string"},
    "description": "Files, relative to this one or fmbpo:base/NAME.toml, whose values it inherits; "
    "later files win.",
}


def schema_text(
    plugins: Iterable[Listing] | None = None, say: Callable[[str], None] = lambda _: None
) -> str:
    """The schema as JSON text with a final newline; ``plugins`` defaults to all installed ones.

    A plugin that cannot be loaded is left out; ``say`` receives its name and the reason.
    """
    offered = {(p.kind, p.name): p for p in (list_plugins() if plugins is None else plugins)}
    defined: dict[str, Schema] = {}
    for name, cls in tables().items():
        if cls is PluginTable:
            ours = [plugin for (kind, _), plugin in offered.items() if kind == name]
            branches = [branch for plugin in ours if (branch := _plugin(plugin, say))]
            defined[name] = _either("The plugin and all its settings.", branches)
        elif cls is Protocol:
            defined[name] = _either(summary(cls), [_table(kind) for kind in PROTOCOLS.values()])
        else:
            defined[name] = _table(cls)
    return json.dumps(_file(defined), indent=2, allow_nan=False) + "\n"


def plain_default(field: attrs.Attribute[Any]) -> Any:
    """The default as ``plain`` values; None if there is none or it depends on other keys."""
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = None if default.takes_self else default.factory()
    return None if default is attrs.NOTHING else plain(default)


def _file(defined: Mapping[str, Schema]) -> Schema:
    """The whole schema. All keys are at the top level: editors do not complete conditional ones."""
    experiment = _table(Experiment, skip=("scale", *RESERVED, *defined))["properties"]
    experiment |= {name: {"$ref": f"#/$defs/{name}"} for name in defined}
    overlay = {key: value for key, value in experiment.items() if key not in NOT_IN_OVERLAY}
    experiment["scale"] = {
        "type": "object",
        "additionalProperties": {"$ref": "#/$defs/overlay"},
        "description": "Values for one scale, `[scale.NAME.TABLE]`, which override the rest.",
    }
    study = _table(StudyConfig)["properties"]
    kinds = [*experiment["kind"]["enum"], *study["kind"]["enum"]]
    of_studies = [key for key in study if key not in experiment]
    foreign = {
        "pretrain": [*POLICY_TABLES, *of_studies],
        "policy": of_studies,
        "study": [key for key in experiment if key not in study],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An experiment or a study of fmbpo",
        "type": "object",
        "properties": {"extends": _EXTENDS, **study, **experiment, "kind": {"enum": kinds}},
        "additionalProperties": False,
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"properties": dict.fromkeys(keys, False)},
            }
            for kind, keys in foreign.items()
        ],
        "$defs": {**defined, "overlay": _object(overlay, "Values for one scale.")},
    }


def _plugin(listing: Listing, say: Callable[[str], None]) -> Schema | None:
    """The schema of the plugin's table, whose key ``plugin`` names it; None if it has no schema."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # factories of defaults may print
            table = _table(load_plugin(listing.kind, listing.name).Config)
        json.dumps(table, allow_nan=False)
    except UserError as error:
        say(f"left out of the schema: {error}")
        return None
    except Exception as error:  # the plugin's classes may raise anything
        what = f"{type(error).__name__}: {error}"
        say(f"left out of the schema: {listing.kind} {listing.name} ({listing.value}): {what}")
        return None
    means = meanings(PluginTable)
    own = {
        "plugin": {"const": listing.name, "description": means["plugin"]},
        "level": {"type": "string", "description": means["level"]},
    }
    table["properties"] = {**own, **table["properties"]}
    return {"title": f"{listing.kind} {listing.name}", **table}


def _either(description: str, branches: list[Schema]) -> Schema:
    """A table that fits one of the branches; without branches, no table is valid."""
    choice: Schema = {"anyOf": branches} if branches else {"not": {}}
    return {"description": description, "type": "object", **choice}


def _table(cls: type[Any], skip: Collection[str] = ()) -> Schema:
    """An attrs class as a table."""
    hints, texts, properties = typing.get_type_hints(cls), meanings(cls), dict[str, Schema]()
    for field in attrs.fields(cls):
        if not field.init or field.name in skip:
            continue
        entry = _typed(hints.get(field.name, Any))
        if field.name in texts:
            entry["description"] = texts[field.name]
        default = plain_default(field)
        if default is not None:
            entry["default"] = default
        properties[field.name] = entry
    return _object(properties, summary(cls))


def _object(properties: Schema, description: str) -> Schema:
    table = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"description": description, **table} if description else table


def _typed(hint: Any) -> Schema:
    """The schema of a value's type; it admits anything if ``structure`` does not know the type."""
    kind, args = get_origin(hint), get_args(hint)
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if kind is Literal:
        return {"enum": list(args)}
    if kind in (list, Sequence) or (kind is tuple and args[1:] == (Ellipsis,)):
        return {"type": "array", "items": _typed(args[0])}
    if kind in (dict, Mapping):
        return {"type": "object", "additionalProperties": _typed(args[1])}
    if kind in (Union, types.UnionType):
        options = [_typed(arg) for arg in args if arg is not type(None)]
        return options[0] if len(options) == 1 else {"anyOf": options}
    if isinstance(hint, type) and attrs.has(hint):
        return _table(hint)
    return {}


def meanings(cls: type[Any]) -> dict[str, str]:
    """Docstrings of the fields, including those of base classes, each as one line of Markdown.

    Fields without a docstring, and fields of classes without source, are left out.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            (node,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError, ValueError):  # a class made at run time
            continue
        for pair in itertools.pairwise(node.body if isinstance(node, ast.ClassDef) else []):
            match pair:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    found[name] = _markdown(text)
    return found


def summary(cls: type[Any]) -> str:
    """The class's docstring as one line of Markdown, without the table's name before the colon."""
    text = _markdown(inspect.getdoc(cls) or "")
    table, colon, rest = text.partition("]`: ")
    text = rest if colon and table.startswith("`[") else text
    return text[:1].upper() + text[1:]


def _markdown(text: str) -> str:
    return " ".join(text.replace("``", "`").split())
