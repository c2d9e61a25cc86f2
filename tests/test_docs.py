"""The documentation says what the code is: generated tables, names, links, commands."""

import argparse
import ast
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from fmbpo.cli import _parser
from fmbpo.experiment import load_experiment
from fmbpo.experiment.study import is_study, load_study

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), *(REPOSITORY / n for n in ("README.md", "CONTRIBUTING.md"))]


def generator():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate_configuration.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["configuration.md", "data.md"])
def test_generated_parts_are_current(name, monkeypatch):
    monkeypatch.delenv("FMBPO_DATA", raising=False)
    assert (DOCS / name).read_text(encoding="utf-8") == generator().page(DOCS / name), (
        "run: python docs/generate_configuration.py"
    )


def test_every_key_of_every_experiment_file_is_in_the_configuration_page():
    """Read from the files, not from the classes that the page is made from."""
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    parts = re.findall(r"^## `\[(\w+)(?:\.NAME)?\]`[^\n]*\n((?:(?!## ).*\n)*)", text, re.MULTILINE)
    sections = {table: "".join(t for name, t in parts if name == table) for table, _ in parts}
    for file in sorted((REPOSITORY / "experiments").rglob("*.toml")):
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        for cell in content.pop("cells", {}).values():
            assert all(f"| `{key}` |" in sections["cells"] for key in cell), file.name
        for scale in [content, *content.pop("scale", {}).values()]:
            for table, values in scale.items():
                for key in values if isinstance(values, dict) else ():
                    assert f"| `{key}` |" in sections[table], f"{file.name}: {table}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    # The README's picture and results are made from a real run.
    text = re.sub(r"!\[.*\]\(.*\)", "", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    missing = [x for x in links if "://" not in x and not (page.parent / x).exists()]
    assert missing == []


def defined(file):
    """Names of the functions and classes of a file, methods as ``Class.method``."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.ClassDef
    top = [node for node in tree.body if isinstance(node, kinds)]
    methods = {
        f"{node.name}.{inner.name}"
        for node in top
        if isinstance(node, ast.ClassDef)
        for inner in node.body
        if isinstance(inner, kinds)
    }
    return {node.name for node in top} | methods


@pytest.mark.parametrize("name", ["how-a-run-works.md", "equations.md"])
def test_names_in_tables_of_files_exist(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*? ?`([\w/]+\.py)` \| ([^|]*) \|", text, re.MULTILINE)
    assert len(rows) > 30
    missing = [
        f"{file}: {name}"
        for file, names in rows
        for name in re.findall(r"`([^`]+)`", names)
        if name not in defined(REPOSITORY / file)
    ]
    assert missing == []


def test_paths_in_the_pages_exist():
    missing = [
        f"{page.name}: {path}"
        for page in PAGES
        for path in re.findall(
            r"\b((?:fmbpo|plugins|experiments|tests)/[\w/]+\.(?:py|toml))\b",
            page.read_text(encoding="utf-8"),
        )
        if not (REPOSITORY / path).exists()
    ]
    assert missing == []


def documented_commands():
    for page in sorted(DOCS.glob("*.md")):
        for block in re.findall(r"^```sh\n((?:.*\n)*?)```$", page.read_text(), re.MULTILINE):
            lines = block.replace("\\\n", " ").splitlines()
            yield from (line for line in lines if line.startswith("fmbpo "))


@pytest.mark.parametrize("command", sorted(set(documented_commands())))
def test_commands_in_the_pages_are_valid(command, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    arguments = _parser().parse_args(shlex.split(command)[1:])
    if hasattr(arguments, "experiment"):
        load = load_study if is_study(arguments.experiment) else load_experiment
        load(arguments.experiment, scale="laptop", overrides=arguments.override, data="embedded")


def options(parser):
    """Every long option of a parser and of its subcommands."""
    for action in parser._actions:
        yield from (name for name in action.option_strings if name.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from options(inner)


def test_every_option_of_the_command_line_is_in_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    told = set(re.findall(r"--[a-z-]+", text))
    # `-o` is known by its short name.
    assert set(options(_parser())) - told - {"--help", "--version", "--override"} == set()


def test_every_health_gate_is_in_the_page():
    code = (REPOSITORY / "fmbpo/engine/health.py").read_text(encoding="utf-8")
    gates = set(re.findall(r'(?:gate\(|Finding\()\s*"(\w+)"', code))
    assert len(gates) == 11
    table = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "index.md").read_text(), re.MULTILINE))
    assert gates <= table
