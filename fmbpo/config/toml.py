"""From experiment files to one tree of plain values, with the origin of every value.

``extends = ["base/x.toml"]``
    Paths relative to this file, or to the file that it links to; ``fmbpo:base/x.toml`` is a file of
    the catalogue, wherever fmbpo is installed. Tables merge; values and arrays
    replace. A later file wins over an earlier one, and a file wins over those that it extends. A
    file reached twice counts once, at its first place. ``name``, ``aliases`` and ``description``
    are not inherited. Cycles are errors.
``[scale.NAME.table]``
    Values for one scale, which override the rest if this scale is chosen.
``-o table.key=value``
    Overrides, which win over everything else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import tomli

from fmbpo.base.files import display, path_of
from fmbpo.errors import UserError, did_you_mean

OVERRIDE = "override"
"""Origin of a value that ``-o`` set."""

_OF_CATALOGUE = "fmbpo:"
_OWN_KEYS = ("name", "aliases", "description")
NOT_IN_OVERLAY = ("extends", "scale", "name", "aliases", "kind")
"""Keys that cannot depend on the scale."""
DEEPEST = 100
"""The deepest nesting of tables and arrays, also in the key of an override."""
_KEY = re.compile(rf"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){{,{DEEPEST - 1}}}")
_WORD = re.compile(r"[A-Za-z_./~][A-Za-z0-9_./~+:@-]*")


@attrs.define
class Document:
    """Merged values: the ``tree`` of tables, and the ``origin`` of each value by its key path.

    ``files``: those that were read, each behind the files that it extends.
    """

    tree: dict[str, Any] = attrs.field(factory=dict)
    origin: dict[str, str] = attrs.field(factory=dict)
    files: list[Path] = attrs.field(factory=list)

    def lay(self, table: Mapping[str, Any], label: str | Callable[[str], str]) -> None:
        """Lay ``table`` over the tree; ``label``, or its result for a path, is the origin."""
        name = label if callable(label) else (lambda _: label)

        def lay(into: dict[str, Any], table: Mapping[str, Any], at: str) -> None:
            for key, value in table.items():
                path = f"{at}{key}"
                if isinstance(value, Mapping):
                    if not isinstance(into.get(key), dict):
                        into[key] = {}
                        self.origin[path] = name(path)
                    lay(into[key], value, f"{path}.")
                else:
                    for below in [p for p in self.origin if p.startswith(f"{path}.")]:
                        del self.origin[below]
                    into[key] = list(value) if isinstance(value, list) else value
                    self.origin[path] = name(path)

        lay(self.tree, table, "")


def folder_of(path: Path) -> Path:
    """The folder that paths in a file are relative to; of a link, that of the file itself."""
    return Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent


def read(path: Path) -> Document:
    """The file with everything that it extends; ``[scale]`` tables stay as they are.

    Raises ``UserError`` if a file is missing or is not TOML, and for cycles.
    """
    document = Document()
    _visit(path, document, [], set(), "")
    return document


def _visit(
    path: Path, document: Document, chain: list[Path], done: set[Path], mentioned: str
) -> None:
    """Lay the file over the document, after the files that it extends; skip files in ``done``."""
    real = Path(os.path.realpath(path))
    if real in chain:
        cycle = " -> ".join(display(p) for p in [*chain[chain.index(real) :], real])
        what = f"the files extend each other in a cycle: {cycle}"
        remedy = "remove one `extends` from the cycle"
        raise UserError(what, where=mentioned, remedy=remedy)
    if real in done:
        return
    table = _parse(path, mentioned)
    label = display(path)
    where = f"{label}, a link to {display(real)}" if path.is_symlink() else label
    extends = table.pop("extends", [])
    if not isinstance(extends, list) or not all(isinstance(item, str) for item in extends):
        what, remedy = "`extends` must be an array of paths", 'write extends = ["base/NAME.toml"]'
        raise UserError(what, where=f"{label}: extends", remedy=remedy)
    for item in extends:
        _visit(_extended(path, item), document, [*chain, real], done, f"{where}: extends")
    done.add(real)
    document.files.append(path)
    if chain:
        table = {key: value for key, value in table.items() if key not in _OWN_KEYS}
    document.lay(table, label)


def _extended(path: Path, item: str) -> Path:
    """The file that ``item`` of ``path``'s ``extends`` means."""
    if not item.startswith(_OF_CATALOGUE):
        return folder_of(path) / path_of(item)
    from fmbpo.config.catalogue import FOLDER  # which reads its files by this module

    return FOLDER / item.removeprefix(_OF_CATALOGUE)


def _parse(path: Path, mentioned: str) -> dict[str, Any]:
    label = display(path)
    try:
        return _loads(path.read_text(encoding="utf-8"), label)
    except FileNotFoundError:
        if path.is_symlink():
            mentioned, path = f"{mentioned or label}, a link", Path(os.path.realpath(path))
        known = [p.name for p in path.parent.glob("*.toml") if p.exists()]
        empty = f"{display(path.parent)} has no TOML file"
        remedy = did_you_mean(path.name, known) if known else empty
        raise UserError(f"no such file: {display(path)}", where=mentioned, remedy=remedy) from None
    except OSError as error:
        raise UserError(f"cannot be read: {error}", where=label, remedy="is it a file?") from None
    except ValueError as error:  # not UTF-8, or not TOML
        remedy = "quote strings; save it as UTF-8 without a byte-order mark"
        raise UserError(f"not TOML: {error}", where=label, remedy=remedy) from None


def _loads(text: str, where: str) -> dict[str, Any]:
    """The text's table; raises ``TOMLDecodeError``, or ``UserError`` for values beyond the limits.

    TOML guarantees integers of 64 bits. Without a limit of the depth, a few kilobytes exhaust the
    stack of any function that walks or prints the table.
    """
    try:
        table = tomli.loads(text)
        _measure(table, DEEPEST)
    except tomli.TOMLDecodeError:
        raise
    except (RecursionError, ValueError):  # also Python's own, of integers with thousands of digits
        what = f"an integer has more than 64 bits, or values are nested more than {DEEPEST} deep"
        remedy = "write a smaller number, or a float; look for extra brackets or dots"
        raise UserError(what, where=where, remedy=remedy) from None
    return table


def _measure(value: Any, deepest: int) -> None:
    """Raise ``ValueError`` if an integer is too large or the nesting is too deep."""
    if deepest < 0 or (type(value) is int and not -(2**63) <= value < 2**63):
        raise ValueError
    inside = value.values() if isinstance(value, dict) else value
    for item in inside if isinstance(value, dict | list) else ():
        _measure(item, deepest - 1)


def scales(document: Document) -> list[str]:
    """Names of the scales that the document defines by ``[scale.NAME]``."""
    table = document.tree.get("scale", {})
    wrong = ["scale"]
    if isinstance(table, dict):
        wrong = [f"scale.{name}" for name, inner in table.items() if not isinstance(inner, dict)]
    if wrong:
        raise UserError(
            "`scale` must hold a table of values per scale",
            where=f"{document.origin.get(wrong[0], '')}: {wrong[0]}",
            remedy="write [scale.NAME.TABLE] in the file, and choose a scale with --scale NAME",
        )
    return list(table)


def apply_scale(document: Document, name: str) -> None:
    """Lay ``[scale.name]`` over the rest, if it exists, and drop every ``[scale]`` table."""
    defined = scales(document)
    table = document.tree.pop("scale", {})
    inner = {k: document.origin.pop(k) for k in list(document.origin) if k.split(".")[0] == "scale"}
    if name not in defined:
        return
    for key in NOT_IN_OVERLAY:
        if key in table[name]:
            raise UserError(
                f"{key!r} cannot depend on the scale",
                where=f"{inner.get(f'scale.{name}.{key}', '')}: scale.{name}.{key}",
                remedy=f"write {key!r} outside [scale.{name}]",
            )
    document.lay(table[name], lambda path: f"scale {name} ({inner[f'scale.{name}.{path}']})")


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Lay ``key.path=value`` strings over the document; the last one wins.

    A value is TOML (``3``, ``0.5``, ``true``, ``"text"``, ``[1, 2]``), or a plain word or path,
    which is a string. Raises ``UserError`` for anything else.
    """
    for text in [overrides] if isinstance(overrides, str) else overrides:
        path, value = parse_override(text)
        node: Any = document.tree
        for key in path[:-1]:
            node = node.get(key, {})
            if not isinstance(node, dict):
                what, remedy = f"{key} is a value and has no keys", f"override {key} itself"
                raise UserError(what, where=f"-o {text}", remedy=remedy)
        for key in reversed(path):
            value = {key: value}
        document.lay(value, OVERRIDE)


def parse_override(text: str) -> tuple[list[str], Any]:
    """``"a.b=3"`` -> ``(["a", "b"], 3)``; raises ``UserError`` for bad syntax."""
    where = f"-o {_short(text)}"
    key, equals, raw = (part.strip() for part in text.partition("="))
    if not equals or not _KEY.fullmatch(key):
        raise UserError("not an override", where=where, remedy="write -o table.key=value")
    path = key.split(".")
    if path[0] in ("extends", "scale"):
        remedy = "use --scale NAME" if path[0] == "scale" else "extend in an experiment file"
        raise UserError(f"{path[0]!r} cannot be overridden", where=where, remedy=remedy)
    try:
        parsed = _loads(f"value = {raw}", where)
    except tomli.TOMLDecodeError:
        parsed = {"value": raw} if _WORD.fullmatch(raw) else {}
    if list(parsed) != ["value"]:
        what = f"{_short(raw)!r} is not a TOML value"
        remedy = """quote a string for TOML and for the shell: -o 'table.key="some text"'"""
        raise UserError(what, where=where, remedy=remedy)
    return path, parsed["value"]


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:97] + "..."
