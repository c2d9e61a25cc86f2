"""The shape of the code, read from its source: sizes, docstrings, no plugin known by name.

Who may import whom is in ``pyproject.toml`` (``tool.importlinter``) and held by ``make lint``. The
checks are functions from source text to a list of offences, so that each can be shown to find one
(at the end of this file).
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if path.is_dir())
MAX_LINES = 400
ON_THE_DEVICE = [
    *(f"fmbpo/pwm/{name}.py" for name in ("critic", "optim", "pair", "policy", "world_model")),
    *("fmbpo/nn", *(f"plugins/{name}/fmbpo_{name}" for name in PLUGINS)),
]
"""What is compiled into an update: a value read back would stall the device."""


def sources(*places):
    """Source text by path relative to the repository."""
    found = {}
    for place in places:
        path = ROOT / place
        assert path.exists(), f"{place} is gone: mend this test"
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found[file.relative_to(ROOT).as_posix()] = file.read_text(encoding="utf-8")
    return found


def named_plugins(files):
    """Mentions of a plugin's package, comparisons with its name, tests for its classes."""
    offences = []
    for path, text in files.items():
        offences += [f"{path}: {name}" for name in re.findall(r"fmbpo_(?:wm|policy)_\w*", text)]
        for node in ast.walk(ast.parse(text)):
            bad = False
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                bad = re.search(r"\b(Flow|MLP|Gaussian)", ast.unparse(node.args[1]))
            elif isinstance(node, ast.Compare | ast.MatchValue):
                constants = [c for c in ast.walk(node) if isinstance(c, ast.Constant)]
                bad = any(c.value in ("flow", "mlp") for c in constants)
            offences += [f"{path}:{node.lineno}: {ast.unparse(node)}"] if bad else []
    return offences


def too_long(files, limit=MAX_LINES):
    return [path for path, text in files.items() if len(text.splitlines()) > limit]


def undocumented(files):
    """Public modules, and public classes and functions outside functions, without docstring."""

    def visit(path, node):
        overloads = any("overload" in ast.unparse(d) for d in getattr(node, "decorator_list", ()))
        if not ast.get_docstring(node) and not overloads:
            yield f"{path}: {getattr(node, 'name', 'module')}"
        if isinstance(node, ast.Module | ast.ClassDef):
            for child in node.body:
                named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                if named and not child.name.startswith("_"):
                    yield from visit(path, child)

    public = {p: t for p, t in files.items() if not re.search(r"(^|[./])_(?!_)", p)}
    return [offence for path, text in public.items() for offence in visit(path, ast.parse(text))]


def items(files):
    """Uses of ``.item``, which waits for the device."""
    return [
        f"{path}:{node.lineno}"
        for path, text in files.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and node.attr == "item"
    ]


def test_nobody_in_the_core_knows_a_plugin():
    assert named_plugins(sources("fmbpo")) == []


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugins_tests_know_no_more_than_an_outsiders(plugin):
    text = "\n".join(sources(f"plugins/{plugin}/tests").values())
    found = set(re.findall(r"(?m)^\s*(?:from|import) (fmbpo(?:\.\w+)?|fmbpo_\w+)\b", text))
    allowed = {f"fmbpo.{name}" for name in ("hookspecs", "nn", "plugins", "testing")}
    assert found <= allowed | {f"fmbpo_{plugin}"}


def test_files_are_short():
    assert too_long(sources("fmbpo")) == []


def test_a_whole_policy_update_is_one_short_file():
    assert too_long(sources("fmbpo/pwm/policy.py"), 320) == []


def test_public_names_are_documented():
    assert undocumented(sources("fmbpo")) == []


def test_updates_never_wait_for_the_device():
    assert items(sources(*ON_THE_DEVICE)) == []


@pytest.mark.parametrize(
    ("check", "bad", "good"),
    [
        (named_plugins, "name = 'fmbpo_policy_flow'", "name = 'fmbpo.policies'"),
        (named_plugins, "isinstance(x, a.FlowModel)", "isinstance(x, Model)"),
        (named_plugins, "if name in ('flow', 'x'): pass", "name = 'overflow'"),
        (named_plugins, "match name:\n    case 'mlp': pass", "match name:\n    case 'x': pass"),
        (lambda f: too_long(f, 2), "a\nb\nc", "a\nb"),
        (undocumented, "x = 1", "'''.'''\ndef _f(): pass\nclass _A: pass"),
        (undocumented, "'''.'''\nclass A: pass", "'''.'''\nclass A: '''.'''"),
        (undocumented, "'''.'''\nclass A:\n '''.'''\n def f(self): pass", "'''.'''"),
        (undocumented, "'''.'''\nasync def f(): pass", "'''.'''\ndef f():\n '''.'''\n def g(): 1"),
        (items, "float(x.sum().item())", "d.items()"),
        (items, "map(Tensor.item, xs)", "item(x)"),
    ],
)
def test_each_check_can_fail(check, bad, good):
    assert check({"fmbpo/part.py": bad})
    assert check({"fmbpo/part.py": good}) == []
