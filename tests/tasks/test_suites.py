"""Suites: the order of tasks, the union of suites, and suites of other distributions."""

import sys

import numpy as np
import pytest
import torch
from whole_store import load

from fmbpo.cli import main
from fmbpo.config.schema import DataConfig
from fmbpo.data.sampler import action_masks
from fmbpo.data.store import verify
from fmbpo.errors import UserError
from fmbpo.scaffold import template
from fmbpo.tasks import known
from fmbpo.tasks.known import everything, suite_of, suites_named, task_info, task_name
from fmbpo.tasks.mt30 import SUITE
from fmbpo.tasks.table import GymnasiumTable
from fmbpo.training.dataset import load_dataset

OWN = {"pole": GymnasiumTable(gymnasium="InvertedPendulum-v5")}
MODULE = """
from attrs import frozen
from fmbpo.tasks.suite import Suite, TaskInfo

@frozen(kw_only=True)
class Wide(TaskInfo):
    action_repeat: int = 1
    episode_steps: int = 50

    def make(self, drawable=False):
        raise AssertionError("no environment is needed to import its data")

SUITE = Suite("wide", (Wide(name="reach", obs_dim=39, action_dim=4),
                       Wide(name="push", obs_dim=30, action_dim=4)))
NO_SUITE = 3
"""


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """``offered(value)``: install a distribution with this entry point in ``fmbpo.tasks``."""

    def offer(value="wide_tasks:SUITE"):
        (tmp_path / "wide_tasks.py").write_text(MODULE)
        info = tmp_path / "wide_tasks-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wide-tasks\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[fmbpo.tasks]\nwide = {value}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        known._offered.cache_clear()

    yield offer
    for module in ("wide_tasks", "my_tasks"):
        sys.modules.pop(module, None)
    known._offered.cache_clear()
    known._load.cache_clear()


def test_a_task_of_mt30_has_the_sizes_of_the_whole_suite():
    assert suite_of(["walker-run"]) is SUITE
    assert suite_of(["pendulum-spin", "walker_run"]) is SUITE
    assert (SUITE.obs_width, SUITE.action_width, len(SUITE), SUITE.episode_steps) == (
        24, 6, 30, 500)  # fmt: skip


def test_own_tasks_have_their_own_sizes_and_follow_a_suite():
    alone = suite_of(["pole"], OWN)
    assert (alone.obs_width, alone.action_width, alone.names) == (4, 1, ("pole",))
    both = suite_of(["pole", "cup-spin"], OWN)
    assert both.names == (*SUITE.names, "pole")
    assert (both.obs_width, both.action_width, both.episode_steps) == (24, 6, 1000)
    assert both.index("cup-spin") == SUITE.index("cup-spin")
    assert action_masks(both)[30].tolist() == [1, 0, 0, 0, 0, 0]
    assert everything(OWN).names == both.names


def test_a_distribution_offers_a_suite(offered):
    offered()
    found = suite_of(["push"])
    assert (found.name, found.names, found.obs_width) == ("wide", ("reach", "push"), 39)
    assert task_name("push") == "push"
    whole = suites_named(["mt30", "wide"])
    assert (len(whole), whole.obs_width, whole.action_width) == (32, 39, 6)
    assert suite_of(["push", "walker-walk"]).names == whole.names
    with pytest.raises(UserError, match="no installed suite has the name 'mt80'"):
        suites_named(["mt80"])


def test_files_of_several_suites_are_imported_whole(offered, tmp_path):
    """As MT80's are: MT30's tasks first, then others with wider observations, in several files."""
    offered()
    rng, given, dims = (
        np.random.default_rng(0),
        [],
        [t.obs_dim for t in suites_named(["mt30", "wide"])],
    )
    for part, ids in enumerate([(7, 30, 7, 30), (31, 0, 31, 0)]):
        obs = rng.normal(size=(4, 5, 39)).astype(np.float32)
        for episode, number in enumerate(ids):
            obs[episode, :, dims[number] :] = 0
        given.append(obs.reshape(20, 39))
        arrays = {"obs": obs, "action": rng.uniform(-1, 1, (4, 5, 6))}
        arrays |= {"reward": rng.uniform(size=(4, 5)), "task": np.repeat([ids], 5, 0).T}
        torch.save(
            {k: torch.from_numpy(v.copy()) for k, v in arrays.items()}, tmp_path / f"{part}.pt"
        )
    out = tmp_path / "all.zarr"
    words = ["data", "import-tdmpc2", *(str(tmp_path / f"{part}.pt") for part in (0, 1))]
    assert main([*words, "--out", str(out)]) == 2
    assert main([*words, "--suites", "mt30,wide", "--out", str(out)]) == 0
    data = load_dataset(DataConfig(path=str(out)), torch.device("cpu"))
    assert verify(out) == data.id
    assert (len(data.suite), data.suite.obs_width, data.suite.action_width) == (32, 39, 6)
    assert data.tasks == ["walker-stand", "pendulum-swingup", "reach", "push"]
    np.testing.assert_array_equal(load(out).obs, np.concatenate(given))


def test_an_unknown_task_is_named(offered):
    offered()
    with pytest.raises(UserError, match=r"(?s)there is no task 'poel'.*'pole'.*tasks.NAME"):
        task_info("poel", OWN)
    with pytest.raises(UserError, match=r"there is no task 'gone'"):
        suite_of(["gone"])


@pytest.mark.parametrize(
    ("value", "said"),
    [("wide_tasks:NO_SUITE", "not a suite of tasks"), ("wide_tasks:GONE", "AttributeError")],
)
def test_a_broken_suite_is_named_by_those_who_need_it(offered, value, said):
    offered(value)
    assert suite_of(["walker-run"]) is SUITE
    with pytest.raises(UserError, match=rf"(?s)suite 'wide' \(wide-tasks.*{said}"):
        suite_of(["push"])


def test_two_tasks_of_one_name_do_not_mix():
    own = {"walker-run": GymnasiumTable(gymnasium="InvertedPendulum-v5")}
    with pytest.raises(UserError, match="tasks of the same name: walker-run"):
        suite_of(["walker-run", "walker-walk"], own)


def test_the_planner_acts_in_the_suite_of_the_documentation(offered, tmp_path):
    """Its environments offer their states."""
    (tmp_path / "my_tasks.py").write_text(template("tasks"))
    offered("my_tasks:SUITE")
    out = tmp_path / "reach.zarr"
    words = ["data", "collect", "--tasks", "my-tasks-reach", "--noise", "0", "--episodes", "1"]
    assert main([*words, "--workers", "1", "--out", str(out)]) == 0
    data = load(out)
    assert np.linalg.norm(data.obs[-1, 4:6]) < 0.2  # the way to the goal, in m
    planned = data.attributes["planner_return"]["my-tasks-reach"]["mean"]
    assert planned > 60  # of 100; random actions earn about 14
