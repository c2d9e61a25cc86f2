"""Held-out measures: what a perfect, a collapsed and a constant model score, and the warnings."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pairs import KINDS, world_model

from fmbpo.config.schema import DataConfig
from fmbpo.data.sampler import Rows
from fmbpo.data.store_format import layout_of
from fmbpo.hookspecs import Rollout
from fmbpo.measure.health import (
    Watch,
    learning_health,
    returns_health,
    size_health,
    world_model_health,
)
from fmbpo.measure.validation import (
    DRAWS,
    OVERALL,
    Validator,
    crps,
    mean_summarised,
    summarised,
)
from fmbpo.nn import two_hot
from fmbpo.runs.findings import Finding
from fmbpo.tasks.mt30 import MT30, SUITE
from fmbpo.training.dataset import load_dataset

TASKS = ("reacher-easy", "cartpole-balance")
"""Those of the small store, in the order of MT30."""


@pytest.fixture(scope="module")
def validator(small_store):
    data = load_dataset(DataConfig(path=str(small_store)), torch.device("cpu"))
    return Validator(data.train, data.held_out)


def model(encode):
    """Just enough of a world model: its latent is ``encode(obs)``."""
    return SimpleNamespace(
        embed=lambda index: torch.zeros(len(index), 1),
        encode=lambda obs, e: encode(obs),
        noise_dim=0,
        simplex_dim=8,
    )


def logits(reward):
    return (two_hot.two_hot(reward) + 1e-12).log()


def perfect(validator):
    """A rollout hook that knows the recorded future."""

    def rollout(module, z, partner, task, noise):
        batch = validator.batch
        latents = module.encode(batch.obs_HBO, None)
        return Rollout(latents, batch.action_HBA, logits(batch.reward_HB))

    return rollout


def rewarded(validator, reward_HB):
    """The validator with other recorded rewards. In the small store, one task's are all 0."""
    other = copy.copy(validator)
    other.batch = validator.batch._replace(reward_HB=reward_HB)
    return other


@pytest.mark.parametrize(("tasks", "each"), [(1, 512), (3, 171), (30, 64)])
def test_every_task_has_the_same_number_of_held_out_slices(tasks, each):
    """512 slices of all episodes were 17 of each of 30 tasks, and fewer of a task with few."""
    task_E = torch.arange(tasks).repeat_interleave(4 + torch.arange(tasks))

    def on_host(row_B, horizon):
        return (
            row_B.expand(horizon + 1, -1)
            .unsqueeze(-1)
            .repeat(1, 1, layout_of(SUITE).row_width)
            .float()
        )

    cpu = torch.device("cpu")
    place = SimpleNamespace(device=cpu, on_host=on_host, on_device=lambda sent, horizon: sent)
    rows = Rows(20 * np.arange(1, len(task_E) + 1), place, task_E, SUITE)
    batch = Validator(rows, rows).batch
    assert batch.index_B.bincount().tolist() == [each] * tasks
    # Every episode has its turn, and none another task's index.
    episode_B = batch.obs_HBO[0, :, 0].long() // 20
    assert len(episode_B.unique()) == len(task_E)
    assert torch.equal(task_E[episode_B], batch.index_B)


def test_a_perfect_model(validator):
    measures = validator(model(lambda obs: obs), perfect(validator))[OVERALL]
    assert measures["reward_r2"] > 0.999
    for h in validator.horizons:
        assert measures[f"obs_error_h{h}"] < 0.03
        assert measures[f"reward_rmse_h{h}"] < 1e-3
        assert measures[f"copy_error_h{h}"] > 10 * measures[f"obs_error_h{h}"]
        assert measures[f"constant_error_h{h}"] > 0.3
    assert measures["score"] < 0.03
    assert "curvature" not in measures


def test_a_constant_model(validator):
    """It scores as the constant baseline does, and no better."""
    hook = perfect(validator)
    mean = validator.batch.reward_HB.mean() + 0.1

    def constant(*args):
        return hook(*args)._replace(
            reward_HBR=logits(torch.full_like(validator.batch.reward_HB, float(mean)))
        )

    found = validator(model(lambda obs: torch.ones(*obs.shape[:-1], SUITE.obs_width)), constant)
    measures = found[OVERALL]
    assert measures["reward_r2"] < 0
    assert measures["effective_rank"] < 1.01
    for h in validator.horizons:
        assert measures[f"obs_error_h{h}"] == pytest.approx(
            measures[f"constant_error_h{h}"], rel=0.02
        )
    gates = {finding.gate for finding in world_model_health(found)}
    assert gates == {
        "reward_unexplained",
        "reward_constant",
        "reward_ignores_action",
        "latent_collapsed",
        "off_simplex",
        "reward_no_better_than_mean",
        "worse_than_copy",
    }


def test_a_head_that_knows_only_the_mean_of_each_task_explains_nothing(validator):
    """Pooled over tasks of unlike rewards, it explained most of the variance."""
    one, other = TASKS
    shift = 5.0 * (validator.batch.index_B == MT30[other].index)
    unlike = rewarded(validator, validator.batch.action_HBA[..., 0] + shift)
    real = unlike._by_task(unlike.batch.reward_HB)
    mean = real.mean((0, 2), keepdim=True).expand_as(real).flatten(1)
    pooled = 1 - (mean - unlike.batch.reward_HB).square().mean() / unlike.batch.reward_HB.var()
    assert pooled > 0.9
    hook = perfect(unlike)

    def means(*args):
        return hook(*args)._replace(reward_HBR=logits(mean))

    found = unlike(model(lambda obs: obs), means)
    for task in (OVERALL, one, other):
        assert found[task]["reward_r2"] == pytest.approx(0.0, abs=1e-3)
    places = {f.where for f in world_model_health(found) if f.gate == "reward_constant"}
    assert places == {one, other}


def test_one_bad_task_among_good_ones_is_named(validator):
    """Its R² and its errors are its own, and the mean over tasks is that of the tasks."""
    good, bad = TASKS
    validator = rewarded(validator, validator.batch.action_HBA[..., 0])
    hook = perfect(validator)
    wrong = validator.batch.index_B == MT30[bad].index

    def off(module, *rest):
        found = hook(module, *rest)
        reward = torch.where(wrong, 3.0, validator.batch.reward_HB)
        z = torch.where(wrong.unsqueeze(-1), found.z_HBD + 10.0, found.z_HBD)
        return found._replace(z_HBD=z, reward_HBR=logits(reward))

    found = validator(model(lambda obs: obs), off)
    assert list(found) == [OVERALL, good, bad]
    assert found[good]["score"] < 0.03
    assert found[bad]["reward_r2"] < 0
    for name in ("reward_r2", "score", "obs_error_h4", "reward_rmse_h4"):
        mean = (found[good][name] + found[bad][name]) / 2
        assert found[OVERALL][name] == pytest.approx(mean), name
    recorded = ("off_simplex", "reward_ignores_action")  # the recorded future fails these anyway
    of_task = [f for f in world_model_health(found) if f.gate not in recorded]
    assert {f.where for f in of_task} == {bad}
    gates = {"reward_unexplained", "reward_constant", "reward_no_better_than_mean"}
    assert {f.gate for f in of_task} >= {*gates, "worse_than_copy"}
    (copied,) = (f for f in world_model_health(found, f"{bad}/1") if f.gate == "worse_than_copy")
    assert "worse than no change" in copied.message
    assert copied.where == f"{bad}/1"


def test_a_summary_has_r2_and_score_of_every_task():
    one = {OVERALL: {"score": 2.0, "obs_error_h1": 0.5},
           "a": {"score": 1.0, "reward_r2": 0.5, "obs_error_h1": 0.1},
           "b": {"score": 3.0, "obs_error_h1": 0.9}}  # fmt: skip
    first = summarised(one)
    assert first == {
        "score": 2.0,
        "obs_error_h1": 0.5,
        "by_task": {"a": {"score": 1.0, "reward_r2": 0.5}, "b": {"score": 3.0}},
    }
    second = {"score": 4.0, "by_task": {"a": {"score": 4.0, "reward_r2": 1.0}, "c": {"score": 4.0}}}
    assert mean_summarised([first, second]) == {
        "score": 3.0,
        "obs_error_h1": 0.5,
        "by_task": {
            "a": {"score": 2.5, "reward_r2": 0.75}, "b": {"score": 3.0}, "c": {"score": 4.0}
        },
    }  # fmt: skip


def test_the_crps_is_that_of_infinitely_many_draws():
    """Three draws of the true distribution, against Gneiting & Raftery's closed form for a normal;
    without Ferro's correction the score would be 1 / (3 sqrt(pi)) = 0.19 higher."""
    draws = torch.randn(3, 200_000, generator=torch.Generator().manual_seed(0))
    for real in (0.0, 1.5):
        pairs = (draws.unsqueeze(0) - draws.unsqueeze(1)).abs().sum((0, 1)) / (2 * 3 * 2)
        found = crps(draws, torch.full((200_000,), real))
        torch.testing.assert_close(found, (draws - real).abs().mean(0) - pairs, rtol=0, atol=1e-5)
        normal = torch.distributions.Normal(0.0, 1.0)
        y = torch.tensor(real)
        wanted = y * (2 * normal.cdf(y) - 1) + 2 * normal.log_prob(y).exp() - torch.pi**-0.5
        assert float(found.mean()) == pytest.approx(float(wanted), abs=0.01)
    one = torch.tensor([[2.0, -1.0]])
    assert crps(one, torch.tensor([0.5, 0.5])).tolist() == [1.5, 1.5]
    assert crps(one.expand(4, 2), torch.tensor([0.5, 0.5])).tolist() == [1.5, 1.5]


@pytest.mark.parametrize("noisy", [False, True])
def test_noise_around_the_truth_costs_its_crps_and_no_error_of_the_mean(validator, noisy):
    """One draw would have twice the error: its own noise beside the real one."""
    validator = rewarded(validator, validator.batch.action_HBA[..., 0])
    hook, spread, calls = perfect(validator), 0.3, []
    noise_dim = SUITE.obs_width + 1 if noisy else 0
    scale_KO = validator._scale
    units = scale_KO[(validator.batch.index_B != validator.batch.index_B[0]).long()]

    def around(module, z, partner, task, noise):
        calls.append(noise)
        found = hook(module, z, partner, task, noise)
        if not noisy:
            return found
        far = spread * noise[:, :, :-1] * units
        latents = torch.cat([found.z_HBD[:1], found.z_HBD[1:] + far[: len(found.z_HBD) - 1]])
        reward = validator.batch.reward_HB[: len(noise)] + spread * noise[:, :, -1]
        return found._replace(z_HBD=latents, reward_HBR=logits(reward))

    module = model(lambda obs: obs)
    module.noise_dim = noise_dim
    found = validator(module, around)[OVERALL]
    assert len(calls) == (DRAWS + 1 if noisy else 2)  # the last one is for the action's gradient
    assert not noisy or not torch.equal(calls[0], calls[1])
    score = spread * (torch.pi**-0.5) * (2**0.5 - 1) if noisy else 0.0  # at the centre of a normal
    for h in validator.horizons:
        assert found[f"obs_error_h{h}"] < 0.05
        assert found[f"reward_rmse_h{h}"] < 0.03
        for name in ("obs_crps", "reward_crps"):
            assert found[f"{name}_h{h}"] == pytest.approx(score, abs=0.006)
    assert found["reward_r2"] > 0.99
    assert found["score"] == pytest.approx(score, abs=0.02)


@pytest.mark.parametrize("settings", [{}, {"source": "noise", "endpoint_coef": 0.0}])
def test_only_a_stochastic_model_is_rolled_out_several_times(validator, settings):
    component, module = world_model("flow", **settings)
    calls = []

    def counted(*arguments):
        calls.append(arguments[-1])
        return component.rollout(*arguments)

    found = validator(module, counted)
    assert (module.noise_dim > 0) == bool(settings)
    assert len(calls) == (DRAWS + 1 if settings else 2)
    assert all(math.isfinite(x) for measures in found.values() for x in measures.values())


def test_two_policies_that_behave_identically():
    rows = {"a": [1, 2], "b": [3, 4], "c": [1, 2], "d": [0, 0], "e": [0, 0]}
    (finding,) = returns_health(rows)
    assert (finding.gate, finding.where, finding.detail) == ("identical_returns", "c", "those of a")


def test_a_constant_reward_is_rightly_constant(validator):
    """It has no R², in its task and in the mean over tasks, and no gate warns of it."""
    one, other = TASKS
    moves = validator.batch.index_B == MT30[other].index
    component, module = world_model("mlp")
    torch.nn.init.zeros_(module.reward[-1].weight)
    gates = {"reward_constant", "reward_unexplained", "reward_ignores_action"}
    real = validator.batch.reward_HB
    for reward, varying in ((real * moves, {other}), (0.0 * real, set())):
        still = rewarded(validator, reward)
        found = still(module, component.rollout)
        assert {task for task in TASKS if "reward_r2" in found[task]} == varying
        assert ("reward_r2" in found[OVERALL]) == bool(varying)
        errors = [found[one][f"obs_crps_h{h}"] for h in still.horizons]
        assert found[one]["score"] == pytest.approx(sum(errors) / len(errors))
        warned = {f.where for f in world_model_health(found) if f.gate in gates}
        assert warned == varying


def test_a_size_beyond_two_percent_is_a_factor():
    assert size_health(None) == size_health(0.01) == size_health(-0.02) == []
    (finding,) = size_health(0.073)
    assert finding.gate == "size_parity"
    assert "+7.3%" in finding.detail


def test_a_world_model_that_gets_worse():
    old, same, worse = ({OVERALL: {"score": score}} for score in (0.2, 0.29, 0.31))
    assert learning_health(old, same) == []
    (finding,) = learning_health(old, worse)
    assert "got worse while the policy learned" in finding.message
    assert finding.detail == "score 0.200 -> 0.310"


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_has_learned_nothing_is_named(validator, kind):
    """What PWM's reward loss leaves behind from scratch: equal logits for everything."""
    component, module = world_model(kind)
    gates = {f.gate for f in world_model_health(validator(module, component.rollout))}
    assert not gates & {"loss_at_floor", "reward_ignores_action", "reward_constant"}
    torch.nn.init.zeros_(module.reward[-1].weight)
    torch.nn.init.constant_(module.reward[-1].bias, 0.7)
    gates = {f.gate for f in world_model_health(validator(module, component.rollout))}
    assert gates >= {"loss_at_floor", "reward_ignores_action", "reward_constant"}


def test_the_slope_to_the_action_is_the_gradients_norm(validator):
    """Of a reward that is linear in the first action dimension."""
    hook = perfect(validator)

    def sloped(module, z, partner, task, noise):
        action = partner(0, z)
        weight = torch.sigmoid(action[..., :1])
        probabilities = torch.cat([weight, 1 - weight, torch.zeros(len(z), two_hot.BINS - 2)], -1)
        found = hook(module, z, partner, task, noise)
        steps = (probabilities + 1e-12).log().expand(len(noise), -1, -1)
        return found._replace(reward_HBR=steps)

    measures = validator(model(lambda obs: obs), sloped)
    action = validator.batch.action_HBA[0].clone().requires_grad_()
    found = sloped(model(lambda obs: obs), action.new_zeros(len(action), 24), lambda *_: action,
                   None, [None])  # fmt: skip
    rewards = two_hot.decode(found.reward_HBR[0])
    slopes = torch.autograd.grad(rewards.sum(), action)[0][:, 0]
    wanted = slopes.square().mean().sqrt()
    by_task = [measures[task]["reward_action_gradient"] for task in TASKS]
    rms = (sum(x**2 for x in by_task) / len(by_task)) ** 0.5
    assert rms == pytest.approx(float(wanted), rel=1e-5)
    assert wanted > 0.1


def test_what_goes_wrong_while_training_is_dated_until_it_is_mended():
    watch, bad, other = Watch(), Finding("g", "bad", "1", "a/1"), Finding("g", "bad", "2", "a/2")
    assert watch.update(100, [bad]) == ([Finding("g", "bad", "1", "a/1", 100)], [])
    new, mended = watch.update(200, [bad, other])
    assert [f.where for f in new] == ["a/2"]
    assert not mended
    restored = Watch()
    restored.load(watch.state())
    assert restored.update(300, [other]) == ([], [("g", "a/1")])
    assert [f.since for f in restored.dated([other])] == [200]
