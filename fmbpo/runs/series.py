"""Series of metrics over the iterations, from a run's own record."""

from __future__ import annotations

from fmbpo.runs.folder import RunFolder
from fmbpo.runs.sinks import read_metrics


def cell_series(folder: RunFolder, metric: str) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """A metric over the iterations, by the cells' tasks and seeds, from the run's record.

    A world model's own, which is of no cell, is under an empty task and seed.
    """
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in read_metrics(folder.metrics):
        for name, value in line.items():
            task, seed, of = "", "", name
            if name.endswith(f"/{metric}") and name.count("/") == metric.count("/") + 2:
                task, seed, of = name.split("/", 2)
            if of == metric:
                found.setdefault(task, {}).setdefault(seed, []).append((line["step"], value))
    return found
