"""Returns of made-up cells, as the comparison takes them."""

import numpy as np

from fmbpo.compare.comparison import Cell


def blocks(*tasks):
    """One array ``[1, seeds]`` per task."""
    return [np.array([task], dtype=float) for task in tasks]


def table(**cells):
    """``ap={"t": [...]}``: values by seed 1, 2, ..."""
    return {
        Cell(*name): {
            task: {str(i): float(value) for i, value in enumerate(values, 1)}
            for task, values in tasks.items()
        }
        for name, tasks in cells.items()
    }
