"""Gradient diagnostics against Jacobians and gradients computed whole."""

import pytest
import torch
from pairs import PAIRS, one_cell, problem
from torch.func import jacrev
from torch.utils._pytree import tree_map

from fmbpo.pwm.diagnostics import PARTS, diagnose, signal_to_noise
from fmbpo.pwm.optim import gradient

each_pair = pytest.mark.parametrize(("world", "policy"), PAIRS)


def measured(world, policy):
    """The measures of two cells, and what they are measures of."""
    given = problem(world, policy, cells=2)
    return diagnose(*given, {}, real(given[2]), seed=0), given


def real(starts):
    """The masks of the cells' tasks."""
    return starts.mask_BA[:, 0]


@each_pair
def test_every_measure_is_a_finite_number_a_cell(world, policy):
    found, given = measured(world, policy)
    names = {"esnr", "jacobian/latent_to_latent", "jacobian/noise_to_action", "action_noise"}
    assert names <= found.keys()
    assert ("growth" in found) == (policy == "flow")
    parts = {name.split(".")[0] for name in given[1].policy}
    assert {f"grad_norm/{part}" for part in parts} <= found.keys()
    for name, value in found.items():
        assert value.shape == (2,), name
        assert torch.isfinite(value).all(), name
        assert (value > 0).all() or name == "esnr", name
    same = diagnose(*given, {}, real(given[2]), seed=0)
    assert all(torch.equal(found[name], same[name]) for name in found)


def test_signal_to_noise_and_norms_are_those_of_the_mini_batches():
    found, (update, states, starts) = measured("mlp", "mlp")
    state, start = one_cell((states, starts))
    rows = []
    for i in range(PARTS):
        one = slice(i, i + 1)
        some = start.of_rows(one)
        args = (state.critics, state.scale, some, {})
        grads, _ = gradient(update.actor_loss, state.policy, *args)
        rows.append(torch.cat([g.flatten() for g in grads.values()]))
    grads = torch.stack(rows)
    spread = grads.var(0).sum()
    ratio = (grads.mean(0).square().sum() - spread / PARTS) / spread
    torch.testing.assert_close(found["esnr"][0], ratio, rtol=1e-4, atol=0)
    parts = [v[0] for k, v in found.items() if k.startswith("grad_norm/")]
    torch.testing.assert_close(torch.stack(parts).norm(), grads.mean(0).norm(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("signal", [0.0, 0.3])
def test_the_signal_to_noise_ratio_is_that_of_the_distribution(signal):
    """Without the correction, the ratio of pure noise would be 1 / PARTS."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2000, PARTS, 200, generator=generator)
    ratios = signal_to_noise({"a": noise[..., :20] + signal, "b": noise[..., 20:] + signal})
    assert float(ratios.mean()) == pytest.approx(signal**2, abs=0.003)
    assert (ratios < 0).any() or signal


def test_one_start_has_no_signal_to_noise_ratio():
    update, states, starts = problem("mlp", "mlp", cells=2)
    one = starts.of_rows(slice(1))
    found = diagnose(update, states, one, {}, real(one), seed=0)
    assert "esnr" not in found
    assert "jacobian/latent_to_latent" in found


@each_pair
def test_jacobian_norms_agree_with_whole_jacobians(world, policy):
    """The estimate is unbiased in the squares: over many cells, each with its own vectors, it comes
    close."""
    update, states, starts = problem(world, policy, cells=1)
    many = tree_map(lambda t: t.expand(150, *t.shape[1:]), (states, starts))
    found = diagnose(update, *many, {}, real(many[1]), seed=0)
    mean = {k: v.square().mean().sqrt() for k, v in found.items()}
    pair, (state, start) = update.pair, one_cell((states, starts))
    total = {"jacobian/latent_to_latent": 0.0, "jacobian/action_to_latent": 0.0,
             "jacobian/latent_to_action": 0.0, "jacobian/noise_to_action": 0.0}  # fmt: skip
    size = len(start.index_B)
    for b in range(size):
        row = slice(b, b + 1)
        z, task = pair.begin({}, start.obs_BO[row], start.index_B[row], start.mask_BA[row])
        noise = start.policy_noise_HBN[0, row]
        choose = lambda z, n, t=task: pair.act(state.policy, z, t, n)  # noqa: E731
        none = start.model_noise_HBN[0, row]
        step = lambda z, a, t=task, n=none: pair.step({}, z, a, t, n).state  # noqa: E731
        to_z, to_noise = jacrev(choose, argnums=(0, 1))(z, noise)
        next_z, next_a = jacrev(step, argnums=(0, 1))(z, choose(z, noise))
        for name, jacobian in zip(total, (next_z, next_a, to_z, to_noise), strict=True):
            total[name] += float(jacobian.square().sum()) / size
    for name, square in total.items():
        assert float(mean[name]) == pytest.approx(square**0.5, rel=0.15), name


def test_a_run_logs_them_and_ends_the_same(
    repository, small_store, tiny_policy, tmp_path, monkeypatch, capsys
):
    from fmbpo.base.metrics import read_metrics
    from fmbpo.cli import main
    from fmbpo.runs.checkpoint import load_checkpoint

    monkeypatch.chdir(tmp_path)
    weights, logged = [], []
    for flag in ("0", "3"):
        command = ["run", str(repository / "experiments" / "phase8_flowwm_flowpolicy.toml")]
        command += ["--scale", "laptop", "--data", str(small_store), "--runs", flag]
        for override in (*tiny_policy, f"policy_learning.diagnose_every={flag}"):
            command += ["-o", override]
        assert main(command) == 0
        (folder,) = (tmp_path / flag).glob("phase8_flowwm_flowpolicy__*")
        weights.append(load_checkpoint(folder / "checkpoints" / "policies").weights)
        logged.append(list(read_metrics(folder / "metrics.jsonl")))
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert [x["step"] for x in logged[1] if "esnr" in x and "task" not in x] == [3, 6]
    assert not any("esnr" in x or "host/diagnostics_seconds" in x for x in logged[0])
    cells = {(x.get("task"), x.get("seed")) for x in logged[1] if "jacobian/latent_to_latent" in x}
    assert ("cartpole-balance", 1) in cells
    assert "diagnostics_seconds" in capsys.readouterr().err
