"""The data set that ships with the package: four tasks, made by ``fmbpo data collect``.

Seed, recipe, planner settings and versions are in the store's attributes (``provenance``).
"""

from __future__ import annotations

from pathlib import Path


def embedded_path() -> Path:
    """Folder of the embedded store (open it with `fmbpo.data.store.load`)."""
    return Path(__file__).parent / "mt30-embedded.zarr"
