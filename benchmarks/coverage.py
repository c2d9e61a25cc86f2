"""Measures a comparison's false verdicts and coverage on artificial split plots.

    python benchmarks/coverage.py     prints the tables of docs/statistics.md, writes
                                      benchmarks/results/coverage.json

A 2x2 factorial has kinds of world models (a, b) and policies (p, q), no true difference, and noise:
each policy's own, and that of the world model in which it was trained, of which a part is shared by
all tasks. A verdict on such a factorial is false. On single tasks, the rate is that of at least one
false verdict after Holm's correction. The coverage of an interval is the share of factorials in
which it contains the truth (target: 0.95). All numbers are those of ``fmbpo.compare``, for many
factorials at a time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fmbpo.compare import statistics
from fmbpo.compare.t_test import LEVEL, holm, p_value, standard_error
from fmbpo.runs.summary import versions

RESULTS = Path(__file__).parent / "results" / "coverage.json"
EFFECTS = {
    "world model": np.array([0.5, 0.5, -0.5, -0.5]),
    "policy": np.array([0.5, -0.5, 0.5, -0.5]),
    "interaction": np.array([1.0, -1.0, -1.0, 1.0]),
}
"""Weights of the cells (a, p), (a, q), (b, p), (b, q)."""
COVERAGES = ("cell's mean", "cell's IQM")
"""The measures beside the rates of false verdicts."""
KINDS = (slice(0, 2), slice(2, 4))
"""The cells of a and of b."""
SPREAD, UNEQUAL = 60.0, (300.0, 10.0, 10.0)
"""The standard deviation of the policies' noise, in returns; by task if the noise is "unequal"."""
LEVELS = (200.0, 700.0)
"""Mean returns of the first and the last task."""

Array = NDArray[np.float64]


@attrs.frozen
class Setting:
    """``design``: "replicated" (a world model for each replicate), "scratch" (one for each policy).

    ``noise``: "normal", "skewed" (exponential), "unequal" (by task), "crossed" (half of a policy's
    variance is its interaction with the world model, which all tasks share). ``ratio``: standard
    deviation of world models divided by that of policies; ``shared``: the part of the world models'
    variance that all tasks share.
    """

    design: str
    noise: str
    tasks: int
    replicates: int
    ratio: float = 0.0
    shared: float = 0.0

    @property
    def spreads(self) -> Array:
        """The standard deviation of the policies' noise, by task."""
        return np.array(UNEQUAL) if self.noise == "unequal" else np.full(self.tasks, SPREAD)


def settings() -> Iterator[Setting]:
    """All settings that are measured."""
    models = [(0.0, 0.0), *itertools.product((0.5, 1.0), (0.0, 0.1, 0.5))]
    sizes = [
        *itertools.product(["normal"], [(3, 3), (3, 5), (30, 3)]),
        *itertools.product(["unequal"], [(3, 3), (3, 5)]),
        *itertools.product(["skewed"], [(3, 3), (10, 3), (4, 5)]),
        ("crossed", (30, 3)),
        ("normal", (3, 2)),
    ]
    for (noise, size), model in itertools.product(sizes, models):
        yield Setting("replicated", noise, *size, *model)
    for noise, size in sizes:
        if noise != "crossed":  # no two policies meet the same world model
            yield Setting("scratch", noise, *size)


def factorials(rng: np.random.Generator, number: int, of: Setting) -> Array:
    """``(cells, tasks, number, replicates)`` returns without any true difference."""

    def noise(kinds: int, tasks: int) -> Array:
        shape = (kinds, tasks, number, of.replicates)
        return rng.exponential(size=shape) - 1 if of.noise == "skewed" else rng.normal(size=shape)

    own = noise(4, of.tasks)
    if of.noise == "crossed":
        own = np.sqrt(0.5) * (own + noise(4, 1))
    models = np.sqrt(1 - of.shared) * noise(2, of.tasks) + np.sqrt(of.shared) * noise(2, 1)
    levels = np.linspace(*LEVELS, of.tasks)[:, None, None]
    return levels + of.spreads[:, None, None] * (own + of.ratio * np.repeat(models, 2, axis=0))


def tested(x: Array, weights: Array, design: str) -> tuple[Array, Array, Array]:
    """A contrast of cells, averaged over tasks: its value, standard error, degrees of freedom."""
    weighted = weights[:, None, None, None] * x / x.shape[1]
    n = x.shape[-1]
    away = (weighted - weighted.mean(-1, keepdims=True)) / n
    if design == "scratch":
        strata = [away[i, t] for i in range(len(away)) for t in range(x.shape[1]) if weights[i]]
    else:
        strata = [away[kind].sum((0, 1)) for kind in KINDS if weights[kind].any()]
    return weighted.mean(-1).sum((0, 1)), *standard_error([(d, n) for d in strata])


def false_verdicts(x: Array, weights: Array, design: str) -> tuple[float, float]:
    """The share of verdicts over all tasks, and of verdicts on at least one task after Holm."""
    over = p_value(*tested(x, weights, design))
    by_task = [p_value(*tested(x[:, t : t + 1], weights, design)) for t in range(x.shape[1])]
    lowest = holm(by_task).min(axis=0)
    return float(np.mean(over < 1 - LEVEL)), float(np.mean(lowest < 1 - LEVEL))


def cell_mean(x: Array, design: str) -> tuple[Array, Array]:
    """Both ends of the interval of the first cell's mean, as for a cell."""
    value, error, freedom = tested(x, np.array([1.0, 0, 0, 0]), design)
    half = stats.t.ppf((1 + LEVEL) / 2, freedom) * error
    return value - half, value + half


def cell_iqm(x: Array, design: str) -> tuple[Any, Any]:
    """The same for its interquartile mean."""
    blocks = [x[0]] if design == "replicated" else [x[0, t : t + 1] for t in range(x.shape[1])]
    ends = statistics.interval(blocks, statistics.iqm)
    assert ends is not None
    return ends


def covers(interval: tuple[Any, Any], truth: float) -> float:
    """The share of intervals that contain the truth."""
    low, high = interval
    return float(np.mean((low <= truth) & (truth <= high)))


def measure(number: int, few: int, of: Setting, seed: int = 1) -> dict[str, float]:
    """Rates of false verdicts and coverage; of interquartile means in ``few`` factorials alone."""
    entropy = [seed, *f"{of}".encode()]
    rng = np.random.default_rng(entropy)
    x = factorials(rng, number, of)
    found = {name: false_verdicts(x, weights, of.design) for name, weights in EFFECTS.items()}
    many = factorials(rng, 20_000, of)[0]
    truth = float(stats.trim_mean(many, 0.25, axis=None))
    return {
        **{f"{name}, all tasks": over for name, (over, _) in found.items()},
        **{f"{name}, single tasks": single for name, (_, single) in found.items()},
        COVERAGES[0]: covers(cell_mean(x, of.design), sum(LEVELS) / 2),
        COVERAGES[1]: covers(cell_iqm(x[:, :, :few], of.design), truth),
    }


def tables(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """By design, noise and size; and by the world models' variance, from three replicates on."""
    replicated = [row for row in rows if row["design"] == "replicated" and row["replicates"] > 2]
    return (
        _markdown(rows, ("design", "noise", "tasks", "replicates")),
        _markdown(replicated, ("ratio", "shared")),
    )


def _markdown(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    """The highest rates and the lowest coverages of all rows with equal keys."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    names = [name for name in rows[0] if name not in attrs.fields_dict(Setting)]
    lines = [[*keys, *names], ["---"] * len(keys) + ["--:"] * len(names)]
    for key, found in groups.items():
        worst = [(min if name in COVERAGES else max)(row[name] for row in found) for name in names]
        lines.append([*map(str, key), *(f"{value:.3f}" for value in worst)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=10_000, help="factorials of each setting")
    parser.add_argument("--few", type=int, default=500, help="of these, for interquartile means")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    rows, began = [], time.monotonic()
    for of in settings():
        rows.append({**attrs.asdict(of), **measure(options.number, options.few, of)})
        print(f"{of}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    for table in tables(rows):
        print(f"{table}\n")
    content = {
        "factorials": options.number,
        "of interquartile means": options.few,
        "resamples": statistics.RESAMPLES,
        "versions": {name: versions()[name] for name in ("fmbpo", "numpy", "python")},
        "settings": rows,
    }
    options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
