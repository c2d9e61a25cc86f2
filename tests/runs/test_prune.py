"""What is pruned of complete runs, and that nothing else is."""

import shutil

import pytest
import torch

from fmbpo.base.lock import Taken
from fmbpo.cli import main
from fmbpo.errors import UserError
from fmbpo.runs.checkpoint import checkpoint_file, load_checkpoint, save_checkpoint
from fmbpo.runs.folder import RunFolder
from fmbpo.runs.prune import find_waste, remove, waste_of
from fmbpo.runs.summary import Part, SeedResult, Summary, TaskResult, WorldModelPart, versions

PART = Part("mlp", "0.1.0", {"encoder": 1}, 1)
LEFT = [".summary.host-1.aside.json", "checkpoints/.best.host-1.aside.safetensors"]
MODEL = WorldModelPart("mlp", "0.1.0", {"encoder": 1}, 1)


def make(root, name, policies=False, complete=True):
    """A run with every kind of leftover in it."""
    run = RunFolder.create_or_resume(root, f"{name}__mlp__1__00", {"name": name}, {})
    for checkpoint in ("policies",) if policies else ("best", "pretrain"):
        state = None if checkpoint == "best" else {"adam": torch.ones(100)}
        save_checkpoint(
            run.checkpoints / checkpoint,
            manifest={"kind": "test", "step": 1},
            weights={"w": torch.ones(50)},
            state=state,
        )
    for left in LEFT:
        (run.path / left).write_text("{")
    if complete:
        tasks = {"a": TaskResult({"1": SeedResult([1.0])}, random_return_mean=0.0)}
        summary = Summary(
            "e", "laptop", "frozen" if policies else None, "corrected", MODEL,
            PART if policies else None, tasks if policies else {}, {}, 1.0, 1.0, versions(), [],
            None,
        )  # fmt: skip
        run.write_summary(summary.to_json())
    run.close()
    return run.path


def names(run, waste):
    return {str(one.path.relative_to(run)) for one in waste}


def test_a_complete_pretraining_keeps_its_best(tmp_path):
    run = make(tmp_path, "pre")
    waste = waste_of(run)
    assert names(run, waste) == {*LEFT, "checkpoints/pretrain.safetensors"}
    sizes = {one.path.name: one.size for one in waste}
    size = (run / "checkpoints" / "pretrain.safetensors").stat().st_size
    assert (sizes["pretrain.safetensors"], sizes[LEFT[0]]) == (size, 1)
    assert remove(run, waste) == waste
    assert waste_of(run) == []
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["best.safetensors"]
    load_checkpoint(run / "checkpoints" / "best")
    assert {p.name for p in run.iterdir()} == {
        "checkpoints", "config.json", "origins.json", "run.lock", "summary.json",
    }  # fmt: skip


def test_policies_keep_their_training_state(tmp_path):
    run = make(tmp_path, "policies", policies=True)
    assert names(run, waste_of(run)) == set(LEFT)
    remove(run, waste_of(run))
    assert load_checkpoint(run / "checkpoints" / "policies").state["adam"].sum() == 100


def test_runs_that_are_not_complete_are_left_alone(tmp_path):
    for name, error in (("failed", UserError("x")), ("stopped", KeyboardInterrupt()), ("stale", 0)):
        path = make(tmp_path, name, complete=False)
        run = RunFolder.create_or_resume(tmp_path, path.name, {"name": name}, {})
        if error:
            with pytest.raises(type(error)), run, run.at_work("x", {}):
                raise error
        run.close()
    make(tmp_path, "unreadable").joinpath("summary.json").write_text("{")
    held = make(tmp_path, "running")
    with RunFolder.create_or_resume(tmp_path, held.name, {"name": "running"}, {}):
        before = sorted(tmp_path.rglob("*"))
        assert list(find_waste(tmp_path)) == []
        assert main(["runs", "prune", "--runs", str(tmp_path), "--yes"]) == 0
        assert sorted(tmp_path.rglob("*")) == before


def test_a_training_state_stays_where_the_best_is_damaged(tmp_path):
    run = make(tmp_path, "pre")
    best = checkpoint_file(run / "checkpoints" / "best")
    best.write_bytes(best.read_bytes()[:-1] + b"!")
    assert waste_of(run) == []
    best.unlink()
    assert waste_of(run) == []


def test_a_run_that_is_taken_up_meanwhile(tmp_path, capsys):
    run = make(tmp_path, "pre")
    waste = waste_of(run)
    holder = RunFolder.create_or_resume(tmp_path, run.name, {"name": "pre"}, {})
    with holder, pytest.raises(Taken, match="in use by"):
        remove(run, waste)
    (run / "summary.json").unlink()
    with pytest.raises(UserError, match="no such file"):
        remove(run, waste)
    assert (run / "checkpoints" / "pretrain.safetensors").is_file()
    shutil.rmtree(run)
    with pytest.raises(UserError, match="cannot be written"):
        remove(run, waste)


def test_the_command_lists_and_removes_only_when_told(tmp_path, capsys):
    run = make(tmp_path, "pre")
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        assert main(["runs", "prune", "--runs", str(tmp_path)]) == 0
        listed = capsys.readouterr().out
        assert str(run / "checkpoints" / "pretrain") in listed
        assert "would be removed; --yes removes them" in listed
        assert sorted(tmp_path.rglob("*")) == before
    assert main(["runs", "prune", "--runs", str(tmp_path), "--yes"]) == 0
    done = capsys.readouterr().out
    assert done.splitlines()[:-1] == listed.splitlines()[:-1]
    assert main(["runs", "prune", "--runs", str(tmp_path), "--yes"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"
    assert main(["runs", "prune", "--runs", str(tmp_path / "no")]) == 2
    assert "no: cannot be listed (No such file" in capsys.readouterr().err
