"""``export-checkpoint``: the way back to TD-MPC2's file, for what has one."""

import pytest
import torch

from fmbpo.cli import main
from fmbpo.interop.tdmpc2 import read_world_model
from fmbpo.runs.checkpoint import load_checkpoint, save_checkpoint

TINY = "tests/golden/pwm/tiny_checkpoint.pt"


@pytest.fixture
def imported(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["import-checkpoint", str(repository / TINY)]) == 0
    capsys.readouterr()
    return tmp_path / "checkpoints" / "tiny_checkpoint"


def export(*words):
    return main(["export-checkpoint", *map(str, words), "--format", "tdmpc2"])


def test_back_and_forth_every_number_is_the_same(imported, repository, tmp_path):
    assert export(imported, "--out", tmp_path / "new" / "back.pt") == 0
    theirs, sizes = read_world_model(repository / TINY)
    again, same_sizes = read_world_model(tmp_path / "new" / "back.pt")
    assert sizes == same_sizes
    assert theirs.keys() == again.keys()
    assert all(torch.equal(theirs[name], again[name]) for name in theirs)


def test_a_file_that_is_there_stays(imported, tmp_path, capsys):
    out = tmp_path / "mine.pt"
    out.write_bytes(b"mine")
    assert export(imported, "--out", out) == 2
    assert "there is already a file here" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {**w, "extra.weight": torch.ones(2)}, "TD-MPC2 has no such"),
        (lambda w: {k: v for k, v in w.items() if "reward" not in k}, "TD-MPC2 has no such"),
        (lambda w: {k: v for k, v in w.items() if k != "encoder.0.norm.bias"}, "norm.bias"),
        (lambda w: {**w, "task_embedding.weight": torch.ones(7, 8)}, "MT30 has 30"),
    ],
)
def test_a_model_of_another_form_is_refused_and_leaves_nothing(
    change, words, imported, tmp_path, capsys
):
    checkpoint = load_checkpoint(imported, with_state=False)
    save_checkpoint(
        tmp_path / "other",
        manifest=checkpoint.manifest, weights=change(checkpoint.weights), state=None,
    )  # fmt: skip
    before = sorted(tmp_path.iterdir())
    assert export(tmp_path / "other", "--out", tmp_path / "out.pt") == 2
    said = capsys.readouterr().err
    assert words in said
    assert "TD-MPC2 has no such" in said
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_no_world_model(imported, tmp_path, capsys):
    checkpoint = load_checkpoint(imported, with_state=False)
    save_checkpoint(
        tmp_path / "policies",
        manifest={**checkpoint.manifest, "kind": "policies"},
        weights=checkpoint.weights, state=None,
    )  # fmt: skip
    assert export(tmp_path / "policies", "--out", tmp_path / "out.pt") == 2
    assert "of kind 'policies'" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").touch()
    assert export(tmp_path / "run", "--out", tmp_path / "out.pt") == 2
    assert "run: this run has no pretrained world model" in capsys.readouterr().err
    assert export(tmp_path / "nothing", "--out", tmp_path / "out.pt") == 2
    assert "nothing" in capsys.readouterr().err
