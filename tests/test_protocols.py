"""The other protocols and imported world models, through the command line on small real data."""

import json
from pathlib import Path

import pytest

from fmbpo.base.metrics import read_metrics
from fmbpo.cli import main
from fmbpo.runs.checkpoint import load_checkpoint, save_checkpoint

TINY_FILE = Path(__file__).parent / "golden" / "pwm" / "tiny_checkpoint.pt"
WIDTHS = ["world_model.encoder_units=[48,48,48]", "world_model.units=[48,48]",
          "world_model.latent_dim=32", "world_model.task_dim=16"]  # fmt: skip


@pytest.fixture
def run(repository, small_store, tiny_policy, tmp_path, monkeypatch, capsys):
    """``run(experiment, *overrides)``: status, summary (None if it failed), messages."""
    monkeypatch.chdir(tmp_path)

    def run(name, *overrides, command="run"):
        base = [f"{repository}/experiments/base/{part}.toml" for part in ("policies", *name[:2])]
        file = tmp_path / f"{name[0]}_{name[1]}.toml"
        file.write_text(f'extends = {base}\nkind = "policy"\n[protocol]\n{name[2]}\n')
        arguments = [command, str(file), "--scale", "laptop", "--data", str(small_store)]
        arguments += ["--runs", "runs", "--json"] if command == "run" else []
        for override in (*tiny_policy, *overrides):
            arguments += ["-o", override]
        capsys.readouterr()
        status = main(arguments)
        out = capsys.readouterr()
        summary = json.loads(out.out) if command == "run" and status == 0 else None
        return status, summary, out.err + (out.out if command == "check" else "")

    return run


SCRATCH = 'kind = "scratch"'
FINETUNED = 'kind = "finetuned"\nworld_model = "toy_pretrain"'
FROZEN = 'kind = "frozen"\nworld_model = "toy_pretrain"'


MLP, FLOW = ("wm_mlp", "policy_mlp"), ("wm_flow", "policy_flow")


@pytest.mark.parametrize(
    ("quadrant", "protocol", "bundle"),
    [
        # Any two of the three choices meet.
        (MLP, SCRATCH, "corrected"),
        (MLP, FINETUNED, "pwm"),
        (FLOW, SCRATCH, "pwm"),
        (FLOW, FINETUNED, "corrected"),
        pytest.param(MLP, SCRATCH, "pwm", marks=pytest.mark.endurance),
        pytest.param(MLP, FINETUNED, "corrected", marks=pytest.mark.endurance),
        pytest.param(FLOW, SCRATCH, "corrected", marks=pytest.mark.endurance),
        pytest.param(FLOW, FINETUNED, "pwm", marks=pytest.mark.endurance),
    ],
)
def test_world_models_that_learn_beside_policies(quadrant, protocol, bundle, run, tmp_path):
    cell = (*quadrant, protocol)
    status, summary, said = run(cell, f"conventions.bundle={bundle}")
    assert status == 0, said
    kind = "scratch" if protocol == SCRATCH else "finetuned"
    assert (summary["protocol"], summary["conventions"]) == (kind, bundle)
    folder = next((tmp_path / "runs").glob("wm_*"))
    pretrained = list((tmp_path / "runs").glob("*pretrain*"))
    assert len(pretrained) == (kind == "finetuned")
    weights = load_checkpoint(folder / "checkpoints" / "policies", with_state=False).weights
    dynamics = weights["world_model.dynamics.0.linear.weight"]
    assert len(dynamics) == 4  # a model for each of two tasks and two seeds
    assert not (dynamics[0] == dynamics[1]).all()
    if kind == "finetuned":
        best = load_checkpoint(pretrained[0] / "checkpoints" / "best", with_state=False).weights
        assert not (dynamics == best["dynamics.0.linear.weight"]).all()
        embedding = weights["world_model.task_embedding.weight"]
        assert (embedding == best["task_embedding.weight"]).all() == (bundle == "pwm")
    lines = list(read_metrics(folder / "metrics.jsonl"))
    cells = {(x.get("task"), x.get("seed")) for x in lines if "held_out/reward_r2" in x}
    assert ("cartpole-balance", 1) in cells
    assert any("model_loss" in line for line in lines)
    measures = summary["wm_validation"]
    assert {"before_score", "after_score", "after_reward_r2"} <= measures.keys()
    assert measures["before_score"] != measures["after_score"]
    # The other seed's model is the other replicate. (PWM's loss makes all decoded rewards equal.)
    seeds = summary["tasks"]["cartpole-balance"]["seeds"].values()
    assert all(seed["reality"]["disagreement"] > 0 or bundle == "pwm" for seed in seeds)
    assert ("score" in summary["wm_validation"]) == (kind == "finetuned")
    # The same again is found.
    assert "nothing to do" in run(cell, f"conventions.bundle={bundle}")[2]


@pytest.mark.parametrize("kind", ["wm_mlp", "wm_flow"])
def test_an_imported_world_model(kind, run, tmp_path):
    assert main(["import-checkpoint", str(TINY_FILE)]) == 0
    checkpoint = "protocol.checkpoint=checkpoints/tiny_checkpoint"
    status, summary, said = run((kind, "policy_mlp", FROZEN), *WIDTHS, checkpoint)
    assert status == 0, said
    assert summary["world_model"]["checkpoint"] == "checkpoints/tiny_checkpoint"
    assert summary["seconds"]["pretraining"] == 0
    checks = [s["reality"] for t in summary["tasks"].values() for s in t["seeds"].values()]
    assert all(set(one) == {"episode", "horizon"} for one in checks)  # one model, no disagreement
    assert "score" in summary["wm_validation"]
    assert [path.name.split("__")[0] for path in (tmp_path / "runs").iterdir()] == [
        f"{kind}_policy_mlp"
    ]


def test_checkpoints_that_do_not_fit(run, tmp_path):
    assert main(["import-checkpoint", str(TINY_FILE)]) == 0
    checkpoint = "protocol.checkpoint=checkpoints/tiny_checkpoint"
    quadrant = ("wm_flow", "policy_mlp", FROZEN)
    status, _, said = run(quadrant, checkpoint)
    assert status == 2
    assert "does not fit world model 'flow'" in said
    assert "set the checkpoint's sizes in [world_model]" in said
    status, _, said = run(quadrant, *WIDTHS, "protocol.checkpoint=nothing/here")
    assert status == 2
    assert "there is no checkpoint here" in said
    assert not (tmp_path / "runs").exists()


def test_another_world_model_under_the_same_name(run, tmp_path):
    """A finished run is not the answer for weights that it was not made with."""
    cell, checkpoint = ("wm_mlp", "policy_mlp", FROZEN), tmp_path / "checkpoints" / "one"
    assert main(["import-checkpoint", str(TINY_FILE), "--out", str(checkpoint)]) == 0
    assert run(cell, *WIDTHS, f"protocol.checkpoint={checkpoint}")[0] == 0
    loaded = load_checkpoint(checkpoint)
    weights = {name: value + 1e-3 for name, value in loaded.weights.items()}
    save_checkpoint(checkpoint, manifest=loaded.manifest, weights=weights, state=None)
    status, _, said = run(cell, *WIDTHS, f"protocol.checkpoint={checkpoint}")
    assert status == 2
    assert "was made with a different world model" in said


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["policy_learning.horizon=44"], "lower policy_learning.horizon"),
        (["world_model.reward_loss=logit_mse"], "conventions.model_loss"),
        (["protocol.checkpoint=nowhere"], "there is no checkpoint here"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_mistakes_are_found_before_training(overrides, words, command, run, tmp_path):
    status, _, said = run(("wm_flow", "policy_mlp", FINETUNED), *overrides, command=command)
    assert status == 2
    assert words in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("protocol", [SCRATCH, FINETUNED])
def test_check_tries_them_too(protocol, run):
    status, _, said = run(("wm_mlp", "policy_mlp", protocol), command="check")
    assert status == 0, said
    assert "can run" in said


@pytest.mark.parametrize("kind", ["wm_mlp", pytest.param("wm_flow", marks=pytest.mark.endurance)])
def test_a_world_model_may_take_several_steps_for_each_of_the_policys(kind, run, tmp_path):
    cell, seen = (kind, "policy_mlp", SCRATCH), {}
    for steps in (1, 3):
        status, summary, said = run(cell, f"protocol.model_iterations={steps}")
        assert status == 0, said
        seen[steps] = summary
    first, more = (seen[steps]["wm_validation"]["before_score"] for steps in (1, 3))
    assert first == more
    assert seen[1]["wm_validation"]["after_score"] != seen[3]["wm_validation"]["after_score"]
    costs = [seen[steps]["flops"]["policy_learning"] for steps in (1, 3)]
    assert 1.2 * costs[0] < costs[1] < 3 * costs[0]
