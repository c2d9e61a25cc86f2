"""Records of real runs, made in miniature through the command line."""

import json
import shutil

import pytest
from whole_store import load

from fmbpo.base.metrics import read_metrics
from fmbpo.compare.comparison import Cell
from fmbpo.compare.guard import compare
from fmbpo.compare.reading import declared_by, description_of, records_of
from fmbpo.config import identifying
from fmbpo.errors import UserError
from fmbpo.library import report
from fmbpo.runs.folder import RunFolder


def test_records_of_a_study(runs, small_store):
    (study,) = runs.glob("two__study__*")
    records = records_of([study])
    assert [r.cell for r in records] == [Cell("mlp", "flow"), Cell("mlp", "mlp")]
    first = records[0]
    summary = json.loads((runs / first.name / "summary.json").read_text())
    assert first.source == str((runs / first.name).resolve())
    assert (first.experiment, first.phase) == ("phase8_mlpwm_flowpolicy", "8")
    assert first.basis.protocol == "frozen"
    assert first.basis.conventions == "corrected"
    assert first.basis.scale == "laptop"
    assert first.basis.data == load(small_store).id
    assert first.basis.evaluation == "2 episodes, seed 10000"
    assert first.basis.budget == "6 updates x 4 x 4; world model: 6 x 8 x 3"
    assert set(first.scores) == {"cartpole-balance", "reacher-easy"}
    score = first.scores["reacher-easy"]["1.1"]
    entry = summary["tasks"]["reacher-easy"]["seeds"]["1.1"]
    assert (score.mean, list(score.returns), score.episodes) == (
        pytest.approx(entry["return_mean"]), entry["returns"], 2,
    )  # fmt: skip
    assert [step for step, _ in first.curves["reacher-easy"]["1.1"]] == [0, 3, 6]
    assert first.model_errors[1] == summary["wm_validation"]["obs_error_h1"]
    rows = list(read_metrics(runs / first.name / "metrics.jsonl"))
    measured = [row for row in rows if "esnr" in row and row.get("task") and row["seed"] == 1]
    for step, mean in first.gradients["esnr"]["1"]:
        values = [row["esnr"] for row in measured if row["step"] == step]
        assert len(values) == 4  # two tasks, two policies
        assert mean == pytest.approx(sum(values) / 4)
    assert [step for step, _ in first.gradients["jacobian/latent_to_action"]["1"]] == [3, 6]
    assert first.petaflops == pytest.approx(sum(summary["flops"].values()) / 1e15)
    part = (first.pretraining_petaflops * 1e15, first.pretraining_seconds)
    assert part == pytest.approx([summary[x]["pretraining"] for x in ("flops", "seconds")])
    assert records[1].pretrained == first.pretrained != ""
    assert first.hardware.endswith(" cores")
    assert first.checkpoint == summary["world_model"]["checkpoint"]
    assert first.settings["policy_learning.lam"] == 0.95
    assert "policy_learning.iterations" not in first.settings
    assert "grid.seeds" not in first.settings
    task = summary["tasks"]["reacher-easy"]
    assert first.references["random"]["reacher-easy"] == task["random_return_mean"]
    assert first.references["planner"].get("reacher-easy") == task["reference_return"]


def weights_of(records):
    """The world models of each record's policies, by seed."""
    return [{seed: score.world_model for _, seed, score in r.policies} for r in records]


def test_both_policies_met_the_pretrained_world_model(runs):
    (study,) = runs.glob("two__study__*")
    first, second = weights_of(records_of([study]))
    assert first == second
    assert len(set(first.values())) == 1
    assert len(first["1.1"]) == 64  # the digest of its weights


def edited(copy, **changes):
    """The record of a run with another configuration."""
    run = copy("phase8_mlpwm_mlppolicy__*")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, **changes}))
    return records_of([run])


def test_a_world_model_for_each_replicate(copy):
    """Seeds 2 and 2.1 are policies of replicate 2."""
    run = copy("phase8_mlpwm_mlppolicy__*")
    summary = json.loads((run / "summary.json").read_text())
    for task in summary["tasks"].values():
        one = next(iter(task["seeds"].values()))
        task["seeds"] |= {"2": one, "2.1": one}
        seeds = list(task["seeds"])
    (run / "summary.json").write_text(json.dumps(summary))
    weights = {seed: f"sha256 of {seed}" for seed in seeds if "." not in seed}
    (found,) = records = edited(copy, world_model_weights=weights)
    assert weights_of(records) == [{seed: weights[seed.partition(".")[0]] for seed in seeds}]
    assert "2.1" in seeds
    assert not any("weights" in key for key in found.settings)
    assert found.pretrained == set(weights.values())
    with pytest.raises(UserError, match="a key is missing"):
        edited(copy, world_model_weights={"7": "another"})


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"world_model_weights": "ab"}, {"ab"}),
        ({"world_model_weights": None, "protocol": {"kind": "scratch"}}, {""}),
    ],
)
def test_one_world_model_or_one_for_each_policy(copy, changes, want):
    if "protocol" in changes:
        run = copy("phase8_mlpwm_mlppolicy__*")
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps({**summary, "protocol": "scratch"}))
        changes["protocol"]["model_iterations"] = 2
    (found,) = weights_of(edited(copy, **changes))
    assert set(found.values()) == want


def test_levels_have_the_names_of_their_configuration(copy):
    run = copy("phase8_mlpwm_mlppolicy__*")
    config = json.loads((run / "config.json").read_text())
    model, policy = config["world_model"], config["policy"]
    (found,) = edited(copy, world_model={**model, "level": "tied"}, policy={**policy, "level": ""})
    assert found.cell == Cell("tied", "mlp")
    assert not any(key.endswith(".level") for key in found.settings)


def test_a_study_declares_its_contrasts(copy, tmp_path):
    study = copy("two__study__*")
    file = study / "study.json"
    content = json.loads(file.read_text())
    assert declared_by([study, study.parent]) == {}
    for wrong in ({"policy": ["flow"]}, {"task": ["a", "b"]}, ["flow", "mlp"], {}):
        file.write_text(json.dumps({**content, "contrasts": {"mine": wrong}}))
        with pytest.raises(UserError, match="'mine' is not a factor with two levels"):
            declared_by([study])
    file.write_text(json.dumps({**content, "contrasts": {"mine": {"policy": ["mlp", "flow"]}}}))
    assert declared_by([study]) == {"mine": ("policy", "mlp", "flow")}
    (section,) = report([study], tmp_path / "report").sections
    assert {e.name for e in section.effects} == {"mine (policy: mlp - flow)"}
    assert {e.label for e in section.effects} == {"mine"}
    other = study.with_name("other")
    other.mkdir()
    content["contrasts"] = {"mine": {"policy": ["flow", "mlp"]}}
    (other / "study.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="declares another contrast 'mine'"):
        declared_by([study, other])


def test_a_study_asks_its_question(copy, tmp_path):
    study = copy("two__study__*")
    content = json.loads((study / "study.json").read_text())
    assert content.pop("description") == "which policy?"
    assert report([study], tmp_path / "report").description == "which policy?"
    (study / "study.json").write_text(json.dumps(content))  # as of an earlier version
    assert description_of([study, study.parent]) == ""


def test_the_same_folder_twice_counts_once(runs):
    (study,) = runs.glob("two__study__*")
    names = [r.name for r in records_of([study])]
    assert [r.name for r in records_of([runs / names[1], study, runs / names[0]])] == names[::-1]


def test_a_study_compared(runs):
    (study,) = runs.glob("two__study__*")
    found = compare(records_of([study]), name="two")
    (section,) = found.sections
    names = {e.name for e in section.effects}
    assert names == {"policy: flow - mlp"}
    assert not any("beyond the factors" in x for x in found.attention[section.title])


def test_a_pretraining_run_is_left_out(runs):
    (model,) = runs.glob("phase8_pretrain_mlpwm__*")
    (policies,) = runs.glob("phase8_mlpwm_mlppolicy__*")
    assert len(records_of([model, policies])) == 1
    with pytest.raises(UserError, match="these are runs that pretrain"):
        records_of([model])
    with pytest.raises(UserError, match="nothing to compare"):
        records_of([])


def test_runs_from_before_the_data_set_was_recorded(copy, small_store):
    run = copy("phase8_mlpwm_mlppolicy__*")
    config = json.loads((run / "config.json").read_text())
    assert config.pop("data_id") == load(small_store).id
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="does not name the data set"):
        records_of([run])
    # And they can be continued, though their configuration has not that key.
    new = {**config, "data_id": "sha256:0"}
    RunFolder.create_or_resume(run.parent, run.name, new, {}, identifying).close()
    with pytest.raises(UserError, match="another configuration: scale"):
        RunFolder.create_or_resume(run.parent, run.name, {**new, "scale": "x"}, {}, identifying)


def test_what_is_no_finished_run(copy, tmp_path):
    run = copy("phase8_mlpwm_mlppolicy__*")
    with pytest.raises(UserError, match="absent: there is no such folder"):
        records_of([run, tmp_path / "absent"])
    with pytest.raises(UserError, match="there is no run here"):
        records_of([tmp_path])
    text = (run / "summary.json").read_text()
    (run / "summary.json").write_text(text.replace('"scale": "laptop",', ""))
    with pytest.raises(UserError, match=r"summary\.json: scale: missing"):
        records_of([run])
    (run / "summary.json").write_text(text[:99])
    with pytest.raises(UserError, match="not valid JSON"):
        records_of([run])
    (run / "summary.json").unlink()
    with pytest.raises(UserError, match=r"(?s)the run is not complete.*continues it"):
        records_of([run])


def test_a_study_that_has_not_ended(copy):
    study = copy("two__study__*")
    one, other = (copy(f"phase8_mlpwm_{name}policy__*") for name in ("flow", "mlp"))
    (study / "study.json").unlink()
    with pytest.raises(UserError, match=r"(?s)study__.*not complete; missing: study\.json"):
        records_of([study])
    (one / "summary.json").unlink()
    with pytest.raises(UserError, match=f"not complete; missing: {one.name}"):
        records_of([study])
    shutil.rmtree(other)
    with pytest.raises(UserError) as error:
        records_of([study])
    said = str(error.value)
    assert "not complete; missing: " in said
    assert one.name in said
    assert other.name in said
    assert "repeat the same fmbpo run" in said


def test_damaged_configuration_and_study(copy):
    study, run = copy("two__study__*"), copy("phase8_mlpwm_mlppolicy__*")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "evaluation": {}}))
    with pytest.raises(UserError, match=r"config\.json: a key is missing .*final_episodes"):
        records_of([study])
    (study / "study.json").write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        records_of([study])
    (study / "study.json").write_text('{"cells": []}')
    with pytest.raises(UserError, match="names no cells"):
        records_of([study])


@pytest.mark.parametrize(
    ("protocol", "want"),
    [
        ({"kind": "frozen", "world_model": "w", "checkpoint": "models/a48M"}, "a48M"),
        ({"kind": "frozen", "world_model": "", "checkpoint": "r/run__1/checkpoints/best"},
         "run__1"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_its_own_names_itself(copy, protocol, want):
    run = copy("phase8_mlpwm_mlppolicy__*")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "protocol": protocol}))
    (record,) = records_of([run])
    assert record.basis.budget == f"6 updates x 4 x 4; world model: {want}"


def test_a_learning_world_model_says_so(copy):
    run = copy("phase8_mlpwm_mlppolicy__*")
    config = json.loads((run / "config.json").read_text())
    config["protocol"] = {"kind": "scratch", "model_iterations": 2}
    (run / "config.json").write_text(json.dumps(config))
    (record,) = records_of([run])
    assert record.basis.budget == (
        "6 updates x 4 x 4, 2 of the world model before each; world model: random initialisation"
    )
