"""The documentation says what the code is: generated tables, names, links, commands."""

import argparse
import ast
import importlib.util
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from attrs import asdict

from fmbpo.cli import main, parser
from fmbpo.data.collecting.planner_tasks import PLAN_TASKS
from fmbpo.hookspecs import SPEC_VERSION
from fmbpo.tasks.mt30 import MT30

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), *(REPOSITORY / n for n in ("README.md", "CONTRIBUTING.md"))]


def generator(name="generate_configuration"):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["configuration.md", "data.md", "tasks.md", "write-a-plugin.md"])
def test_generated_parts_are_current(name, monkeypatch):
    monkeypatch.delenv("FMBPO_DATA", raising=False)
    assert (DOCS / name).read_text(encoding="utf-8") == generator().page(DOCS / name), (
        "run: python docs/generate_configuration.py"
    )


def test_the_building_blocks_are_current_and_all_there():
    blocks = generator("generate_building_blocks")
    assert blocks.PAGE.read_text(encoding="utf-8") == blocks.page(), (
        "run: python docs/generate_building_blocks.py"
    )
    modules = {file.stem for file in (REPOSITORY / "fmbpo" / "nn").glob("[a-z]*.py")}
    assert modules == {*blocks.PARTS, *blocks.OF_THE_ENGINE}
    page = blocks.page()
    assert "### `simnorm`\n\n```python\nsimnorm(x: Tensor, group: int = 8) -> Tensor\n```" in page
    assert "* `step_input(z: Tensor, action: Tensor, task: Task)`: `[z, e, a]` with" in page


def test_the_small_set_of_all_tasks_is_as_it_was_measured():
    mini = generator("generate_mini")
    found = json.loads(mini.NUMBERS.read_text(encoding="utf-8"))
    assert mini.PAGE.read_text(encoding="utf-8") == mini.page(found), (
        "run: python docs/generate_mini.py"
    )
    planner = {task: np.mean(row["planner"]) for task, row in found["returns"].items()}
    assert planner.keys() == MT30.keys()
    # What the specification of the collector asks for.
    assert np.mean(list(planner.values())) >= 650
    assert all(len(row["planner"]) >= 3 for row in found["returns"].values())
    assert found["planner"] == {t: asdict(PLAN_TASKS[t].settings) for t in MT30}, (
        "the planner's settings are others now: collect the set anew"
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
        if content.pop("contrasts", None):
            assert "| `contrasts` |" in text
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


def test_each_past_failure_is_held_by_a_test_that_is_there():
    text = (DOCS / "what-went-wrong.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 18
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.split(" | ")[-1])
        assert named, row
        for file, name in named:
            assert name in defined(REPOSITORY / file), f"{file} has no {name}"


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
    assert set(options(parser())) - told - {"--help", "--version", "--override"} == set()


def test_every_health_gate_is_in_the_page():
    code = (REPOSITORY / "fmbpo/measure/health.py").read_text(encoding="utf-8")
    gates = set(re.findall(r'(?:gate\(|Finding\()\s*"(\w+)"', code))
    assert len(gates) == 13
    table = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "index.md").read_text(), re.MULTILINE))
    assert gates <= table


def guide():
    return (DOCS / "write-a-plugin.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "what", "module", "longest", "checks"),
    [
        ("write-a-plugin.md", "policy", "my_policy", 85, ("shapes_fit", "return_rises")),
        ("write-a-plugin.md", "world_model", "my_model", 95, ("shapes_fit", "loss_falls")),
        ("tasks.md", "tasks", "my_tasks", 140, ("leaves_its_action_alone",)),
    ],
)
def test_the_complete_examples_are_short_and_run_as_they_stand(
    page, what, module, longest, checks, tmp_path, offer_project, capsys
):
    """``test_scaffold.py`` runs all checks of the same code."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (code,) = re.findall(rf"<!-- {what}:begin -->\n\n```python\n(.*?)^```$", text, re.M | re.S)
    assert len(code.splitlines()) < longest
    entries = re.findall(r"^```toml\n(\[project\.entry-points\..*?)^```$", text, re.M | re.S)
    (entry,) = (entry for entry in entries if f'"{module}:' in entry)
    project = f'[project]\nname = "fmbpo-{module}"\nversion = "0.1.0"\n{entry}'
    (tmp_path / "pyproject.toml").write_text(project)
    (tmp_path / f"{module}.py").write_text(code)
    offer_project(tmp_path)
    words = [what if what == "tasks" else "plugins", "check", module]
    for check in checks:
        words += ["--check", check]
    assert main(words) == 0, capsys.readouterr()


def test_the_tests_of_the_pages_are_those_of_the_scaffold(tmp_path):
    for page, words in (
        ("write-a-plugin.md", ["plugins", "new", "policy", "my_policy"]),
        ("tasks.md", ["tasks", "new", "my_tasks"]),
    ):
        assert main([*words, "--out", str(tmp_path)]) == 0
        (file,) = (tmp_path / words[-1] / "tests").iterdir()
        text = (DOCS / page).read_text(encoding="utf-8")
        (shown,) = re.findall(r"```python\nfrom fmbpo.testing import .*?```$", text, re.M | re.S)
        start, _, end = shown.partition("\n\n\n")
        assert start.splitlines()[1] in file.read_text()
        assert end.removesuffix("```") in file.read_text()


def test_the_readmes_plugin_keeps_the_contract(tmp_path, offer_project, capsys):
    """Run as it stands on the page."""
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", (REPOSITORY / "README.md").read_text("utf-8"), re.M | re.S
    )
    assert sum(bool(line) for line in code.splitlines()) <= 15
    (tmp_path / "linear_policy.py").write_text(code)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "linear"\nversion = "1"\n'
        '[project.entry-points."fmbpo.policies"]\nlinear = "linear_policy:plugin"\n'
    )
    offer_project(tmp_path)
    assert main(["plugins", "check", "linear"]) == 0, capsys.readouterr()


def test_the_guides_table_has_every_hook():
    for kind in ("world model", "policy"):
        for hook in ("predict", "rollout", "loss", "freeze"):
            assert f"| {kind} `{hook}` |" in guide()
    assert f"| {SPEC_VERSION} |" in guide()
