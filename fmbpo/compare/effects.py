"""Effects of the factorial: the change when one factor changes, and its significance.

The main effect of a factor is its difference averaged over the other factor's levels; the
interaction is the difference between two such differences. Every pair of levels that shares a level
of the other factor has an effect, every complete 2x2 part has an interaction.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypeAlias

import attrs
import numpy as np

from fmbpo.compare import statistics
from fmbpo.compare.comparison import UNDECIDED, Cell, Effect
from fmbpo.compare.statistics import Array

Values: TypeAlias = Mapping[Cell, Mapping[str, Mapping[str, float]]]
"""Mean returns, ``values[cell][task][seed]``."""


@attrs.frozen
class Contrast:
    """A weighted sum of cells. ``pairs``: (better, worse) cells for the probability of improvement,
    none for an interaction; ``above`` and ``below``: the verdicts on either side of 0."""

    kind: Literal["world_model", "policy", "interaction"]
    name: str
    weights: Mapping[Cell, float]
    pairs: Sequence[tuple[Cell, Cell]]
    above: str
    below: str


def contrasts(cells: Sequence[Cell]) -> list[Contrast]:
    """Every effect of these cells; of two levels, the first by name minus the other: "a - b"."""
    return [*_main("world_model", cells), *_main("policy", cells), *_interactions(cells)]


def _main(kind: Literal["world_model", "policy"], cells: Sequence[Cell]) -> list[Contrast]:
    other = "policy" if kind == "world_model" else "world_model"
    found, across = [], _levels(cells, other)
    at = {(getattr(cell, kind), getattr(cell, other)): cell for cell in cells}
    for a, b in itertools.combinations(_levels(cells, kind), 2):
        pairs = [(at[b, x], at[a, x]) for x in across if (b, x) in at and (a, x) in at]
        if not pairs:
            continue
        weights: dict[Cell, float] = {}
        for better, worse in pairs:
            weights |= {better: 1 / len(pairs), worse: -1 / len(pairs)}
        name = f"{kind.replace('_', ' ')}: {b} - {a}"
        if len(pairs) < len(across):
            levels = sorted(getattr(pair[0], other) for pair in pairs)
            name += f" ({other.replace('_', ' ')} {', '.join(levels)} alone)"
        found.append(Contrast(kind, name, weights, pairs, f"{b} ahead", f"{a} ahead"))
    return found


def _interactions(cells: Sequence[Cell]) -> list[Contrast]:
    found = []
    models, policies = _levels(cells, "world_model"), _levels(cells, "policy")
    for a, b in itertools.combinations(models, 2):
        for p, q in itertools.combinations(policies, 2):
            weights = {Cell(b, q): 1.0, Cell(b, p): -1.0, Cell(a, q): -1.0, Cell(a, p): 1.0}
            if all(cell in cells for cell in weights):
                name = f"interaction: policy {q} - {p}, in world model {b} - in {a}"
                found.append(
                    Contrast("interaction", name, weights, [], f"larger in {b}", f"larger in {a}")
                )
    return found


def _levels(cells: Sequence[Cell], factor: str) -> list[str]:
    """Sorted by name, the last first: of two, the first is subtracted from the second."""
    return sorted({getattr(cell, factor) for cell in cells}, reverse=True)


def effect(
    of: Contrast,
    values: Values,
    tasks: Sequence[str],
    *,
    task: str,
    unit: float = 1.0,
    unordered: Collection[Cell] = (),
) -> Effect:
    """The contrast averaged over ``tasks``; ``task`` is the name of the result.

    ``unit`` divides the difference. ``unordered``: cells whose seeds' names mean nothing. Seeds are
    paired if all cells have the same seeds and resampling pairs can reach the level
    (``statistics.reachable``); else each cell's seeds are resampled independently, which is no
    worse if they are independent.
    """
    cells, tasks = sorted(of.weights), sorted(tasks)
    same = all(len({frozenset(values[cell][name]) for cell in cells}) == 1 for name in tasks)
    sizes = [len(values[cells[0]][name]) for name in tasks]
    paired = same and not set(cells) & set(unordered) and statistics.reachable(sizes)
    groups = [cells] if paired else [[cell] for cell in cells]
    blocks = [_block(values, group, name) for name in tasks for group in groups]
    weights = [np.array([of.weights[c] for c in group]) / (len(tasks) * unit) for group in groups]
    difference = statistics.contrast(weights * len(tasks))
    pairs = [(cells.index(better), cells.index(worse)) for better, worse in of.pairs]
    if paired:
        better = statistics.paired_improvement(pairs)
    else:
        starts = range(0, len(blocks), len(cells))
        better = statistics.improvement([(k + i, k + j) for k in starts for i, j in pairs])
    found = statistics.estimate(blocks, difference, "effect")
    verdict = UNDECIDED
    if found.low is not None and found.high is not None:
        verdict = of.above if found.low > 0 else of.below if found.high < 0 else UNDECIDED
    chance = statistics.estimate(blocks, better, "share") if of.pairs else None
    return Effect(of.name, of.kind, task, found, chance, paired, verdict)


def _block(values: Values, cells: Sequence[Cell], task: str) -> Array:
    """``(cells, seeds)``, in an order that does not depend on the names of the seeds."""
    block = np.array([[values[cell][task][s] for s in values[cells[0]][task]] for cell in cells])
    return block[:, np.lexsort(block[::-1])]
