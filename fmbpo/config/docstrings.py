"""The meanings of settings: the docstrings behind the fields of attrs classes."""

from __future__ import annotations

import ast
import inspect
import itertools
from typing import Any


def meanings(cls: type[Any]) -> dict[str, str]:
    """Docstrings of the fields, those of its bases included, each as one line of Markdown.

    A field without a docstring, or whose class has no source, is left out.
    """
    return {name: text for base in reversed(cls.__mro__[:-1]) for name, text in _own(base).items()}


def summary(cls: type[Any]) -> str:
    """The class's docstring as one line of Markdown, without the table's name before the colon."""
    text = _markdown(inspect.getdoc(cls) or "")
    table, colon, rest = text.partition("]`: ")
    text = rest if colon and table.startswith("`[") else text
    return text[:1].upper() + text[1:]


def _markdown(text: str) -> str:
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
            found[field.target.id] = _markdown(str(text.value.value))
    return found
