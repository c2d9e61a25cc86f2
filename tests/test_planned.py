"""Planning at test time through the command line: added to a run, beside its own returns."""

import json

import pytest

from fmbpo.cli import main
from fmbpo.errors import UserError
from fmbpo.measure.evaluation import Evaluator
from fmbpo.training.policies import PolicyTraining

MPPI = ["evaluation.planner=mppi", "planning.episodes=2", "planning.samples=6",
        "planning.iterations=2", "planning.elites=3", "planning.policy_samples=2"]  # fmt: skip


@pytest.fixture
def run(repository, small_store, tiny_policy, tmp_path, monkeypatch, capsys):
    """``run(quadrant, *overrides)``: the summary and stderr."""
    monkeypatch.chdir(tmp_path)
    # Whole episodes would be half of the time of all tests.
    monkeypatch.setattr(PolicyTraining.planned_returns, "__defaults__", (20,))

    def run(quadrant, *overrides):
        file = repository / "experiments" / f"phase8_{quadrant}.toml"
        arguments = ["run", str(file), "--scale", "laptop", "--data", str(small_store), "--json"]
        for override in (*tiny_policy, *overrides):
            arguments += ["-o", override]
        capsys.readouterr()
        assert main(arguments) == 0
        out = capsys.readouterr()
        return json.loads(out.out), out.err

    return run


@pytest.mark.parametrize("quadrant", ["mlpwm_mlppolicy", "flowwm_flowpolicy"])
def test_planning_is_added_to_a_finished_run(quadrant, run, tmp_path):
    without, _ = run(quadrant)
    assert without["planning"] is None
    planned, said = run(quadrant, *MPPI)
    assert "complete except for the evaluation with the planner" in said
    assert "MPPI ± 95 %" in said
    assert "…" not in said  # no column is cut off
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert planned["planning"]["samples"] == 6
    differ = []
    for task, result in planned["tasks"].items():
        for seed, entry in result["seeds"].items():
            before = without["tasks"][task]["seeds"][seed]
            returns = entry.pop("planned_returns")
            assert entry == before  # the policy's own evaluation is what it was
            assert len(returns) == 2
            differ.append(returns != entry["returns"][:2])
    assert any(differ)
    again, said = run(quadrant, *MPPI)
    assert "nothing to do" in said
    assert again["planning"] == planned["planning"]
    other, said = run(quadrant, *MPPI, "planning.horizon=1")
    assert other["planning"]["horizon"] == 1
    # Whoever does not ask for it keeps what is there.
    assert run(quadrant)[0]["planning"] == other["planning"]


def test_pruned_runs_still_serve(run, tmp_path):
    """Planning is added, and another policy is trained in the same world model."""
    without, _ = run("mlpwm_mlppolicy")
    assert main(["runs", "prune", "--yes"]) == 0
    (pretraining,) = (tmp_path / "runs").glob("phase8_pretrain_mlpwm__*")
    assert [p.name for p in (pretraining / "checkpoints").iterdir()] == ["best.safetensors"]
    planned, said = run("mlpwm_mlppolicy", *MPPI)
    assert "complete except for the evaluation with the planner" in said
    assert "starts, 6 iterations" not in said
    assert planned["planning"]["samples"] == 6
    for task, result in without["tasks"].items():
        for seed, entry in result["seeds"].items():
            assert planned["tasks"][task]["seeds"][seed]["returns"] == entry["returns"]
    _, said = run("mlpwm_flowpolicy")
    assert "is complete; reusing it" in said


def test_a_plan_is_the_same_in_a_new_run(run, tmp_path, monkeypatch):
    first, _ = run("mlpwm_flowpolicy", *MPPI)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert run("mlpwm_flowpolicy", *MPPI)[0]["tasks"] == first["tasks"]


def test_a_plan_that_fails_loses_nothing(
    repository, small_store, tiny_policy, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    whole = Evaluator.run

    def fail(self, act, tasks, episodes, steps=None, progress=None):
        if progress is not None:
            raise UserError("the actions are not finite", where="evaluation in the simulator")
        return whole(self, act, tasks, episodes, steps)

    monkeypatch.setattr(Evaluator, "run", fail)
    command = ["run", str(repository / "experiments" / "phase8_mlpwm_mlppolicy.toml")]
    command += ["--scale", "laptop", "--data", str(small_store)]
    for override in (*tiny_policy, *MPPI):
        command += ["-o", override]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "planning in the world model" in said
    assert "the policies' own results are kept" in said
    (file,) = (tmp_path / "runs").glob("phase8_mlpwm_mlppolicy__*/summary.json")
    assert json.loads(file.read_text())["planning"] is None
    monkeypatch.setattr(Evaluator, "run", whole)
    monkeypatch.setattr(PolicyTraining.planned_returns, "__defaults__", (5,))
    assert main(command) == 0
    assert "complete except for the evaluation with the planner" in capsys.readouterr().err
    assert json.loads(file.read_text())["planning"]["samples"] == 6
    assert main(["check", *command[1:], "--runs", "elsewhere"]) == 0
    assert "two steps of planning" in capsys.readouterr().out
