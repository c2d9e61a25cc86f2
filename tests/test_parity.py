"""This engine against numbers of PWM's and TD-MPC2's own code, and that the check bites."""

import json
import statistics
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

from fmbpo.nn import blocks, two_hot
from fmbpo.pwm.policy import ReturnScale
from fmbpo.testing import parity
from fmbpo.testing.pwm_golden import Replay
from fmbpo.testing.pwm_replay import replay

GOLDEN = Path(__file__).parent / "golden" / "pwm"


@pytest.fixture(scope="module")
def comparisons():
    return list(parity.compare(GOLDEN))


def failed(results):
    return {result.name for result in results if not result.passed}


def test_every_recorded_array_in_both_types(comparisons):
    assert failed(comparisons) == set()
    for dtype in ("float32", "float64"):
        names = {result.name for result in comparisons if result.dtype == dtype}
        recorded = set()
        for file in GOLDEN.glob("*.npz"):
            with np.load(file) as arrays:
                recorded |= {f"{file.stem}/{name}" for name in arrays.files}
        given = {n for n in recorded if n.split("/")[0] in parity.INPUTS} | parity.GIVEN
        assert names == recorded - given
        assert len(names) > 600


def test_the_typical_array_is_a_hundred_times_closer(comparisons):
    assert statistics.median(result.error for result in comparisons) < parity.TOLERANCE / 100


def test_the_command(comparisons, monkeypatch, capsys, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(parity, "compare", lambda _: comparisons)
        assert parity.main([str(GOLDEN)]) == 0
    out = capsys.readouterr().out
    assert "float64" in out
    assert "update_finetune/after/wm/_encoder.0.weight" in out
    assert "0 failed" in out.splitlines()[-1]
    assert parity.main([str(tmp_path)]) == 2
    assert "not a folder of golden numbers" in capsys.readouterr().err


def other_settings(table, **values):
    """Some settings of the replay's ``conventions`` or ``learning`` are different."""

    def change(patch):
        original = Replay.__init__

        def replaced(self, *arguments):
            original(self, *arguments)
            setattr(self, table, attrs.evolve(getattr(self, table), **values))

        patch.setattr(Replay, "__init__", replaced)

    return change


def true_scale(patch):
    original = two_hot.decode_symlog
    patch.setattr(two_hot, "decode_symlog", lambda *x, **more: two_hot.symexp(original(*x, **more)))


def looser_embedding(patch):
    patch.setattr(blocks.TaskEmbedding, "project", lambda self, rows: rows.detach())


def unbiased_variance(patch):
    original = torch.Tensor.var
    patch.setattr(torch.Tensor, "var", lambda self, correction=0, **k: original(self, **k))


def larger_epsilon(patch):
    divisor = lambda self: (self.variance + 1e-3).sqrt()  # noqa: E731
    patch.setattr(ReturnScale, "divisor", divisor)


@pytest.mark.parametrize(
    ("change", "caught"),
    [
        (other_settings("conventions", bootstrap="horizon"), "actor_loss_det/loss_raw"),
        (other_settings("conventions", critic_targets="td_lambda"), "actor_loss_det/target_values"),
        (other_settings("learning", discount=0.98), "actor_loss_sto/loss"),
        (other_settings("conventions", imagined_reward="real"), "actor_loss_det/rew_buf"),
        (true_scale, "wm_outputs/almost_two_hot_inv"),
        (looser_embedding, "wm_outputs/task_emb_weight_after"),
        (unbiased_variance, "actor_loss_det/ret_rms"),
        (larger_epsilon, "actor_loss_det/loss"),
    ],
)
def test_a_mistake_is_caught(change, caught, monkeypatch, comparisons):
    """In float32; what comes behind the array that shows it is not computed."""
    (sound,) = (one for one in comparisons if (one.name, one.dtype) == (caught, "float32"))
    assert sound.passed
    config = json.loads((GOLDEN / "config.json").read_text())
    file, _, name = caught.partition("/")
    with np.load(GOLDEN / f"{file}.npz") as arrays:
        recorded = arrays[name]
    with monkeypatch.context() as patch:
        change(patch)
        found = next(x for name, x in replay(GOLDEN, config, torch.float32) if name == caught)
    error = np.abs(found.detach().numpy() - recorded).max() / np.abs(recorded).max()
    assert error > sound.bound


def test_a_changed_record_is_caught(tmp_path, capsys):
    for file in GOLDEN.glob("*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with np.load(GOLDEN / "wm_outputs.npz") as file:
        arrays = dict(file)
    arrays["next0"] = arrays["next0"] * 1.0001
    arrays["extra"] = arrays["next0"]
    np.savez(tmp_path / "wm_outputs.npz", **arrays)
    assert parity.main([str(tmp_path)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert {line.split()[-1] for line in lines} == {"wm_outputs/next0", "wm_outputs/extra"}
