"""The replicates behind a number, in strata: what was drawn together, and what independently.

A comparison is a split plot: the world model is the whole plot, the policies trained in it are its
sub-plots (Montgomery, Design and Analysis of Experiments, chapter 14). What was drawn at random and
independently, the *replicate*, depends on the design:

* Several world models of a kind, each with policies on every task: the replicate is the world
  model. All its policies and tasks share its faults, so they form one row of numbers, and only
  different world models are independent. There is one stratum for each kind. Policies that met the
  same world models stand in one stratum, and their differences are formed within a world model:
  its own level cancels. Policies that met other world models stand in strata of their own.
* Every policy has its own world model (from scratch): the replicate is the policy, and each cell
  and task is a stratum.
* One world model of a kind: all numbers are conditional on it, and the replicate is the policy, as
  above. Nothing is known about other world models of the kind (``effects`` refuses a verdict).

The identity of the world models decides (``Score.world_model``), not the names of the seeds. Tasks
are fixed, not drawn (as in Agarwal et al. 2021, arXiv 2108.13264): numbers over all tasks are about
these tasks.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from fmbpo.compare.comparison import Cell, Score

Array: TypeAlias = NDArray[np.float64]
Scores: TypeAlias = Mapping[Cell, Mapping[str, Mapping[str, Score]]]
"""``scores[cell][task][seed]``."""
Group: TypeAlias = tuple[Cell, str]
"""The policies of a cell on a task."""
_Replicates: TypeAlias = Mapping[tuple[str, ...], Sequence[float]]
_Groups: TypeAlias = dict[Group, _Replicates]


@attrs.frozen
class Stratum:
    """Replicates that were drawn alike; different strata are independent.

    ``values``: ``(rows, replicates)`` mean returns. Row i has the policies of ``groups[i]``; a
    group has as many rows as the world model that has most of its policies. NaN where a world model
    lacks a policy.
    """

    groups: Sequence[Group]
    values: Array

    @property
    def complete(self) -> bool:
        """Whether every world model has all policies."""
        return not np.isnan(self.values).any()

    @property
    def replicates(self) -> int:
        """The number of replicates of the group that has fewest."""
        return min(self.having(group) for group in self.groups)

    def rows(self, group: Group) -> list[int]:
        """The rows of a group; none if it is not in this stratum."""
        return [i for i, one in enumerate(self.groups) if one == group]

    def having(self, group: Group) -> int:
        """The number of replicates of a group."""
        return int((~np.isnan(self.values[self.rows(group)])).any(0).sum())


def strata(scores: Scores, cells: Iterable[Cell], tasks: Iterable[str]) -> list[Stratum]:
    """The strata of these cells and tasks.

    Nothing depends on the order of cells, tasks and seeds, or on the names of seeds.
    """
    cells, tasks = sorted(cells), sorted(tasks)
    single = single_models(scores, cells, tasks)
    found: list[_Groups] = []
    for group in itertools.product(cells, tasks):
        one: _Groups = {group: _by_replicate(scores, group, single)}
        linked = [other for other in found if _names(other) & _names(one)]
        found = [other for other in found if other not in linked]
        found.append({key: by for part in (*linked, one) for key, by in part.items()})
    return [_stratum(groups) for groups in found]


def single_models(scores: Scores, cells: Iterable[Cell], tasks: Iterable[str]) -> list[str]:
    """The kinds of world models of which all these policies met one and the same."""
    met: dict[str, set[str]] = {}
    for cell, task in itertools.product(cells, tasks):
        identities = {score.world_model for score in scores[cell][task].values()}
        met.setdefault(cell.world_model, set()).update(identities)
    return [kind for kind, found in met.items() if len(found) == 1 and "" not in found]


def _by_replicate(scores: Scores, group: Group, single: Collection[str]) -> _Replicates:
    """The returns of each replicate: of each world model, or of each policy."""
    cell, task = group
    found: dict[tuple[str, ...], list[float]] = {}
    for seed, score in scores[cell][task].items():
        model = "" if cell.world_model in single else score.world_model
        name = (model,) if model else (cell.world_model, cell.policy, task, seed)
        found.setdefault(name, []).append(score.mean)
    return {name: sorted(values) for name, values in found.items()}


def _names(groups: _Groups) -> set[tuple[str, ...]]:
    return {name for by in groups.values() for name in by}


def _stratum(groups: _Groups) -> Stratum:
    names = sorted(_names(groups))
    rows: list[tuple[Group, list[float]]] = []
    for group, by in sorted(groups.items()):
        for place in range(max(map(len, by.values()))):
            row = [by[name][place] if place < len(by.get(name, ())) else np.nan for name in names]
            rows.append((group, row))
    values = np.array([row for _, row in rows])
    return Stratum([group for group, _ in rows], values[:, np.lexsort(values[::-1])])
