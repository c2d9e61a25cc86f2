"""Validators of single fields, for ``attrs.field(validator=...)``.

Unlike those of attrs, they do not name the key and the value, which every message already names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

Validator: TypeAlias = Callable[[object, object, Any], None]


def _every(good: Callable[[float], bool], wanted: str) -> Validator:
    """A validator of the value itself, every element of an array, or every value of a table."""

    def check(_: object, __: object, value: Any) -> None:
        numbers = value.values() if isinstance(value, dict) else value
        if not all(map(good, numbers if isinstance(value, dict | list) else [value])):
            raise ValueError(wanted)

    return check


positive = _every(lambda x: x > 0, "must be positive")
non_negative = _every(lambda x: x >= 0, "must not be negative")


def within(low: float, high: float, *, open_low: bool = False) -> Validator:
    """From ``low`` to ``high``, both included; ``open_low`` excludes ``low``."""
    wanted = f"must be in {'(' if open_low else '['}{low}, {high}]"
    return _every(lambda x: low <= x <= high and not (open_low and x == low), wanted)


def betas(_: object, __: object, value: list[float]) -> None:
    """Adam's two decay rates, each in [0, 1)."""
    if len(value) != 2 or not all(0 <= item < 1 for item in value):
        raise ValueError("must be two numbers in [0, 1)")


def unique(_: object, __: object, value: list[Any]) -> None:
    """No element twice."""
    twice = sorted({str(item) for item in value if value.count(item) > 1})
    if twice:
        raise ValueError(f"has {', '.join(twice)} more than once")


def filled(_: object, __: object, value: Any) -> None:
    """Not empty."""
    if not value:
        raise ValueError("must not be empty")


def project_name(_: object, __: object, value: str) -> None:
    """A name that W&B takes for a project."""
    if not re.fullmatch(r"[^/\\#?%:]{0,128}", value):
        raise ValueError("must have at most 128 characters, and none of / \\ # ? % :")
