"""Write ``docs/building-blocks.md``: what plugins use of ``fmbpo.nn``, from the docstrings.

Run it after changing one of them; ``tests/test_docs.py`` holds the page current.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

PAGE = Path(__file__).resolve().parent / "building-blocks.md"
PARTS = (
    "world_model",
    "policy",
    "rollout",
    "returns",
    "state",
    "two_hot",
    "blocks",
    "layers",
    "mish",
    "ode",
    "precise",
)
"""Modules for authors of plugins, in the order of the page."""
OF_THE_ENGINE = ("collected", "compiled", "norm_mish", "stacks")
"""Modules that the layers use: they make no difference to results."""
INTRODUCTION = """# Building blocks

<!-- generated: python docs/generate_building_blocks.py -->

A plugin may import these parts of `fmbpo.nn`; [write a plugin](write-a-plugin.md) shows them in
use. Suffixes of names give shapes: B batch, H horizon, O observation, A action, D latent, E task
embedding, R outputs of the reward head, C critics, N noise; `[..., D]` is a tensor with any leading
dimensions.
None of them draws random numbers, except that modules draw their initial parameters from torch's
global generator.
"""


def page() -> str:
    """The page as it should be."""
    return "\n".join([INTRODUCTION, *(line for part in PARTS for line in _module(part))])


def _module(part: str) -> Iterator[str]:
    module = importlib.import_module(f"fmbpo.nn.{part}")
    yield f"## `fmbpo.nn.{part}`\n\n{_text(module)}\n"
    constants = list(_constants(module))
    if constants:
        yield "| name | meaning |\n| --- | --- |"
        yield from (f"| `{name}` | {' '.join(text.split())} |" for name, text in constants)
        yield ""
    for name, value in vars(module).items():
        own = getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
        if own and inspect.isclass(value):
            yield from _class(name, value)
        elif own and inspect.isfunction(value):
            yield from _function(name, value)


def _class(name: str, value: type[Any]) -> Iterator[str]:
    if attrs.has(value):  # its fields are keys, which docs/configuration.md explains
        keys = "Its fields are in [configuration](configuration.md)."
        yield f"### `{name}`\n\n{_text(value)} {keys}\n"
        return
    made = f"({_arguments(value.__init__)})" if "__init__" in vars(value) else ""
    yield f"### `{name}{made}`\n\n{_text(value)}\n"
    methods = [
        (key, method)
        for key, method in vars(value).items()
        if inspect.isfunction(method) and not key.startswith("_") and method.__doc__
    ]
    for key, method in methods:
        called = f"{key}({_arguments(method)})"
        yield f"* `{called}`: {' '.join(_text(method).split())}"
    if methods:
        yield ""


def _function(name: str, value: Any) -> Iterator[str]:
    found = inspect.signature(value)
    yield f"### `{name}`\n"
    yield "```python"
    if len(line := f"{name}{_plain(found)}") > 96:
        arguments = [f"    {_plain(one)}," for one in found.parameters.values()]
        line = "\n".join([f"{name}(", *arguments, f") -> {_plain(found.return_annotation)}"])
    yield f"{line}\n```\n\n{_text(value)}\n"


def _arguments(function: Any) -> str:
    """The arguments after ``self``, without parentheses."""
    own = list(inspect.signature(function).parameters.values())[1:]
    return ", ".join(_plain(parameter) for parameter in own)


def _plain(signature: object) -> str:
    """With annotations as they are written."""
    return re.sub(r"'([^']*)'", r"\1", str(signature))


def _text(value: object) -> str:
    """The whole docstring as Markdown."""
    text = inspect.getdoc(value) or ""
    return text.replace("``", "`")


def _constants(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Public names of a module that have a docstring behind them: constants and types."""
    for node, behind in pairwise(ast.parse(inspect.getsource(module)).body):
        match node, behind:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ) if not name.startswith("_"):
                yield name, text.replace("``", "`")


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
