from __future__ import annotations

import pytest

from fmbpo.tasks.mt30 import MT30


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument ``task`` runs for each of the 30."""
    if "task" in metafunc.fixturenames:
        metafunc.parametrize("task", list(MT30))
