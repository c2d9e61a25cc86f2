import shutil

import pytest
from returns import MODELS

from fmbpo.cli import main
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


@pytest.fixture(scope="session")
def study_of_two(repository, small_store, tiny_policy):
    """``study_of_two(folder, text="")``: the command that runs a study of two cells in ``folder``.

    ``text``: more of its file.
    """

    def study_of_two(folder, text=""):
        experiments = repository / "experiments"
        file = folder / "two.toml"
        file.write_text(
            'kind = "study"\nfactors = ["policy"]\ndescription = "which policy?"\n'
            f'[cells.one]\nexperiment = "{experiments}/phase8_mlpwm_flowpolicy.toml"\n'
            f'[cells.other]\nexperiment = "{experiments}/phase8_mlpwm_mlppolicy.toml"\n{text}'
        )
        command = ["run", str(file), "--scale", "laptop", "--data", str(small_store)]
        command += ["--runs", str(folder / "runs")]
        overrides = [*tiny_policy, "policy_learning.diagnose_every=3"]
        return [*command, *(word for override in overrides for word in ("-o", override))]

    return study_of_two


@pytest.fixture(scope="session")
def runs(study_of_two, tmp_path_factory):
    """The folder of a study's two cells, their world model and the study."""
    folder = tmp_path_factory.mktemp("study")
    assert main(study_of_two(folder)) == 0
    return folder / "runs"


@pytest.fixture
def copy(runs, tmp_path):
    """The same, to be damaged: ``copy(pattern)`` is the one folder of that name."""
    shutil.copytree(runs, tmp_path / "runs")

    def copy(pattern):
        (found,) = (tmp_path / "runs").glob(pattern)
        return found

    return copy
