"""Every test can fail: it asserts something, itself or through what it calls."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = sorted(
    [
        *ROOT.glob("tests/**/*.py"),
        *ROOT.glob("plugins/*/tests/*.py"),
        *ROOT.glob("examples/*/*/tests/*.py"),
    ]
)
CHECKS = {"raises", "fail", "parametrize_checks", "parametrize_task_checks"}
NO_ERROR = {"test_a_closed_stream_is_given_up"}
"""Their subject is that nothing is raised."""


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def mentions(function):
    """Names that it calls, reads, or takes as arguments."""
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


def checks(function):
    """Whether it asserts, or runs a program and minds its status."""
    return any(
        isinstance(node, ast.Assert)
        or (
            isinstance(node, ast.keyword)
            and node.arg == "check"
            and ast.unparse(node.value) == "True"
        )
        for node in ast.walk(function)
    ) or any(name in CHECKS or name.startswith("assert_") for name in mentions(function))


def idle(tests, helpers=frozenset()):
    """Tests of a file that check nothing; ``helpers`` are functions of other files that do."""
    found = functions(tests)
    good = {function.name for function in found if checks(function)} | helpers
    before = set()
    while good != before:
        before = set(good)
        good |= {function.name for function in found if not good.isdisjoint(mentions(function))}
    return [f.name for f in found if f.name.startswith("test_") and f.name not in good]


def test_every_test_asserts():
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
    helpers = frozenset(
        function.name
        for file, tree in trees.items()
        if not file.name.startswith("test_")
        for function in functions(tree)
        if checks(function)
    )
    tests = {file: tree for file, tree in trees.items() if file.name.startswith("test_")}
    assert len(tests) > 80
    found = {
        f"{file.relative_to(ROOT)}::{name}"
        for file, tree in tests.items()
        for name in idle(tree, helpers)
        if name not in NO_ERROR
    }
    assert found == set()


def test_an_idle_test_is_found():
    text = """
def right(x):
    assert x

def test_one():
    right(1)

def test_two(tmp_path):
    tmp_path.mkdir()

def test_three():
    with pytest.raises(ValueError):
        int("x")
"""
    assert idle(ast.parse(text)) == ["test_two"]
