"""Strict structuring of plain values to attrs classes, with every problem reported at once.

``structure`` reads and ``plain`` writes the experiments' TOML and the runs' JSON. cattrs dispatches
on types. The hooks here make it strict: no coercion (``3.7`` is not an integer, ``"10"`` and
``true`` are not numbers; an integer is accepted as a float), no unknown keys, no non-finite floats.
"""

from __future__ import annotations

import contextlib
import functools
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
import cattrs

from fmbpo.base.files import read_json
from fmbpo.errors import UserError, did_you_mean

T = TypeVar("T")
IF_KNOWN = {"if_known": True}
"""Metadata of a field that ``plain`` omits if it is None."""
_DERIVED: dict[Any, tuple[str, ...]] = {}


@attrs.frozen
class Problem:
    """One mistake: its key path (``("grid", "seeds", 1)``), the problem and the remedy."""

    path: tuple[str | int, ...]
    what: str
    remedy: str = ""

    @property
    def key(self) -> str:
        """The key path as text: ``grid.seeds[1]``."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return "".join(parts).removeprefix(".")

    def __str__(self) -> str:
        return f"{self.key}: {self.what}" if self.path else self.what


class Problems(Exception):
    """All problems of one value."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(map(str, self.problems)))


def problem(what: str, remedy: str = "", *path: str | int) -> Problems:
    """A single problem, ready to raise."""
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


def structure(value: object, cls: type[T]) -> T:
    """``value`` as an instance of the type ``cls``. Raises ``Problems`` with every mistake."""
    try:
        return _CONVERTER.structure(value, cls)
    except Problems:
        raise
    except Exception as error:  # from cattrs, for a type without a hook here
        raise problem(f"{describe(value)}: {_text(error)}", f"wanted: {_name(cls)}") from error


def takes(cls: Any, within: tuple[Any, ...] = ()) -> bool:
    """Whether ``structure`` makes values of this type from TOML, and ``plain`` gives them back.

    ``within``: the classes that it stands in. Raises as ``typing.get_type_hints``.
    """
    kind, args = get_origin(cls), get_args(cls)
    if kind is Literal:
        return all(type(option) in (int, str, bool) for option in args)
    if kind in (dict, Mapping):
        return len(args) == 2 and args[0] is str and takes(args[1], within)
    if _is_array(cls):
        return args != () and takes(args[0], within)
    if kind in (Union, types.UnionType):
        return all(takes(arg, within) for arg in args)
    if isinstance(cls, type) and attrs.has(cls):
        hints, within = _hints(cls), (*within, cls)
        fields = [hints.get(f.name, Any) for f in attrs.fields(cls) if f.init]
        return all(hint in within or takes(hint, within) for hint in fields)
    return cls in (int, float, bool, str, type(None), Any)


def fit(value: object, cls: type[T]) -> T | None:
    """``structure(value, cls)``; None if the value does not fit the type."""
    with contextlib.suppress(Problems):
        return structure(value, cls)
    return None


def read_as(path: Path, cls: type[T]) -> T | None:
    """A JSON file's content as a ``cls``; None if it is missing, damaged or of another type."""
    with contextlib.suppress(UserError):
        return fit(read_json(path), cls)
    return None


def derived(*names: str) -> Callable[[type[T]], type[T]]:
    """Decorates an attrs class: ``plain`` writes these properties before the fields, and
    ``structure`` requires numbers that agree with them."""

    def keep(cls: type[T]) -> type[T]:
        _DERIVED[cls] = names
        return cls

    return keep


def agree(a: float, b: float) -> bool:
    """Whether two numbers are equal within 1e-6, relative or absolute."""
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)


@contextlib.contextmanager
def _noting(found: list[Problem], key: str | int, value: object) -> Iterator[None]:
    """Append problems that are raised for ``value``, with ``key`` in their path, to ``found``."""
    try:
        yield
    except Problems as error:
        found.extend(attrs.evolve(item, path=(key, *item.path)) for item in error.problems)
    except UserError as error:
        found.append(Problem((key,), error.what, error.remedy))
    except Exception as error:  # from a converter or a validator
        found.append(Problem((key,), f"{describe(value)}: {_text(error)}"))


def _structure_all(pairs: Iterable[tuple[Any, object]], cls: Any) -> dict[Any, Any]:
    """Each value structured, by its key or index; raises the problems of all values."""
    found: list[Problem] = []
    items = {}
    for key, value in pairs:
        with _noting(found, key, value):
            items[key] = structure(value, cls)
    if found:
        raise Problems(found)
    return items


_hints: Callable[[type], dict[str, Any]] = functools.cache(typing.get_type_hints)


def structure_class(value: object, cls: type[Any]) -> Any:
    """A table as an instance of the attrs class; checks fields, then validators, then the whole."""
    if not isinstance(value, Mapping):
        raise problem(f"{describe(value)} instead of a table", "give it its own keys")
    try:
        hints = _hints(cls)
    except Exception as error:
        what = f"the types of {cls.__module__}.{cls.__qualname__} cannot be resolved: {error}"
        remedy = "import the names in its annotations, and not under `if TYPE_CHECKING`"
        raise problem(what, remedy) from error
    fields = {f.name: f for f in attrs.fields(cls) if f.init}
    numbers = _DERIVED.get(cls, ())
    found = [
        Problem((key,), "unknown key", did_you_mean(str(key), fields))
        for key in value
        if key not in fields and key not in numbers
    ]
    given: dict[str, Any] = {}
    # Validators get a partial instance, since the constructor stops at the first error.
    partial = object.__new__(cls)
    for name in (*numbers, *fields):
        field, wanted = fields.get(name), float if name in numbers else hints.get(name, Any)
        if name in value:
            with _noting(found, name, value[name]):
                item = structure(value[name], wanted)
                if field:
                    kept = field.converter(item) if _plain(field) else item
                    object.__setattr__(partial, name, kept)
                    given[name] = item
        elif field is None or field.default is attrs.NOTHING:
            found.append(Problem((name,), "missing", f"wanted: {_name(wanted)}"))
    for name in given:
        if (validator := fields[name].validator) is not None:
            # A validator that reads a defaulted field is left to the constructor.
            with _noting(found, name, value[name]), contextlib.suppress(AttributeError):
                validator(partial, fields[name], getattr(partial, name))
    if found:
        raise Problems(found)
    try:
        made = cls(**{fields[name].alias or name: item for name, item in given.items()})
    except Exception as error:  # __attrs_post_init__ may raise anything
        raise problem(_text(error)) from error
    for name in numbers:
        if not agree(value[name], right := getattr(made, name)):
            raise problem(f"is {value[name]}, but the other keys give {right}", "", name)
    return made


def _plain(field: Any) -> bool:
    return callable(field.converter) and not isinstance(field.converter, attrs.Converter)


def _text(error: BaseException) -> str:
    # attrs' validators raise with the message first and the objects after it.
    return str(error.args[0]) if error.args else type(error).__name__


def _name(cls: Any) -> str:
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
    if get_origin(cls) is Literal:
        return " or ".join(repr(item) for item in get_args(cls))
    if get_origin(cls) in (Union, types.UnionType):
        return " or ".join(_name(item) for item in get_args(cls) if item is not type(None))
    if get_origin(cls) in (list, Sequence, tuple):
        return f"an array, each element {_name(get_args(cls)[0])}"
    if get_origin(cls) in (dict, Mapping) or (isinstance(cls, type) and attrs.has(cls)):
        return "a table"
    return names.get(cls, getattr(cls, "__name__", str(cls)))


def _exact(kind: type) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise problem(f"{describe(value)} instead of {_name(kind)}")
        return value

    return hook


def _float(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise problem(f"{describe(value)} instead of a number")
    if not math.isfinite(value):
        raise problem(f"{describe(value)} instead of a finite number")
    return float(value)


def _literal(value: Any, cls: Any) -> Any:
    if any(type(option) is type(value) and option == value for option in get_args(cls)):
        return value
    hint = did_you_mean(str(value), map(str, get_args(cls)))
    raise problem(f"{describe(value)} instead of {_name(cls)}", hint)


def _array(value: Any, cls: Any) -> Any:
    kind, (element, *_) = get_origin(cls), get_args(cls)
    if not isinstance(value, list | tuple):
        raise problem(f"{describe(value)} instead of {_name(cls)}", "write [...]")
    items = _structure_all(enumerate(value), element).values()
    return tuple(items) if kind is tuple else list(items)


def _is_array(cls: Any) -> bool:
    kind, args = get_origin(cls), get_args(cls)
    return kind in (list, Sequence) or (kind is tuple and args[1:] == (Ellipsis,))


def _mapping(value: Any, cls: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise problem(f"{describe(value)} instead of a table")
    return _structure_all(value.items(), get_args(cls)[1])


def _union(value: Any, cls: Any) -> Any:
    if value is None and type(None) in get_args(cls):
        return None
    options = [option for option in get_args(cls) if option is not type(None)]
    if len(options) == 1:
        return structure(value, options[0])
    for option in sorted(options, key=lambda option: option is not type(value)):
        with contextlib.suppress(Problems):
            return structure(value, option)
    raise problem(f"{describe(value)} instead of {_name(cls)}")


def _of(*origins: Any) -> Callable[[Any], bool]:
    return lambda cls: get_origin(cls) in origins


_CONVERTER = cattrs.Converter(detailed_validation=False, forbid_extra_keys=True)
_CONVERTER.register_structure_hook_func(
    lambda cls: isinstance(cls, type) and attrs.has(cls), structure_class
)
_CONVERTER.register_structure_hook_func(_is_array, _array)
_CONVERTER.register_structure_hook_func(_of(dict, Mapping), _mapping)
_CONVERTER.register_structure_hook_func(_of(Literal), _literal)
_CONVERTER.register_structure_hook_func(_of(Union, types.UnionType), _union)
for _kind in (int, str, bool):
    _CONVERTER.register_structure_hook(_kind, _exact(_kind))
_CONVERTER.register_structure_hook(float, _float)


def register(cls: type[Any], hook: Callable[[Any, Any], Any]) -> None:
    """Let ``hook(value, cls)`` structure this class, but not its subclasses."""
    _CONVERTER.register_structure_hook_func(lambda given: given is cls, hook)


def plain(value: Any) -> Any:
    """An attrs instance, or any value in it, as JSON values."""
    if attrs.has(type(value)):
        more = {name: getattr(value, name) for name in _DERIVED.get(type(value), ())}
        pairs = ((f, getattr(value, f.name)) for f in attrs.fields(type(value)) if f.init)
        return more | {
            f.name: plain(item)
            for f, item in pairs
            if item is not None or not f.metadata.get("if_known")
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
