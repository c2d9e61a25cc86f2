"""The data set in the package: five tasks, made by ``fmbpo data collect``.

The store's attribute ``provenance`` has its seed, recipe, planner settings and versions.
"""

from __future__ import annotations

from pathlib import Path

from fmbpo.base.files import path_of


def store_path(path: str | Path) -> Path:
    """The folder of a store; ``embedded`` names the one in the package."""
    return Path(__file__).parent / "mt30-embedded.zarr" if path == "embedded" else path_of(path)
