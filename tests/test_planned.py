"""Planning at test time through the command line: added to a run, beside its own returns."""

import json

import pytest

from fmbpo.cli import main

MPPI = ["evaluation.planner=mppi", "planning.episodes=2", "planning.samples=6",
        "planning.iterations=2", "planning.elites=3", "planning.policy_samples=2"]  # fmt: skip


@pytest.fixture
def run(repository, small_store, tiny_policy, tmp_path, monkeypatch, capsys):
    """``run(quadrant, *overrides)``: the summary and what was said."""
    monkeypatch.chdir(tmp_path)
    # Whole episodes would be half of the time of all tests.
    monkeypatch.setattr("fmbpo.engine.policy_training.EPISODE_STEPS", 20)

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
    assert "complete but for the evaluation with the planner" in said
    assert "MPPI" in said
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert planned["planning"]["samples"] == 6
    for task, result in planned["tasks"].items():
        for seed, entry in result["seeds"].items():
            before = without["tasks"][task]["seeds"][seed]
            returns = entry.pop("planned_returns")
            assert entry == before  # the policy's own evaluation is what it was
            assert len(returns) == 2
            assert returns != entry["returns"][:2]
    again, said = run(quadrant, *MPPI)
    assert "nothing to do" in said
    assert again["planning"] == planned["planning"]
    other, said = run(quadrant, *MPPI, "planning.horizon=1")
    assert other["planning"]["horizon"] == 1
    # Whoever does not ask for it keeps what is there.
    assert run(quadrant)[0]["planning"] == other["planning"]


def test_a_plan_is_the_same_in_a_new_run(run, tmp_path, monkeypatch):
    first, _ = run("mlpwm_flowpolicy", *MPPI)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert run("mlpwm_flowpolicy", *MPPI)[0]["tasks"] == first["tasks"]
