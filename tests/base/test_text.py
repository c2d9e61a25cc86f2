"""Numbers and names in sentences."""

import pytest

from fmbpo.base.text import counted, listed


@pytest.mark.parametrize(
    ("names", "want"),
    [([], ""), (["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")],
)
def test_names_are_listed(names, want):
    assert listed(names, "or") == want


def test_things_are_counted():
    assert [counted(n, "task") for n in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]
