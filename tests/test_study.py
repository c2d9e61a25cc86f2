"""A study through the command line on small real data: its runs, its table, its picture."""

import json

import pytest

from fmbpo.cli import main
from fmbpo.runs.sinks import read_metrics

WARNED = "the decoded reward explains nothing"


@pytest.fixture
def study(repository, small_store, tiny_policy, tmp_path, monkeypatch, capsys):
    """``study(*overrides)``: status, what it printed, what it said, for the demonstration."""
    monkeypatch.chdir(tmp_path)

    def study(*overrides, name="demo_reward_loss_finetune", command="run"):
        arguments = [command, str(repository / "experiments" / f"{name}.toml")]
        arguments += ["--scale", "laptop", "--data", str(small_store)]
        arguments += ["--runs", "runs", "--json"] if command == "run" else []
        for override in (*tiny_policy, *overrides):
            arguments += ["-o", override]
        capsys.readouterr()
        status = main(arguments)
        found = capsys.readouterr()
        return status, found.out, found.err

    return study


def test_the_demonstration_in_miniature(study, tmp_path):
    status, out, said = study("policy_learning.iterations=24", "protocol.model_learning_rate=3e-3")
    assert status == 0, said
    cells = json.loads(out)
    assert list(cells) == ["corrected", "pwm"]
    assert cells["corrected"]["conventions"] == "corrected"
    assert cells["pwm"]["conventions"]["model_loss"] == "logit_mse"
    assert 'differs: conventions.model_loss: "two_hot" | "logit_mse"' in said
    assert "return, cartpole-balance" in said
    assert "held-out reward R²" in said

    (folder,) = (tmp_path / "runs").glob("demo_reward_loss_finetune__study__*")
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((folder / "study.json").read_text())
    assert record["factors"] == ["conventions.model_loss"]
    runs = {name: tmp_path / "runs" / run for name, run in record["cells"].items()}
    assert len(set(runs.values())) == 2
    for name, run in runs.items():
        assert json.loads((run / "summary.json").read_text()) == cells[name]
    # One pretrained model for both.
    assert len(list((tmp_path / "runs").glob("phase8_pretrain_mlpwm__*"))) == 1

    # The right loss keeps what the wrong one destroys, and the run says so while it happens.
    r2 = {name: cell["wm_validation"]["after_reward_r2"] for name, cell in cells.items()}
    assert r2["pwm"] < r2["corrected"]
    found = [f for f in cells["pwm"]["health"] if f["gate"] == "reward_unexplained" and f["where"]]
    lines = read_metrics(runs["pwm"] / "metrics.jsonl")
    warned = [line["payload"]["text"] for line in lines if line.get("event") == "WARNING"]
    assert found
    for finding in found:
        assert 0 < finding["since"] <= 24
        end = f"since iteration {finding['since']}"
        assert any(WARNED in text and text.endswith(end) for text in warned)
    assert WARNED in said

    # The same again finds everything done.
    status, again, said = study(
        "policy_learning.iterations=24", "protocol.model_learning_rate=3e-3"
    )
    assert (status, json.loads(again)) == (0, cells)
    assert said.count("nothing to do") == 2


def test_check_tries_every_cell(study, tmp_path):
    status, out, said = study(name="demo_reward_loss_scratch", command="check")
    assert status == 0, said
    assert out.count("two steps in each simulator") == 2
    assert "can run" in out
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_one_cell_stops_the_study_before_training(study, tmp_path):
    status, _, said = study("policy_learning.horizon=44")
    assert status == 2
    assert "lower policy_learning.horizon" in said
    assert not (tmp_path / "runs").exists()
