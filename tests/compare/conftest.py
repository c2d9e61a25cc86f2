import pytest
from returns import MODELS

from fmbpo.compare.comparison import Basis, Cell, Record, Score

BASIS = Basis("frozen", "corrected", "laptop", "sha256:0123456789abcdef", "2 episodes", "7 x 4 x 4")


@pytest.fixture(scope="session")
def basis():
    return BASIS


@pytest.fixture
def record():
    """``record("mlp flow", {task: [a seed's return, ...]}, **others)``; seeds are 1, 2, ..."""

    def record(cell, returns, *, seeds=None, basis=BASIS, episodes=2, models="own", **others):
        world_model, policy = cell.split()

        def score(seed, value):
            both = (value - 1.0, value + 1.0) if episodes else ()
            return Score(float(value), both, episodes, MODELS[models](world_model, seed))

        scores = {
            task: {
                str(seed): score(str(seed), value)
                for seed, value in zip(seeds or range(1, 99), values, strict=False)
            }
            for task, values in returns.items()
        }
        content = {
            "name": f"run {cell}", "source": f"runs/{cell}", "experiment": "e", "phase": "8",
            "checkpoint": "", "cell": Cell(world_model, policy),
        }  # fmt: skip
        return Record(**{**content, **others}, basis=basis, scores=scores)

    return record
