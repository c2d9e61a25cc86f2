"""The contrasts of a factorial: which cells are compared, with which weights, under which name.

The main effect of a factor is the difference between two of its levels, averaged over the other
factor's levels; the interaction is the difference between two such differences. A study declares
the pairs of levels that answer its question, and names them; a factor without declared pairs has
all of them. A pair has an effect at the levels of the other factor that have both, and an
interaction with each pair of the other factor if the 2x2 part is complete.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import attrs

from fmbpo.base.structure import fit
from fmbpo.compare.comparison import Cell
from fmbpo.config.factors import FACTORS, Factor

Declared: TypeAlias = Mapping[str, tuple[Factor, str, str]]
"""Name -> (factor, level a, level b), which means a minus b."""


@attrs.frozen
class Contrast:
    """A weighted sum of cells.

    ``title``: for example ``"policy: flow - mlp"``. ``levels``: the pair of each factor that it is
    about. ``part``: the other factor's levels, if not all have both. ``pairs``: (better, worse)
    cells for the probability of improvement, none for an interaction. ``above`` and ``below``: the
    verdicts on either side of 0. ``declared``: the study's name for it, if it has one.
    """

    kind: Literal["world_model", "policy", "interaction"]
    title: str
    levels: Mapping[Factor, tuple[str, str]]
    part: str
    weights: Mapping[Cell, float]
    pairs: Sequence[tuple[Cell, Cell]]
    above: str
    below: str
    declared: str = ""

    @property
    def name(self) -> str:
        """The title, and to which part it is limited."""
        return f"{self.title} ({self.part} alone)" if self.part else self.title


def declaration(entry: object) -> tuple[Factor, str, str] | None:
    """``{"policy": ["flow", "mlp"]}`` of a study as a contrast; None if it is something else."""
    fitting = fit(entry, dict[str, list[str]]) or {}
    for factor in FACTORS:
        if fitting.keys() == {factor} and len(fitting[factor]) == 2:
            a, b = fitting[factor]
            return factor, a, b
    return None


def contrasts(cells: Sequence[Cell], declared: Declared | None = None) -> list[Contrast]:
    """The effects of these cells; without a declaration "a - b" for all a before b by name.

    Declared pairs whose levels are not here are left out.
    """
    models, policies = (_pairs(cells, factor, declared or {}) for factor in FACTORS)
    mains = [
        found
        for factor, pairs in zip(FACTORS, (models, policies), strict=True)
        for name, a, b in pairs
        if (found := _main(cells, factor, name, a, b))
    ]
    both = itertools.product(models, policies)
    crossed = [_interaction(cells, m, p) for (_, *m), (_, *p) in both]
    return [*mains, *filter(None, crossed)]


def _pairs(cells: Sequence[Cell], factor: Factor, declared: Declared) -> list[tuple[str, str, str]]:
    """Name, level a, level b of each pair; all pairs, without names, if none is declared."""
    levels = _levels(cells, factor)
    mine = [(name, a, b) for name, (of, a, b) in declared.items() if of == factor]
    if not mine:
        return [("", a, b) for a, b in itertools.combinations(levels, 2)]
    return [(name, a, b) for name, a, b in mine if {a, b} <= set(levels)]


def _main(cells: Sequence[Cell], factor: Factor, name: str, a: str, b: str) -> Contrast | None:
    other: Factor = "policy" if factor == "world_model" else "world_model"
    across = _levels(cells, other)
    at = {(getattr(cell, factor), getattr(cell, other)): cell for cell in cells}
    pairs = [(at[a, x], at[b, x]) for x in across if (a, x) in at and (b, x) in at]
    if not pairs:
        return None
    weights: dict[Cell, float] = {}
    for better, worse in pairs:
        weights |= {better: 1 / len(pairs), worse: -1 / len(pairs)}
    part = ""
    if len(pairs) < len(across):
        at_levels = sorted(getattr(better, other) for better, _ in pairs)
        part = f"{_words(other)} {', '.join(at_levels)}"
    title = f"{name} ({_words(factor)}: {a} - {b})" if name else f"{_words(factor)}: {a} - {b}"
    levels: dict[Factor, tuple[str, str]] = {factor: (a, b)}
    verdicts = f"{a} ahead", f"{b} ahead"
    return Contrast(factor, title, levels, part, weights, pairs, *verdicts, name)


def _interaction(
    cells: Sequence[Cell], models: Sequence[str], policies: Sequence[str]
) -> Contrast | None:
    (a, b), (p, q) = models, policies
    weights = {Cell(a, p): 1.0, Cell(a, q): -1.0, Cell(b, p): -1.0, Cell(b, q): 1.0}
    if not all(cell in cells for cell in weights):
        return None
    title = f"interaction: policy {p} - {q}, in world model {a} - in {b}"
    levels: dict[Factor, tuple[str, str]] = {"world_model": (a, b), "policy": (p, q)}
    verdicts = f"larger in {a}", f"larger in {b}"
    return Contrast("interaction", title, levels, "", weights, [], *verdicts)


def _words(factor: str) -> str:
    return factor.replace("_", " ")


def _levels(cells: Sequence[Cell], factor: str) -> list[str]:
    return sorted({getattr(cell, factor) for cell in cells})
