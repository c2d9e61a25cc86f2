"""Returns of made-up cells, as the comparison takes them."""

import numpy as np

from fmbpo.compare.comparison import Cell, Score
from fmbpo.compare.strata import Stratum

MODELS = {
    "own": lambda kind, seed: "",
    "replicated": lambda kind, seed: f"{kind}{seed.partition('.')[0]}",
    "one": lambda kind, seed: kind,
}
"""The world model of a policy: its own, its replicate's, or one for all of a kind."""


def blocks(*tasks):
    """One array ``[1, seeds]`` per task."""
    return [np.array([task], dtype=float) for task in tasks]


def parts(*tasks):
    """A stratum for each task of one cell."""
    return [Stratum([(Cell("a", "p"), f"t{i}")], x) for i, x in enumerate(blocks(*tasks))]


def table(models="own", **cells):
    """``ap={"t": [...]}``: scores by seed 1, 2, ..."""
    return {
        Cell(*name): {
            task: {
                str(i): Score(float(value), world_model=MODELS[models](name[0], str(i)))
                for i, value in enumerate(values, 1)
            }
            for task, values in tasks.items()
        }
        for name, tasks in cells.items()
    }
