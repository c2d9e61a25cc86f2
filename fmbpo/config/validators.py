"""Validators of single fields, for ``attrs.field(validator=...)``.

Unlike those of attrs, they do not repeat the key and the value, which every message names anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Validator: TypeAlias = Callable[[object, object, Any], None]


def positive(_: object, __: object, value: Any) -> None:
    """Above zero; so is every element of an array and every value of a table."""
    if not all(item > 0 for item in _numbers(value)):
        raise ValueError("must be positive")


def non_negative(_: object, __: object, value: Any) -> None:
    """Zero or above; so is every element of an array and every value of a table."""
    if not all(item >= 0 for item in _numbers(value)):
        raise ValueError("must not be negative")


def within(low: float, high: float, *, open_low: bool = False) -> Validator:
    """From ``low`` to ``high``, both included (but not ``low`` itself if ``open_low``)."""

    def check(_: object, __: object, value: float) -> None:
        if not low <= value <= high or (open_low and value == low):
            raise ValueError(f"must lie in {'(' if open_low else '['}{low}, {high}]")

    return check


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


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else [value]
