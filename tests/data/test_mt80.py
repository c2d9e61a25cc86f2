"""MT80 as TD-MPC2's files hold it: MT30's tasks and Meta-World's, whose simulator is not needed."""

import json
import sys

import numpy as np
import pytest
import torch
from tdmpc2_files import arrays, save
from whole_store import load

from fmbpo.cli import main
from fmbpo.config.schema import DataConfig
from fmbpo.tasks import known
from fmbpo.tasks.mt30 import SUITE
from fmbpo.training.dataset import load_dataset

MT80 = range(80)
PIECE = 101
"""Rows per episode. Of DeepMind Control they are pieces of episodes, which have 501."""


@pytest.fixture
def metaworld(repository, tmp_path, monkeypatch, write_dist_info):
    """The example suite as if installed; the package ``metaworld`` is not."""
    folder = repository / "examples/suites/metaworld"
    write_dist_info(folder, tmp_path / "site")
    for place in (folder, tmp_path / "site"):
        monkeypatch.syspath_prepend(str(place))
    monkeypatch.setitem(sys.modules, "metaworld", None)
    known._offered.cache_clear()
    yield known.suites_named(["Meta-World"])
    known._offered.cache_clear()
    known._load.cache_clear()


@pytest.fixture
def files(tmp_path):
    """Two files, in which each task has two episodes; Meta-World's rewards reach 20."""
    folder = tmp_path / "mt80"
    folder.mkdir()
    parts = [arrays(80, PIECE, seed, MT80, width=39) for seed in (0, 1)]
    for number, part in enumerate(parts):
        part["reward"][30:] *= 10
        save(folder / f"chunk_{number}.pt", part)
    return folder, parts


@pytest.fixture
def store(metaworld, files, tmp_path):
    out = tmp_path / "mt80.zarr"
    words = ["data", "import-tdmpc2", str(files[0]), "--suites", "mt30,meta-world"]
    assert main([*words, "--out", str(out)]) == 0
    return out


def test_all_80_tasks_are_imported(store, metaworld, files, capsys):
    names = [*SUITE.names, *metaworld.names]
    assert main(["data", "verify", str(store)]) == 0
    capsys.readouterr()
    assert main(["data", "info", str(store)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["held_out"]) == (160 * PIECE, 80)
    assert found["episodes"] == {name: {"all": 2, "replay": 2} for name in names}
    assert 19 < found["rewards"][1] <= 20
    data, given = load(store), np.concatenate([part["obs"] for part in files[1]])
    np.testing.assert_array_equal(data.obs, given.reshape(-1, 39))
    action = np.concatenate([part["action"] for part in files[1]])
    action[:, 0] = 0
    for id, task in enumerate([*SUITE, *metaworld]):
        action[id::80, :, task.action_dim :] = 0
    np.testing.assert_array_equal(data.action, action.reshape(-1, 6))
    dataset = load_dataset(DataConfig(path=str(store)), torch.device("cpu"))
    assert dataset.suite.names == tuple(names) == tuple(dataset.tasks)


def test_the_order_of_the_suites_is_that_of_the_ids(metaworld, files, tmp_path, capsys):
    """Else the observations of Meta-World would not fit MT30's narrower tasks."""
    words = ["data", "import-tdmpc2", str(files[0]), "--out", str(tmp_path / "x.zarr")]
    for suites, said in (
        ("meta-world,mt30", "--suites in the order of their task ids"),
        ("mt30,meta-world,mt30", "the suite 'mt30' comes twice"),
        ("mt30", "--suites to name further suites"),
    ):
        assert main([*words, "--suites", suites]) == 2
        assert said in capsys.readouterr().err
        assert not list(tmp_path.glob("x.zarr*/*"))


def cell(tasks, tiny_policy):
    """Overrides for a policy of these tasks, in a world model of all 80."""
    changes = [*tiny_policy, f"grid.tasks={json.dumps(tasks)}"]
    return [word for change in changes for word in ("-o", change)]


@pytest.mark.slow
def test_policies_learn_in_a_world_model_of_all_80(
    store, repository, tmp_path, tiny_policy, capsys
):
    file = str(repository / "experiments/phase8_mlpwm_mlppolicy.toml")
    where = ["--scale", "laptop", "--data", str(store), "--runs", str(tmp_path / "runs")]
    assert main(["check", file, *where, *cell(["cup-spin"], tiny_policy)]) == 0
    assert "80 tasks" in capsys.readouterr().out
    assert main(["run", file, *where, *cell(["cup-spin"], tiny_policy)]) == 0
    (pretraining,) = (tmp_path / "runs").glob("phase8_pretrain*/config.json")
    assert len(json.loads(pretraining.read_text())["suite"]) == 80
    # The finished world model fits policies of other tasks, whose simulator must be there.
    capsys.readouterr()
    assert main(["check", file, *where, *cell(["mw-reach"], tiny_policy)]) == 2
    said = capsys.readouterr().err
    assert "mw-reach: Meta-World's simulator cannot be imported" in said
    assert "-> pip install --no-deps metaworld" in said
    assert "does not fit" not in said
