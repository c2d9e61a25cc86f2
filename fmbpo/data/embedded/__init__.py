"""The data set that ships with the package: four tasks, made by ``fmbpo data collect``.

Seed, recipe, planner settings and versions are in the store's attributes (``provenance``).
"""

from __future__ import annotations

from pathlib import Path


def embedded_path() -> Path:
    """Folder of the embedded store (see `fmbpo.data.store`)."""
    return Path(__file__).parent / "mt30-embedded.zarr"
