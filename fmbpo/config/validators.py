"""Validators of single fields, for ``attrs.field(validator=...)``.

Each carries its rule in the words of JSON Schema too, as ``json_schema``: words for numbers hold
for every element of an array. A plugin may write its own validators in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Validator: TypeAlias = Callable[[Any, Any, Any], None]


def says(**keywords: Any) -> Callable[[Validator], Validator]:
    """Let the validator carry ``keywords``, its rule in JSON Schema's words."""

    def attach(check: Validator) -> Validator:
        vars(check).update(json_schema=keywords)
        return check

    return attach


@says(exclusiveMinimum=0)
def positive(_: Any, __: Any, value: Any) -> None:
    """Above zero; every element of an array, every value of a table."""
    values = list(value.values()) if isinstance(value, dict) else value
    values = values if isinstance(values, list) else [values]
    if not all(item > 0 for item in values):
        raise ValueError("must be positive")


@says(minimum=0)
def non_negative(_: Any, __: Any, value: Any) -> None:
    """Zero or above; every element of an array."""
    values = value if isinstance(value, list) else [value]
    if not all(item >= 0 for item in values):
        raise ValueError("must not be negative")


def within(low: float, high: float, *, open_low: bool = False) -> Validator:
    """Between ``low`` and ``high``, both included (``low`` itself not where ``open_low``)."""

    @says(**{"exclusiveMinimum" if open_low else "minimum": low, "maximum": high})
    def check(_: Any, __: Any, value: Any) -> None:
        if not low <= value <= high or (open_low and value == low):
            raise ValueError(f"must lie in {'(' if open_low else '['}{low}, {high}]")

    return check


@says(minItems=2, maxItems=2, minimum=0, exclusiveMaximum=1)
def betas(_: Any, __: Any, value: list[float]) -> None:
    """Adam's two decay rates, each in [0, 1)."""
    if len(value) != 2 or not all(0 <= item < 1 for item in value):
        raise ValueError("must be two numbers in [0, 1)")


@says(uniqueItems=True)
def unique(_: Any, __: Any, value: list[Any]) -> None:
    """No element twice."""
    twice = sorted({str(item) for item in value if value.count(item) > 1})
    if twice:
        raise ValueError(f"has {', '.join(twice)} more than once")


@says(minLength=1, minItems=1, minProperties=1)
def filled(_: Any, __: Any, value: Any) -> None:
    """Not empty."""
    if not value:
        raise ValueError("must not be empty")
