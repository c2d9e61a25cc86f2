"""Strict structuring: plain values to attrs classes, with every problem reported at once.

cattrs does the dispatch on types. The hooks here make it strict: no coercion (``3.7`` is no
integer, ``"10"`` no number, ``true`` no number; an integer serves where a float is wanted), no
unknown keys, no non-finite floats. A problem carries the key path where it was found.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import attrs
import cattrs

from fmbpo.errors import did_you_mean


@attrs.frozen
class Problem:
    """One mistake: the key path to it (``("grid", "seeds", 1)``), what it is, how to mend it."""

    path: tuple[str | int, ...]
    what: str
    remedy: str = ""

    def below(self, key: str | int) -> Problem:
        """The same problem, seen from the table or array that holds ``key``."""
        return attrs.evolve(self, path=(key, *self.path))


class Problems(Exception):
    """All problems of one value."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(problem.what for problem in self.problems))


def problem(what: str, remedy: str = "", *path: str | int) -> Problems:
    """A single problem, ready to be raised."""
    return Problems([Problem(path, what, remedy)])


def describe(value: object) -> str:
    """The value with its type, in TOML's words: ``3.7 (a float)``."""
    words = {
        bool: "a boolean",
        int: "an integer",
        float: "a float",
        str: "a string",
        list: "an array",
        dict: "a table",
    }
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text} ({words.get(type(value), type(value).__name__)})"


def structure(value: object, cls: Any) -> Any:
    """``value`` as an instance of the type ``cls``; raises ``Problems`` with all of them."""
    try:
        return _CONVERTER.structure(value, cls)
    except Problems:
        raise
    except Exception as error:  # a type without a hook here: cattrs' own words
        raise problem(f"{describe(value)}: {_text(error)}", f"wanted: {_name(cls)}") from error


def _collect(found: list[Problem], key: str | int, value: object, cls: Any) -> Any:
    """``structure(value, cls)``; its problems go to ``found``, as problems below ``key``."""
    try:
        return structure(value, cls)
    except Problems as error:
        found.extend(item.below(key) for item in error.problems)
        return None


def structure_class(value: object, cls: type[Any]) -> Any:
    """A table as an instance of the attrs class: fields, then their validators, then the whole."""
    if not isinstance(value, Mapping):
        raise problem(f"{describe(value)} where a table is wanted", "give it keys of its own")
    try:
        hints = typing.get_type_hints(cls)
    except Exception as error:
        what = f"the types of {cls.__module__}.{cls.__qualname__} cannot be resolved: {error}"
        raise problem(
            what, "import what its annotations name, and not for type checkers"
        ) from error
    fields = {f.name: f for f in attrs.fields(cls) if f.init}
    found = [
        Problem((key,), "unknown key", did_you_mean(str(key), fields))
        for key in value
        if key not in fields
    ]
    given: dict[str, Any] = {}
    # Validators get a stand-in with the fields so far: the constructor stops at the first error.
    partial = object.__new__(cls)
    for name, field in fields.items():
        if name not in value:
            if field.default is attrs.NOTHING:
                found.append(Problem((name,), "missing", f"wanted: {_name(hints.get(name, Any))}"))
            continue
        wanted, raw = hints.get(name, Any), value[name]
        before = len(found)
        item = _collect(found, name, raw, wanted)
        if len(found) == before:
            try:
                kept = field.converter(item) if _plain(field) else item
            except Exception as error:
                found.append(Problem((name,), f"{describe(raw)}: {_text(error)}"))
                continue
            given[name] = item
            object.__setattr__(partial, name, kept)
    for name, item in given.items():
        validator = fields[name].validator
        if validator is not None:
            try:
                validator(partial, fields[name], item)
            except (ValueError, TypeError) as error:
                found.append(Problem((name,), f"{describe(value[name])}: {_text(error)}"))
            except AttributeError:
                if not found:  # it looks at a field that has its default: left to the constructor
                    continue
    if found:
        raise Problems(found)
    try:
        return cls(**{fields[name].alias or name: item for name, item in given.items()})
    except Exception as error:  # the class's own __attrs_post_init__, which may raise anything
        raise problem(_text(error)) from error


def _origin(cls: Any) -> Any:
    return get_origin(cls)


def _plain(field: Any) -> bool:
    return callable(field.converter) and not isinstance(field.converter, attrs.Converter)


def _text(error: BaseException) -> str:
    # attrs' own validators raise with the message first and the objects after it.
    return str(error.args[0]) if error.args else type(error).__name__


def _name(cls: Any) -> str:
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
    if get_origin(cls) is Literal:
        return " or ".join(repr(item) for item in get_args(cls))
    if get_origin(cls) in (Union, types.UnionType):
        return " or ".join(_name(item) for item in get_args(cls) if item is not type(None))
    if get_origin(cls) in (list, Sequence, tuple):
        return f"an array, each element {_name(get_args(cls)[0])}"
    if get_origin(cls) is dict or (isinstance(cls, type) and attrs.has(cls)):
        return "a table"
    return names.get(cls, getattr(cls, "__name__", str(cls)))


def _exact(kind: type) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise problem(f"{describe(value)} where {_name(kind)} is wanted")
        return value

    return hook


def _float(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise problem(f"{describe(value)} where a number is wanted")
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise problem(f"{describe(value)} where a finite number is wanted")
    return number


def _literal(value: Any, cls: Any) -> Any:
    for option in get_args(cls):
        if type(option) is type(value) and option == value:
            return value
    hint = did_you_mean(str(value), [str(option) for option in get_args(cls)])
    raise problem(f"{describe(value)} where {_name(cls)} is wanted", hint)


def _array(value: Any, cls: Any) -> Any:
    kind, (element, *_) = get_origin(cls), get_args(cls)
    if not isinstance(value, list | tuple):
        raise problem(f"{describe(value)} where {_name(cls)} is wanted", "write [...]")
    found: list[Problem] = []
    items = [_collect(found, index, item, element) for index, item in enumerate(value)]
    if found:
        raise Problems(found)
    return tuple(items) if kind is tuple else items


def _is_array(cls: Any) -> bool:
    kind, args = get_origin(cls), get_args(cls)
    return kind is list or (kind is tuple and len(args) == 2 and args[1] is Ellipsis)


def _mapping(value: Any, cls: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise problem(f"{describe(value)} where a table is wanted")
    found: list[Problem] = []
    element = get_args(cls)[1]
    items = {key: _collect(found, key, item, element) for key, item in value.items()}
    if found:
        raise Problems(found)
    return items


def _union(value: Any, cls: Any) -> Any:
    options = get_args(cls)
    if value is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    if len(options) == 1:
        return structure(value, options[0])
    for option in sorted(options, key=lambda option: option is not type(value)):
        try:
            return structure(value, option)
        except Problems:
            continue
    raise problem(f"{describe(value)} where {_name(cls)} is wanted")


_CONVERTER = cattrs.Converter(detailed_validation=False, forbid_extra_keys=True)
_CONVERTER.register_structure_hook_func(
    lambda cls: isinstance(cls, type) and attrs.has(cls), structure_class
)
_CONVERTER.register_structure_hook_func(_is_array, _array)
_CONVERTER.register_structure_hook_func(lambda cls: _origin(cls) is dict, _mapping)
_CONVERTER.register_structure_hook_func(lambda cls: _origin(cls) is Literal, _literal)
_CONVERTER.register_structure_hook_func(
    lambda cls: _origin(cls) in (Union, types.UnionType), _union
)
for _kind in (int, str, bool):
    _CONVERTER.register_structure_hook(_kind, _exact(_kind))
_CONVERTER.register_structure_hook(float, _float)


def register(cls: type[Any], hook: Callable[[Any, Any], Any]) -> None:
    """Let ``hook(value, cls)`` structure the class, and no other."""
    _CONVERTER.register_structure_hook_func(lambda given: given is cls, hook)


def plain(value: Any) -> Any:
    """An attrs instance, or any value in it, as tables, arrays and scalars that JSON can hold."""
    if attrs.has(type(value)):
        return {f.name: plain(getattr(value, f.name)) for f in attrs.fields(type(value)) if f.init}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
