"""Stores of tasks of one's own: widths, terminations, collection, and imports."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from same import same_files
from torch.utils._pytree import tree_map
from whole_store import load

from fmbpo.cli import main
from fmbpo.config.schema import DataConfig
from fmbpo.data.collecting import Request, behaviours, collect
from fmbpo.data.store import info, open_store, verify
from fmbpo.data.store_writer import StoreWriter
from fmbpo.errors import UserError
from fmbpo.tasks.table import GymnasiumTable
from fmbpo.training.dataset import load_dataset, with_slices

RAMP = "ramp:ramp/Ramp-v0"
OWN = {"ramp": GymnasiumTable(gymnasium=RAMP), "far": GymnasiumTable(gymnasium=RAMP)}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    file = tmp_path_factory.mktemp("own") / "own.toml"
    file.write_text(f'[tasks.ramp]\ngymnasium = "{RAMP}"\n[tasks.far]\ngymnasium = "{RAMP}"\n')
    return str(file)


@pytest.fixture(scope="module")
def collected(experiment, tmp_path_factory):
    out = tmp_path_factory.mktemp("collected") / "ramp.zarr"
    words = ["data", "collect", "--experiment", experiment, "--tasks", "ramp,far=7"]
    words += ["--policy", "random", "--episodes", "12", "--workers", "1", "--out", str(out)]
    assert main(words) == 0
    return out


def test_random_episodes_are_collected_to_their_ends(collected):
    store = open_store(collected)
    assert (store.layout.version, store.layout.obs_width, store.layout.action_width) == (2, 2, 2)
    assert verify(collected) == store.id
    found = info(collected)
    assert {task: each["all"] for task, each in found["episodes"].items()} == {"ramp": 12, "far": 7}
    assert 0 < found["terminated"]["ramp"] < 12  # the longest are cut off
    data = load(collected)
    for first, end, over in zip(
        data.episode_starts, data.episode_ends, store.episode_terminated, strict=True
    ):
        steps, length = end - first - 1, int(data.obs[first, 1])
        assert data.obs[first:end, 0].tolist() == list(range(steps + 1))
        assert steps == min(length, 20)
        assert over == (length <= 20)
        scaled = data.action[first + 1 : end] * [2, 2] + [2, -1]
        np.testing.assert_allclose(data.reward[first + 1 : end], scaled.sum(1), rtol=1e-5)


MIX = {
    "planner": {"kind": "planner", "share": 4, "effort": 0.2},
    "planner-noisy": {"kind": "planner", "share": 3, "effort": 0.2, "noise": 0.3},
    "random": {"kind": "random", "share": 3},
}


@pytest.fixture(scope="module")
def planned(experiment, tmp_path_factory):
    """Both tasks, collected by a hasty planner and by noise."""
    out = tmp_path_factory.mktemp("planned") / "ramp.zarr"
    assert main([*planning(experiment, out), "--workers", "1"]) == 0
    return out


def planning(experiment, out):
    recipe = out.with_name("recipe.toml")
    recipe.write_text("".join(f"{name} = {inline_table(mix)}\n" for name, mix in MIX.items()))
    words = ["data", "collect", "--experiment", experiment, "--tasks", "ramp,far"]
    words += ["--recipe", str(recipe), "--episodes", "10", "--recover", "1"]
    return [*words, "--out", str(out)]


def inline_table(values):
    return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + "}"


def test_the_planner_collects_own_tasks(planned):
    """The reward is the sum of the actions: at most 5 per step, and 1 on average by chance."""
    store, data = open_store(planned), load(planned)
    assert store.attributes["planner_return"]["far"]["episodes"] == 4
    assert store.attributes["provenance"]["planner"].keys() == {"ramp", "far"}
    names = np.array(store.behaviours)[store.episode_behaviour]
    rate = {name: [] for name in names}
    for name, first, end in zip(names, data.episode_starts, data.episode_ends, strict=True):
        steps, length = end - first - 1, int(data.obs[first, 1])
        assert steps == min(length, 20)
        rate[name].append(data.reward[first + 1 : end].mean())
    assert np.mean(rate["planner"]) > 2.5
    assert min(rate["planner"]) > max(rate["random"])
    assert rate.keys() == {*MIX, "planner-interrupted"}


def test_training_knows_the_planners_return(planned, collected):
    known = load_dataset(DataConfig(path=str(planned)), CPU, OWN).planner_return
    recorded = open_store(planned).attributes["planner_return"]
    assert known == {task: recorded[task]["mean"] for task in ("ramp", "far")}
    assert load_dataset(DataConfig(path=str(collected)), CPU, OWN).planner_return == {}


def test_workers_do_not_change_planned_data(planned, experiment, tmp_path):
    out = tmp_path / "ramp.zarr"
    assert main([*planning(experiment, out), "--workers", "2"]) == 0
    assert same_files(out, planned)


def test_an_interrupted_collection_with_the_planner_continues(planned, tmp_path):
    out = tmp_path / "ramp.zarr"
    request = Request(["ramp", "far"], 10, behaviours(MIX), recover=1, own=OWN)

    def stop(done, _all):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(out, request, progress=stop)
    seen = []
    collect(out, request, progress=lambda done, _all: seen.append(done))
    assert seen == list(range(7, 23))
    assert same_files(out, planned)


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ("Global-v0", "equal actions lead to another episode"),
        ("Inner-v0", "equal actions lead to another episode"),
        ("Uncopied-v0", "cannot be copied: TypeError: cannot pickle 'generator' object"),
    ],
)
def test_a_state_that_cannot_be_set_is_named(environment, why, tmp_path, capsys):
    file = tmp_path / "odd.toml"
    file.write_text(f'[tasks.odd]\ngymnasium = "states:states/{environment}"\n')
    words = ["data", "collect", "--experiment", str(file), "--tasks", "odd", "--episodes", "2"]
    words += ["--workers", "1", "--out", str(tmp_path / "x.zarr")]
    assert main(words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "impossible in task 'odd'" in said
    assert why in said
    assert "--policy random" in said
    assert list(tmp_path.iterdir()) == [file]
    assert main([*words, "--policy", "random"]) == 0


def test_batches_know_the_terminations(collected):
    data = load_dataset(DataConfig(path=str(collected)), CPU, OWN)
    assert data.suite.names == ("far", "ramp")
    rows = data.train
    last = rows.end_E - 3
    batch = rows.batch(rows.drawn(last, torch.arange(len(last)), 2), 2)
    assert torch.equal(batch.terminated_HB[-1].bool(), rows.terminated_E)
    assert not batch.terminated_HB[0].any()
    assert batch.terminated_HB.any()


def test_episodes_too_short_for_a_slice_are_left_out(collected):
    train = load_dataset(DataConfig(path=str(collected)), CPU, OWN).train
    length_E = train.end_E - train.start_E
    horizon = int(length_E.min())
    long = with_slices(train, horizon)
    assert torch.equal(long.end_E - long.start_E, length_E[length_E > horizon])
    assert 0 < len(long.end_E) < len(length_E)
    with pytest.raises(UserError, match="the longest episode of task 'far'"):
        with_slices(train, 30)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"ramp": OWN["ramp"]}, r'(?s)task .far.*\[tasks.far\].*gymnasium = "ramp:ramp/Ramp-v0"'),
        ({**OWN, "far": GymnasiumTable(gymnasium="InvertedPendulum-v5")}, r"'far' has \[2, 2\]"),
    ],
)
def test_an_experiment_that_does_not_fit_the_data_is_named(own, said, collected):
    with pytest.raises(UserError, match=said):
        load_dataset(DataConfig(path=str(collected)), CPU, own)


def written(out, terminated=(True, False), task="ramp", own=OWN):
    writer = StoreWriter(out, [task], ["x"], own=own)
    for each in terminated:
        rows = {"obs": np.ones((4, 2)), "action": np.zeros((4, 1)), "reward": np.zeros(4)}
        writer.append(**rows, task=task, behaviour="x", terminated=each)
    return writer.finish()


def test_terminations_are_part_of_the_identity(tmp_path):
    ids = [
        open_store(written(tmp_path / str(i), ends)).id
        for i, ends in enumerate([(True, False), (False, True), (True, False)])
    ]
    assert ids[0] == ids[2] != ids[1]


def test_episodes_of_mt30_do_not_terminate(tmp_path):
    assert open_store(written(tmp_path / "a", (False,), "cup-spin", {})).layout.version == 1
    with pytest.raises(UserError, match="those of MT30 never do"):
        written(tmp_path / "b", (True,), "cup-spin", {})


def test_npz_files_of_any_width(experiment, tmp_path, capsys):
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(9, 2)), rng.uniform(-1, 1, (9, 2))
    arrays = {"obs": obs, "action": action, "reward": np.arange(9.0)}
    arrays |= {"episode_ends": np.array([4, 9]), "task": np.array(["ramp", "far"])}
    file, out = tmp_path / "a.npz", tmp_path / "a.zarr"
    np.savez(file, **arrays, terminated=np.array([True, False]))
    words = ["data", "import-npz", str(file), "--experiment", experiment, "--out"]
    assert main([*words, str(out)]) == 0
    store, data = open_store(out), load(out)
    assert store.episode_terminated.tolist() == [True, False]
    np.testing.assert_array_equal(data.obs, obs.astype(np.float32))
    assert verify(out) == store.id
    assert "WARNING" not in capsys.readouterr().err  # about rewards outside of MT30's
    np.savez(file, **arrays, terminated=np.array([1, 0]))
    assert main([*words, str(tmp_path / "b.zarr")]) == 2
    assert "array terminated" in capsys.readouterr().err


@pytest.fixture(scope="module")
def minari_data(tmp_path_factory):
    """The id of a data set made with Minari's own collector, in a folder of its own."""
    minari = pytest.importorskip("minari", reason="minari is not installed: fmbpo[minari]")
    import gymnasium

    # The collector wants jax, 350 MB, for one function that torch has too.
    trees = SimpleNamespace(tree_map=tree_map)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "jax", SimpleNamespace(tree_util=trees))
        patch.setitem(sys.modules, "jax.tree_util", trees)
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        env = minari.DataCollector(gymnasium.make("InvertedPendulum-v5"), record_infos=False)
        for seed in range(5):
            env.reset(seed=seed)
            env.action_space.seed(seed)
            over = False
            while not over:
                *_, terminated, truncated, _ = env.step(env.action_space.sample())
                over = terminated or truncated
        env.create_dataset("pole/random-v0", algorithm_name="random", author="test")
        yield "pole/random-v0"


def test_a_data_set_of_minari(minari_data, tmp_path, capsys):
    import minari

    out = tmp_path / "pole.zarr"
    words = ["data", "import-minari", minari_data, "--task", "pole", "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert '[tasks.pole]\ngymnasium = "InvertedPendulum-v5"' in said
    store, data = open_store(out), load(out)
    assert verify(out) == store.id
    assert store.own_tasks["pole"]["gymnasium"] == "InvertedPendulum-v5"
    episodes = list(minari.load_dataset(minari_data).iterate_episodes())
    assert store.episode_terminated.all()
    for one, first, end in zip(episodes, data.episode_starts, data.episode_ends, strict=True):
        np.testing.assert_array_equal(data.obs[first:end], one.observations.astype(np.float32))
        np.testing.assert_allclose(data.action[first + 1 : end], one.actions / 3, atol=1e-6)
        assert data.reward[first + 1 : end].tolist() == one.rewards.tolist()
        assert data.reward[first] == 0
    own = {"pole": GymnasiumTable(gymnasium="InvertedPendulum-v5")}
    assert load_dataset(DataConfig(path=str(out)), CPU, own).tasks == ["pole"]
    before = json.dumps(info(out))
    assert main(words) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert json.dumps(info(out)) == before


@pytest.mark.parametrize(
    ("dataset", "task", "said"),
    [
        ("gone/random-v0", "pole", "minari download gone/random-v0"),
        ("pole/random-v0", "ramp", "[4, 1] numbers per observation and action"),
    ],
)
def test_a_data_set_that_does_not_fit_is_named(
    dataset, task, said, minari_data, experiment, tmp_path, capsys
):
    words = ["data", "import-minari", dataset, "--task", task, "--experiment", experiment]
    assert main([*words, "--out", str(tmp_path / "x.zarr")]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
