"""Registers the mark of contract checks on a GPU with pytest, wherever fmbpo is installed."""

from __future__ import annotations

from typing import Any


def pytest_configure(config: Any) -> None:
    """Register the mark, for plugins whose tests run with ``--strict-markers``."""
    config.addinivalue_line("markers", "gpu: needs a CUDA device (skipped if there is none)")
