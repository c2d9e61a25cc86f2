"""A study through the command line on small real data: its runs, its table, its picture."""

import json
import os
import re
import signal
from pathlib import Path

import attrs
import pytest

from fmbpo.base.metrics import read_metrics
from fmbpo.cli import main
from fmbpo.reporting import run_pictures
from fmbpo.running.study import twins
from fmbpo.runs.summary import SeedResult, TaskResult

WARNED = "the decoded reward explains nothing"


@pytest.fixture
def study(repository, small_store, tiny_policy, tmp_path, monkeypatch, capsys):
    """``study(*overrides)``: status, stdout and stderr of the demonstration."""
    monkeypatch.chdir(tmp_path)

    def study(*overrides, name="demo_reward_loss_finetune", command="run", without="-"):
        file = name if isinstance(name, Path) else repository / "experiments" / f"{name}.toml"
        arguments = [command, str(file)]
        arguments += ["--scale", "laptop", "--data", str(small_store)]
        arguments += ["--runs", "runs", "--json"] if command == "run" else []
        for override in (*tiny_policy, *overrides):
            arguments += ["-o", override] if not override.startswith(without) else []
        capsys.readouterr()
        status = main(arguments)
        found = capsys.readouterr()
        return status, found.out, found.err

    return study


@pytest.mark.usefixtures("real_pictures")
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
    # Baselines are measured once for both.
    assert len(re.findall(r"behaviour cloning: \S+, 1 of", said)) == 1
    baselines = [cell["tasks"]["cartpole-balance"]["cloned_returns"] for cell in cells.values()]
    assert baselines[0] == baselines[1]
    # One pretrained model for both.
    assert len(list((tmp_path / "runs").glob("phase8_pretrain_mlpwm__*"))) == 1

    # The right loss keeps what the wrong one destroys, and the run says so while it happens.
    r2 = {name: cell["wm_validation"]["after_reward_r2"] for name, cell in cells.items()}
    assert r2["pwm"] < r2["corrected"]
    # Findings of a cell are "task/seed"; those of the pretrained model, only "task".
    health = cells["pwm"]["health"]
    found = [f for f in health if f["gate"] == "reward_unexplained" and "/" in f["where"]]
    lines = read_metrics(runs["pwm"] / "metrics.jsonl")
    warned = [line["payload"]["text"] for line in lines if line.get("event") == "WARNING"]
    assert found
    for finding in found:
        assert 0 < finding["since"] <= 24
        place = f"{finding['where']} (R² "
        since = f"since iteration {finding['since']})"
        assert any(WARNED in t and place in t and since in t for t in warned)
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
    (row,) = [line for line in out.splitlines() if " policies " in line and "one update" in line]
    assert row.startswith(" corrected, pwm ")
    assert "can run" in out
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_one_cell_stops_the_study_before_training(study, tmp_path):
    status, _, said = study("policy_learning.horizon=44")
    assert status == 2
    assert "lower policy_learning.horizon" in said
    assert not (tmp_path / "runs").exists()


def written(tmp_path, repository, factors, **cells):
    """A study file: each cell an experiment of the repository, and overrides."""
    file = tmp_path / "own_study.toml"
    lines = ['kind = "study"', f"factors = {json.dumps(factors)}"]
    for name, (experiment, *overrides) in cells.items():
        path = repository / "experiments" / f"{experiment}.toml"
        lines += [f"[cells.{name}]", f'experiment = "{path}"', f"overrides = {overrides}"]
    file.write_text("\n".join(lines))
    return file


@pytest.mark.usefixtures("real_pictures")
def test_world_models_side_by_side(repository, small_store, tmp_path, tiny, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kinds = {kind: (f"phase8_pretrain_{kind}wm",) for kind in ("mlp", "flow")}
    file = written(tmp_path, repository, ["world_model"], **kinds)
    arguments = ["run", str(file), "--scale", "laptop", "--data", str(small_store), "--json"]
    for override in tiny:
        arguments += ["-o", override]
    assert main(arguments) == 0
    out = capsys.readouterr()
    assert list(json.loads(out.out)) == ["mlp", "flow"]
    assert "held-out score (lower is better)" in out.err
    (picture,) = (tmp_path / "runs").glob("own_study__*/comparison.png")
    assert picture.stat().st_size > 10_000


def test_cells_with_different_tasks(study, repository, tmp_path):
    quadrant = "phase8_mlpwm_mlppolicy"
    file = written(
        tmp_path, repository, ["grid.tasks"],
        one=(quadrant, 'grid.tasks=["cartpole-balance"]'),
        both=(quadrant, 'grid.tasks=["cartpole-balance","reacher-easy"]'),
    )  # fmt: skip
    status, _, said = study(name=file, without="grid.tasks")
    assert status == 0, said
    assert "return, reacher-easy" in said
    assert "mean of" not in said
    # What they share came out the same, which is no sign of two policies.
    assert "identical returns" in said


def test_the_picture_of_many_tasks_has_their_returns(study, repository, tmp_path, monkeypatch):
    """With few tasks, a row for each quantity; the picture's width would have no end."""
    drawn, tasks = [], ["cartpole-balance", "reacher-easy"]

    def draw(path, heading, panels, **layout):
        drawn.append((heading.more, [panel.title for panel in panels], layout))
        path.write_bytes(b"picture")

    monkeypatch.setattr(run_pictures, "_policies", lambda path, *_: path.write_bytes(b""))
    monkeypatch.setattr(run_pictures.curves, "draw", draw)
    cells = {name: (f"phase8_{name}", 'grid.tasks=["cartpole-balance","reacher-easy"]')
             for name in ("mlpwm_mlppolicy", "mlpwm_flowpolicy")}  # fmt: skip
    file = written(tmp_path, repository, ["policy"], **cells)
    status, _, said = study(name=file, without="grid.tasks")
    assert status == 0, said
    (folder,) = Path("runs").glob("*__study__*")
    (folder / "comparison.png").unlink()
    monkeypatch.setattr(run_pictures, "_MANY", 1)
    run_pictures.draw_missing(folder, print)
    few, many = [one for one in drawn if "differs" in one[0]]
    assert few[1:] == ([f"{task}: return" for task in tasks], {"columns": 2})
    assert many[0].startswith("returns · differs: ")
    assert many[1:] == (tasks, {"columns": 6})


def test_asked_to_stop_between_two_cells(study, monkeypatch, tmp_path):
    draw = run_pictures._policies

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        draw(*arguments)

    monkeypatch.setattr(run_pictures, "_policies", signalled)
    status, _, said = study()
    assert status == 75
    assert "interrupted: before cell pwm" in said
    assert len(list((tmp_path / "runs").glob("demo_finetuned__*/summary.json"))) == 1
    monkeypatch.setattr(run_pictures, "_policies", draw)
    status, _, said = study()
    assert status == 0
    assert said.count("nothing to do") == 1
    # A missing picture comes with the next run; one that cannot be drawn costs a warning.
    pictures = sorted((tmp_path / "runs").glob("*/*.png"))
    assert [path.name for path in pictures].count("comparison.png") == 1
    for path in pictures:
        path.unlink()

    def broken(*_, **__):
        raise ValueError("no ink")

    with monkeypatch.context() as patch:
        patch.setattr(run_pictures.curves, "study_panel", broken)
        status, _, said = study()
    assert status == 0
    assert said.count("comparison.png (no ink); the results are complete") == 1
    drawn = [path for path in pictures if path.name != "comparison.png"]
    assert sorted((tmp_path / "runs").glob("*/*.png")) == drawn
    status, _, said = study()
    assert (status, "cannot draw" in said) == (0, False)
    assert sorted((tmp_path / "runs").glob("*/*.png")) == pictures


def test_policies_of_two_cells_that_are_one():
    def summary(*returns):
        tasks = {
            "a": TaskResult({"1": SeedResult(returns), "2": SeedResult([5.0, 6.0 + returns[0]])})
        }
        return Cell(tasks)

    Cell = attrs.make_class("Cell", ["tasks"])
    found = twins({"x": summary(1.0, 2.0), "y": summary(3.0, 2.0), "z": summary(1.0, 2.0)})
    assert [(f.where, f.detail) for f in found] == [
        ("z a/1", "those of x a/1"), ("z a/2", "those of x a/2"),
    ]  # fmt: skip
