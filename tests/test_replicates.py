"""Replicates: a world model per seed, and the policies that are trained in it."""

import json
import shutil

import attrs
import pytest
import torch

import fmbpo
from fmbpo.cli import main
from fmbpo.compare.reading import records_of
from fmbpo.config import load_experiment
from fmbpo.errors import UserErrors
from fmbpo.runs.checkpoint import load_checkpoint
from fmbpo.runs.status import scan
from fmbpo.runs.summary import Summary

NAME = "phase8_mlpwm_mlppolicy"
SEEDS = ["grid.seeds=[1, 2]", "grid.policies_per_model=1"]


@pytest.fixture(scope="module")
def run(small_store, tiny_policy):
    """``run(root, *overrides, name=NAME)``: the folder and its summary."""

    def train(root, *overrides, name=NAME):
        options = [*tiny_policy, *overrides]
        e = load_experiment(name, scale="laptop", overrides=options, data=str(small_store))
        return fmbpo.run(e, root, say=lambda _: None)

    return train


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def both(run, root):
    """A run of two replicates."""
    return run(root, *SEEDS)


def models(root):
    return sorted(path.name.split("__")[2] for path in root.glob("phase8_pretrain_mlpwm__*"))


def test_each_replicate_has_its_own_world_model(both, root):
    assert models(root) == ["1", "2"]
    config = json.loads((both.folder / "config.json").read_text())
    weights = config["world_model_weights"]
    assert set(weights) == {"1", "2"}
    assert weights["1"] != weights["2"]
    part = both.summary.world_model
    assert part.checkpoint is None
    assert {seed: path.split("__")[2] for seed, path in part.checkpoints.items()} == {
        "1": "1", "2": "2",
    }  # fmt: skip
    assert all(set(task.seeds) == {"1", "2"} for task in both.summary.tasks.values())
    assert Summary.from_json(both.summary.to_json()) == both.summary


def test_the_cost_of_all_world_models_counts(both, root):
    runs = [json.loads((p / "summary.json").read_text()) for p in root.glob("phase8_pretrain*")]
    assert both.summary.flops["pretraining"] == sum(run["flops"] for run in runs)
    scores = [run["wm_validation"]["score"] for run in runs]
    assert both.summary.wm_validation["score"] == pytest.approx(sum(scores) / 2)


def test_a_replicate_does_not_depend_on_the_others(both, run, tmp_path):
    alone = run(tmp_path, "grid.seeds=[2]", "grid.policies_per_model=1")
    for task, result in alone.summary.tasks.items():
        one, two = result.seeds["2"], both.summary.tasks[task].seeds["2"]
        assert two.reality.disagreement > 0
        # Except that a single world model disagrees with none.
        agreed = {"disagreement": None, "rank_correlation": None}
        assert one == attrs.evolve(two, reality=attrs.evolve(two.reality, **agreed))
    one = load_checkpoint(alone.folder / "checkpoints/policies").weights
    two = load_checkpoint(both.folder / "checkpoints/policies-1").weights
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_replicate_trains_only_what_is_missing(both, run, root, tmp_path):
    shutil.copytree(root, tmp_path / "runs")
    before = {p.name for p in (tmp_path / "runs").iterdir()}
    run(tmp_path / "runs", "grid.seeds=[1, 2, 3]", "grid.policies_per_model=1")
    made = {p.name for p in (tmp_path / "runs").iterdir()} - before
    assert {name.split("__")[2] for name in made} == {"3", "1-2-3"}


def test_both_policies_of_a_study_meet_the_same_world_models(both, run, root):
    other = run(root, *SEEDS, name="phase8_mlpwm_flowpolicy")
    configs = [json.loads((r.folder / "config.json").read_text()) for r in (both, other)]
    assert configs[0]["world_model_weights"] == configs[1]["world_model_weights"]
    assert models(root) == ["1", "2"]


def test_several_policies_per_world_model(run, root, tmp_path):
    found = run(tmp_path, "grid.seeds=[1, 2]", "grid.policies_per_model=2")
    labels = ["1", "1.1", "2", "2.1"]
    for result in found.summary.tasks.values():
        assert list(result.seeds) == labels
    (record,) = records_of([found.folder])
    assert set(record.curves["reacher-easy"]) == set(labels)
    rows = {(e.seed, e.policy) for e in scan(tmp_path) if e.task == "reacher-easy"}
    assert rows == {(1, 0), (1, 1), (2, 0), (2, 1)}
    obs = [0.1, -0.2, 0.3, 0.0, 0.0, 0.5]
    acts = [fmbpo.load_policy(found.folder, "reacher-easy", s).act(obs).tolist() for s in labels]
    assert len({tuple(act) for act in acts}) == 4


def test_policies_are_loaded_with_their_own_world_model(both, root, tmp_path):
    shutil.copytree(root, tmp_path / "runs")
    folder = tmp_path / "runs" / both.folder.name
    obs = [0.1, -0.2, 0.3, 0.0, 0.0, 0.5]
    for seed in (1, 2):
        place = fmbpo.load_policy(folder, "reacher-easy", seed).act(obs)
        assert (place == fmbpo.load_policy(both.folder, "reacher-easy", str(seed)).act(obs)).all()


def test_a_run_continues_only_in_its_own_world_models(both, run, root, tmp_path):
    shutil.copytree(root, tmp_path / "runs")
    (tmp_path / "runs" / both.folder.name / "summary.json").unlink()
    one, two = sorted((tmp_path / "runs").glob("phase8_pretrain_mlpwm__*"))
    for name in ("best.safetensors",):
        shutil.copy(one / "checkpoints" / name, two / "checkpoints" / name)
    with pytest.raises(fmbpo.UserError, match="was made with a different world model"):
        run(tmp_path / "runs", *SEEDS)


def test_the_preflight_counts_the_world_models(small_store, tiny_policy, root, both, tmp_path):
    options = {"scale": "laptop", "data": str(small_store)}
    e = load_experiment(NAME, overrides=[*tiny_policy, *SEEDS], **options)
    rows = {(row.subject, row.detail) for row in fmbpo.check(e, tmp_path).rows}
    assert ("world model", "2 of 2 are trained first: 6 updates") in rows
    three = [*tiny_policy, "grid.seeds=[1, 2, 3]", "grid.policies_per_model=1"]
    found = fmbpo.check(load_experiment(NAME, overrides=three, **options), root)
    said = [row.detail for row in found.rows if row.subject == "world model"]
    assert "1 of 3 are trained first: 6 updates" in said
    assert sum("is complete" in detail for detail in said) == 2


def test_a_pretraining_experiment_trains_every_replicate(
    small_store, tiny, repository, tmp_path, capsys
):
    file = repository / "experiments/phase8_pretrain_mlpwm.toml"
    options = [x for o in [*tiny, "grid.seeds=[1, 2]"] for x in ("-o", o)]
    command = ["run", str(file), "--scale", "laptop", "--data", str(small_store), *options]
    assert main([*command, "--runs", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"1", "2"}
    assert models(tmp_path) == ["1", "2"]
    assert found["1"]["wm_validation"]["score"] != found["2"]["wm_validation"]["score"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pretrain.seed=1", "pretrain.seed: unknown key\n  -> each replicate has its own world"),
        ("grid.policies_per_model=0", "grid.policies_per_model: 0 (an integer): must be positive"),
        ("world_model.level=''", "world_model.level: '' (a string) does not name a level"),
        ("world_model.level='a__b'", "world_model.level: 'a__b' (a string) does not name a level"),
        ("policy.level=3", "policy.level: 3 (an integer) does not name a level"),
    ],
)
def test_mistakes(override, said, small_store):
    with pytest.raises(UserErrors) as error:
        load_experiment(NAME, scale="laptop", overrides=[override], data=str(small_store))
    assert said in str(error.value)


def test_a_pretraining_experiment_has_no_policies(small_store):
    with pytest.raises(UserErrors, match=r"an experiment of kind 'pretrain' has no pol"):
        load_experiment(
            "phase8_pretrain_mlpwm", scale="laptop", overrides=["grid.tasks=['walker-run']"],
            data=str(small_store),
        )  # fmt: skip


def test_a_level_names_a_run_and_changes_no_result(both, run, root, tmp_path):
    shutil.copytree(root, tmp_path / "runs")
    named = run(tmp_path / "runs", *SEEDS, "world_model.level=small", "policy.level=gauss")
    assert "__small-gauss__1-2__" in named.folder.name
    for task, result in named.summary.tasks.items():
        assert result.seeds == both.summary.tasks[task].seeds
