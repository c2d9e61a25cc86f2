"""Measures a comparison's coverage and false verdicts on artificial factorials.

    python benchmarks/coverage.py          prints a table, writes benchmarks/results/coverage.json

A 2x2 factorial has a known effect of each factor, a known interaction, and noise over seeds:
normal, skewed (exponential), or normal with half of its variance shared by all cells of a seed. The
coverage of an interval is the share of factorials in which it contains the truth (target: 0.95).
All intervals are those of ``fmbpo.compare.statistics``, for many factorials at a time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

from fmbpo.compare import statistics
from fmbpo.runs.summary import versions

RESULTS = Path(__file__).parent / "results" / "coverage.json"
SETTINGS = [
    *itertools.product([(3, 3), (4, 5), (10, 3)], ["normal", "skewed"]),
    ((3, 3), "shared"),
    *itertools.product([(3, 2)], ["normal", "skewed"]),
]
"""(tasks, seeds) and the kind of noise."""
MAIN, INTERACTION, SPREAD = 40.0, 20.0, 60.0
"""The policy's effect, the interaction and the noise's standard deviation, in returns."""
MAIN_WEIGHTS = np.array([-0.5, 0.5, -0.5, 0.5])
INTERACTION_WEIGHTS = np.array([1.0, -1.0, -1.0, 1.0])
TWO_WEIGHTS = np.array([-1.0, 1.0, 0.0, 0.0])
"""Of the cells (model a, policy p), (a, q), (b, p), (b, q); the last for one world model only."""
_AT_ONCE = 100

Array = NDArray[np.float64]


def factorials(rng: np.random.Generator, number: int, tasks: int, seeds: int, noise: str) -> Array:
    """``(cells, tasks, number, seeds)`` returns."""
    shape = (4, tasks, number, seeds)
    error = rng.exponential(size=shape) - 1 if noise == "skewed" else rng.standard_normal(shape)
    if noise == "shared":
        error = np.sqrt(0.5) * (error + rng.standard_normal((1, *shape[1:])))
    truth = np.array([0, MAIN - INTERACTION / 2, 0, MAIN + INTERACTION / 2])
    levels = np.linspace(200, 700, tasks)
    return truth[:, None, None, None] + levels[:, None, None] + SPREAD * error


def contrast(x: Array, weights: Array, *, paired: bool | None = None) -> tuple[Array, Array]:
    """Interval of a contrast's mean over tasks; by default paired if a comparison would pair."""
    _, tasks, _, seeds = x.shape
    used = np.flatnonzero(weights)
    w = weights[used] / tasks
    if paired is None:
        paired = statistics.reachable([seeds] * tasks)
    if paired:
        blocks = [x[used, task] for task in range(tasks)]
        parts = [w] * tasks
    else:
        blocks = [x[cell : cell + 1, task] for task in range(tasks) for cell in used]
        parts = [w[i : i + 1] for _ in range(tasks) for i in range(len(used))]
    return ends(blocks, statistics.contrast(parts), "effect")


def ends(
    blocks: Sequence[Array],
    statistic: statistics.Statistic,
    of: statistics.Kind = "cell",
) -> tuple[Array, Array]:
    """Both ends for every factorial; by default as for a cell."""
    found: list[Any] = []
    for start in range(0, blocks[0].shape[1], _AT_ONCE):
        part = [block[:, start : start + _AT_ONCE] for block in blocks]
        found.append(statistics.interval(part, statistic, of))
    low, high = (np.concatenate(both) for both in zip(*found, strict=True))
    return low, high


def covers(interval: tuple[Any, Any], truth: float) -> float:
    """The share of intervals that contain the truth."""
    low, high = interval
    return float(np.mean((low <= truth) & (truth <= high)))


def measure(number: int, tasks: int, seeds: int, noise: str, seed: int = 1) -> dict[str, float]:
    """Coverage of each kind of interval, and rates of false verdicts on one task."""
    rng = np.random.default_rng([seed, tasks, seeds, len(noise)])
    x = factorials(rng, number, tasks, seeds, noise)
    cell, one = x[0], x[:, :1]
    many = factorials(rng, 1, tasks, 200_000, noise)[0, :, 0]
    two = MAIN - INTERACTION / 2
    main = covers(contrast(one, MAIN_WEIGHTS), MAIN)
    return {
        "main effect": covers(contrast(x, MAIN_WEIGHTS), MAIN),
        "interaction": covers(contrast(x, INTERACTION_WEIGHTS), INTERACTION),
        "cell's mean": covers(ends([t[None] for t in cell], statistics.mean), 450.0),
        "cell's IQM": covers(
            ends([t[None] for t in cell], statistics.iqm), float(stats.trim_mean(many, 0.25, None))
        ),
        "one task: cell's mean": covers(ends([one[:1, 0]], statistics.mean), 200.0),
        "one task: main effect": main,
        # If there is no true effect, an interval that misses the truth is a false verdict.
        "one task: false verdict, 2x2": 1 - main,
        "one task: false verdict, two cells": 1 - covers(contrast(one, TWO_WEIGHTS), two),
        # The rule of ``statistics.reachable`` avoids this.
        "one task: false verdict, 2x2, paired": 1
        - covers(contrast(one, MAIN_WEIGHTS, paired=True), MAIN),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=1000, help="factorials of each setting")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    rows, began = [], time.monotonic()
    for (tasks, seeds), noise in SETTINGS:
        found = measure(options.number, tasks, seeds, noise)
        rows.append({"tasks": tasks, "seeds": seeds, "noise": noise, **found})
        print(f"{tasks} x {seeds}, {noise}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    table = Table("")
    for row in rows:
        table.add_column(f"{row['tasks']} x {row['seeds']}\n{row['noise']}", justify="right")
    for name in list(rows[0])[3:]:
        table.add_row(name, *(f"{row[name]:.3f}" for row in rows))
    Console(width=130).print(table)
    found = {name: versions()[name] for name in ("fmbpo", "numpy", "python")}
    content = {
        "factorials": options.number,
        "resamples": statistics.RESAMPLES,
        "versions": found,
        "settings": rows,
    }
    options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
