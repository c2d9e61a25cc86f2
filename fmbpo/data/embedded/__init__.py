"""The data set that ships with the package: four tasks, made by ``fmbpo data collect``.

Seed, recipe, planner settings and versions are in the store's attributes (``provenance``).
"""

from __future__ import annotations

from pathlib import Path


def store_path(path: str) -> Path:
    """Folder of a store by its path, or by the word ``embedded``."""
    return Path(__file__).parent / "mt30-embedded.zarr" if path == "embedded" else Path(path)
