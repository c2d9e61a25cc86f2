"""A JSON Schema (draft 2020-12) of experiment and study files, so that editors complete and check.

It is read off the classes that structure the files, ``Config`` of every installed plugin included:
types, defaults, docstrings, and the rules that validators tell (``fmbpo.config.validators``, and
attrs' own). It judges one file by itself, before anything is merged:

* What a file holds must be right: no unknown key, no wrong type, no value out of range.
  ``[policy]`` and ``[world_model]`` must fit the plugin that they name, ``[protocol]`` its
  ``kind``; where it is not named, one of them must have all the keys. ``kind = "pretrain"`` rules
  out the tables of policies.
* What an experiment leaves out is not demanded, not even ``kind``: it may come from a file that
  this one extends, or that extends this one, or from the command line. A study says that it is one,
  and needs its factors and cells unless it extends something.
* Rules between keys, and those of validators that tell none, are left to ``fmbpo check``. So are
  differences that JSON does not know: to it, 3.0 is an integer, and ``nan`` a number.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from fmbpo.base.structure import plain
from fmbpo.config.docstrings import meanings, summary
from fmbpo.config.load import RESERVED
from fmbpo.config.protocols import PROTOCOLS, Protocol
from fmbpo.config.schema import POLICY_TABLES, Experiment, PluginTable
from fmbpo.config.study_file import StudyConfig
from fmbpo.config.toml import NOT_IN_OVERLAY
from fmbpo.errors import UserError
from fmbpo.plugins import Listing, list_plugins, load_plugin

Schema = dict[str, Any]

_SCALARS = {int: "integer", float: "number", bool: "boolean", str: "string"}
_PYTHON: dict[str, Any] = {
    **{word: kind for kind, word in _SCALARS.items()},
    "number": (int, float),
    "array": list,
    "object": dict,
}
_EXTENDS = {
    "type": "array",
    "items": {"type": "string"},
    "description": "Files whose values this one takes over, relative to it; later ones win.",
}


def schema_text(
    plugins: Iterable[Listing] | None = None, say: Callable[[str], None] = lambda _: None
) -> str:
    """``file_schema`` as JSON text that ends in a newline."""
    return json.dumps(file_schema(plugins, say), indent=2, allow_nan=False) + "\n"


def file_schema(
    plugins: Iterable[Listing] | None = None, say: Callable[[str], None] = lambda _: None
) -> Schema:
    """The schema with these plugins, by default all that are installed.

    A plugin that cannot be loaded is left out; ``say`` is told which, and why.
    """
    listings = list_plugins() if plugins is None else list(plugins)
    tables = _tables({(item.kind, item.name): item for item in listings}, say)
    experiment = _table(Experiment, skip={"scale", *RESERVED, *tables})["properties"]
    experiment |= {name: {"$ref": f"#/$defs/{name}"} for name in tables}
    overlay = {key: value for key, value in experiment.items() if key not in NOT_IN_OVERLAY}
    experiment["scale"] = {
        "type": "object",
        "additionalProperties": {"$ref": "#/$defs/overlay"},
        "description": "Values for one scale each, `[scale.NAME.TABLE]`, laid over the rest.",
    }
    study = _table(StudyConfig)["properties"]
    shared = [key for key in experiment if key in study and experiment[key] != study[key]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An experiment or a study of fmbpo",
        "type": "object",
        "properties": {
            "extends": _EXTENDS,
            **study,
            **experiment,
            **{key: {"anyOf": [experiment[key], study[key]]} for key in shared},
        },
        "additionalProperties": False,
        "if": _says("kind", "study"),
        "then": {
            "properties": {
                **{key: False for key in experiment if key not in study},
                **{key: study[key] for key in shared},
            },
            **_whole_study(),
        },
        "else": {
            "properties": {
                **{key: False for key in study if key not in experiment},
                **{key: experiment[key] for key in shared},
            },
            "if": _says("kind", "pretrain"),
            "then": {"properties": dict.fromkeys(POLICY_TABLES, False)},
        },
        "$defs": {**tables, "overlay": _object(overlay, "Values for one scale.")},
    }


def config_schema(cls: type[Any]) -> Schema:
    """A plugin's ``Config`` as a table; the key ``plugin`` is not in it.

    Raises ``ValueError`` where JSON has no word for a default or a rule, and whatever the
    plugin's own classes raise.
    """
    table = _table(cls)
    json.dumps(table, allow_nan=False)
    return table


def fits(value: Any, entry: Schema) -> bool:
    """Whether a plain value has the type that an entry of a table describes.

    Looks at types, words and keys; ranges, lengths and patterns are the validators' affair. What
    is not set, None, always fits.
    """
    if value is None:
        return True
    if "anyOf" in entry:
        return any(fits(value, option) for option in entry["anyOf"])
    kind = entry.get("type", "")
    if kind and (
        not isinstance(value, _PYTHON[kind]) or isinstance(value, bool) != (kind == "boolean")
    ):
        return False
    words = [entry["const"]] if "const" in entry else entry.get("enum", [value])
    if not any(isinstance(w, bool) == isinstance(value, bool) and w == value for w in words):
        return False
    if kind == "array":
        return all(fits(item, entry["items"]) for item in value)
    if kind == "object":
        known, others = entry.get("properties", {}), entry.get("additionalProperties", {})
        return all(
            (key in known or others is not False) and fits(item, known.get(key, others))
            for key, item in value.items()
        )
    return True


def _says(key: str, value: str) -> Schema:
    return {"properties": {key: {"const": value}}, "required": [key]}


def _whole_study() -> Schema:
    """What a study must have that extends nothing."""
    whole = _table(StudyConfig, whole=True)
    cell = whole["properties"]["cells"]["additionalProperties"]["required"]
    return {
        "if": {"required": ["extends"]},
        "else": {
            "properties": {"cells": {"additionalProperties": {"required": cell}}},
            "required": whole["required"],
        },
    }


def _tables(
    plugins: Mapping[tuple[str, str], Listing], say: Callable[[str], None]
) -> dict[str, Schema]:
    """The tables of an experiment by name."""
    hints = typing.get_type_hints(Experiment)
    tables: dict[str, Schema] = {}
    for name in (field.name for field in attrs.fields(Experiment)):
        for cls in (hints[name], *get_args(hints[name])):
            if cls is PluginTable:
                ours = [listing for (kind, _), listing in plugins.items() if kind == name]
                branches = [branch for item in ours if (branch := _plugin(item, say))]
                tables[name] = _either("Which plugin, and all its settings.", *branches)
            elif cls is Protocol:
                tables[name] = _either(summary(cls), *(_table(c) for c in PROTOCOLS.values()))
            elif isinstance(cls, type) and attrs.has(cls):
                tables[name] = _table(cls)
    return tables


def _either(description: str, *branches: Schema) -> Schema:
    """A table that one of the branches describes; with no branch, none is right."""
    choice: Schema = {"anyOf": list(branches)} if branches else {"not": {}}
    return {"description": description, "type": "object", **choice}


def _plugin(listing: Listing, say: Callable[[str], None]) -> Schema | None:
    """The plugin's table, recognised by its key ``plugin``."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # factories of defaults may print
            table = config_schema(load_plugin(listing.kind, listing.name).Config)
    except UserError as error:
        say(f"left out of the schema: {error}")
        return None
    except Exception as error:  # the plugin's own classes, of which nothing is certain
        what = f"{type(error).__name__}: {error}"
        say(f"left out of the schema: {listing.kind} {listing.name} ({listing.value}): {what}")
        return None
    which = {"const": listing.name, "description": meanings(PluginTable)["plugin"]}
    table["properties"] = {"plugin": which, **table["properties"]}
    return {"title": f"{listing.kind} {listing.name}", **table}


def _table(
    cls: type[Any],
    *,
    whole: bool = False,
    skip: Iterable[str] = (),
    above: tuple[type[Any], ...] = (),
) -> Schema:
    """An attrs class as a table; ``whole`` demands the keys that have no default."""
    if cls in above:  # it holds itself
        return {"type": "object"}
    hints = typing.get_type_hints(cls)
    fields = [field for field in attrs.fields(cls) if field.init and field.name not in skip]
    texts, properties = meanings(cls), dict[str, Schema]()
    for field in fields:
        entry = _typed(hints.get(field.name, Any), whole, (*above, cls))
        _constrain(entry, field.validator)
        if field.name in texts:
            entry["description"] = texts[field.name]
        _add_default(entry, field.default)
        properties[field.name] = entry
    table = _object(properties, summary(cls))
    required = [field.name for field in fields if field.default is attrs.NOTHING]
    return {**table, "required": required} if whole and required else table


def _object(properties: Mapping[str, Any], description: str) -> Schema:
    table = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return {"description": description, **table} if description else table


def _typed(hint: Any, whole: bool, above: tuple[type[Any], ...]) -> Schema:
    """The type of a value; anything where it is none that structuring knows."""
    kind, args = get_origin(hint), get_args(hint)
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if kind is Literal:
        return {"const": args[0]} if len(args) == 1 else {"enum": list(args)}
    if kind is list or (kind is tuple and args[1:] == (Ellipsis,)):
        # An array replaces the one that it is laid over: its tables are whole.
        return {"type": "array", "items": _typed(args[0], True, above)}
    if kind is dict:
        return {"type": "object", "additionalProperties": _typed(args[1], whole, above)}
    if kind in (Union, types.UnionType):
        options = [_typed(arg, whole, above) for arg in args if arg is not type(None)]
        return options[0] if len(options) == 1 else {"anyOf": options}
    if isinstance(hint, type) and attrs.has(hint):
        return _table(hint, whole=whole, above=above)
    return {}


def _add_default(entry: Schema, default: Any) -> None:
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        if default.takes_self:
            return  # it depends on other keys
        default = default.factory()
    if default is not attrs.NOTHING and default is not None:
        entry["default"] = plain(default)


_v = attrs.validators
_AND: type[Any] = type(_v.and_())
_OPTIONAL: type[Any] = type(_v.optional(_v.gt(0)))
_DEEP: type[Any] = type(_v.deep_iterable(_v.gt(0)))
_BOUND: type[Any] = type(_v.gt(0))
_AMONG: type[Any] = type(_v.in_([]))
_MIN_LEN: type[Any] = type(_v.min_len(0))
_MAX_LEN: type[Any] = type(_v.max_len(0))

_BOUNDS = {"<": "exclusiveMaximum", "<=": "maximum", ">": "exclusiveMinimum", ">=": "minimum"}
_OF_NUMBERS = ("multipleOf", *_BOUNDS.values())
_LENGTHS = {"string": "Length", "array": "Items", "object": "Properties"}
_OF_ONE_TYPE = {
    "pattern": "string",
    "uniqueItems": "array",
    **{f"{which}{word}": kind for kind, word in _LENGTHS.items() for which in ("min", "max")},
}


def _constrain(entry: Schema, validator: Any) -> None:
    """Add what the validator tells of its rule: in ``json_schema``, or as one of attrs' own."""
    kind = entry.get("type", "")
    if isinstance(validator, _AND):
        for part in validator._validators:
            _constrain(entry, part)
    elif isinstance(validator, _OPTIONAL):
        _constrain(entry, validator.validator)
    elif isinstance(validator, _DEEP):
        _constrain(entry, validator.iterable_validator)
        _constrain(entry.get("items", {}), validator.member_validator)
    elif isinstance(validator, _BOUND):
        bound = validator.bound  # of strings too, which JSON Schema cannot compare
        if type(bound) in (int, float) and math.isfinite(bound):
            _add(entry, {_BOUNDS[validator.compare_op]: bound})
    elif isinstance(validator, _AMONG):
        options = list(validator.options) if isinstance(validator.options, tuple) else []
        if kind and options and all(type(item) in _SCALARS for item in options):
            _add(entry, {"enum": options})
    elif isinstance(validator, _MIN_LEN):
        _add(entry, {f"min{word}": validator.min_length for word in _LENGTHS.values()})
    elif isinstance(validator, _MAX_LEN):
        _add(entry, {f"max{word}": validator.max_length for word in _LENGTHS.values()})
    else:
        _add(entry, getattr(validator, "json_schema", {}))


def _add(entry: Schema, keywords: Mapping[str, Any]) -> None:
    """Add the keywords that say something of the entry's type; of numbers, to those in it."""
    kind = entry.get("type", "")
    for keyword, value in keywords.items():
        if keyword in _OF_NUMBERS and kind == "array":
            _add(entry["items"], {keyword: value})
        elif keyword in _OF_NUMBERS and kind == "object":
            _add(entry["additionalProperties"], {keyword: value})
        elif keyword in entry:
            entry.setdefault("allOf", []).append({keyword: value})
        elif _OF_ONE_TYPE.get(keyword, kind) == kind:
            entry[keyword] = value
