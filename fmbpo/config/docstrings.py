"""What settings mean: the string literals behind the fields of attrs classes."""

from __future__ import annotations

import ast
import inspect
import itertools
from typing import Any


def meanings(cls: type[Any]) -> dict[str, str]:
    """Docstrings of the fields, those of its bases included, each as one line of Markdown.

    A field has none where it has no docstring, or where there is no source to read it from.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        found |= _own(base)
    return found


def summary(cls: type[Any]) -> str:
    """The class's docstring as one line of Markdown, without the table's name before the colon."""
    text = markdown(inspect.getdoc(cls) or "")
    table, colon, rest = text.partition("]`: ")
    text = rest if colon and table.startswith("`[") else text
    return text[:1].upper() + text[1:]


def markdown(text: str) -> str:
    """A docstring's text as one line of Markdown."""
    return " ".join(text.replace("``", "`").split())


def _own(cls: type[Any]) -> dict[str, str]:
    try:
        (node,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError, ValueError):  # a class made by a program
        return {}
    found: dict[str, str] = {}
    for field, text in itertools.pairwise(node.body if isinstance(node, ast.ClassDef) else []):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id] = markdown(str(text.value.value))
    return found
