"""Held-out measures: what a perfect, a collapsed and a constant model score, and the warnings."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pairs import KINDS, world_model

from fmbpo.config.schema import DataConfig
from fmbpo.data.residence import ROW_WIDTH
from fmbpo.data.sampler import Rows, action_masks
from fmbpo.hookspecs import Rollout
from fmbpo.measure.health import (
    Watch,
    learning_health,
    returns_health,
    size_health,
    world_model_health,
)
from fmbpo.measure.validation import Validator
from fmbpo.nn import two_hot
from fmbpo.runs.findings import Finding
from fmbpo.tasks.mt30 import OBS_WIDTH
from fmbpo.training.dataset import load_dataset


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


@pytest.mark.parametrize(("tasks", "each"), [(1, 512), (3, 171), (30, 64)])
def test_every_task_has_the_same_number_of_held_out_slices(tasks, each):
    """512 slices of all episodes were 17 of each of 30 tasks, and fewer of a task with few."""
    task_E = torch.arange(tasks).repeat_interleave(4 + torch.arange(tasks))

    def gather(row_B, horizon):
        return row_B.expand(horizon + 1, -1).unsqueeze(-1).repeat(1, 1, ROW_WIDTH).float()

    place = SimpleNamespace(device=torch.device("cpu"), gather=gather)
    rows = Rows(20 * np.arange(1, len(task_E) + 1), place, task_E, action_masks())
    batch = Validator(rows, rows).batch
    assert batch.index_B.bincount().tolist() == [each] * tasks
    # Every episode has its turn, and none another task's index.
    episode_B = batch.obs_HBO[0, :, 0].long() // 20
    assert len(episode_B.unique()) == len(task_E)
    assert torch.equal(task_E[episode_B], batch.index_B)


def test_a_perfect_model(validator):
    measures = validator(model(lambda obs: obs), perfect(validator))
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
            reward_logits_HBR=logits(torch.full_like(validator.batch.reward_HB, float(mean)))
        )

    measures = validator(model(lambda obs: torch.ones(*obs.shape[:-1], OBS_WIDTH)), constant)
    assert measures["reward_r2"] < 0
    assert measures["effective_rank"] < 1.01
    for h in validator.horizons:
        assert measures[f"obs_error_h{h}"] == pytest.approx(
            measures[f"constant_error_h{h}"], rel=0.02
        )
    gates = {finding.gate for finding in world_model_health(measures)}
    assert gates == {
        "reward_unexplained",
        "reward_constant",
        "reward_ignores_action",
        "latent_collapsed",
        "off_simplex",
        "reward_no_better_than_mean",
        "worse_than_copy",
    }


def test_worse_than_no_change(validator):
    hook = perfect(validator)

    def off(module, *rest):
        found = hook(module, *rest)
        return found._replace(z_HBD=found.z_HBD + 10.0)

    found = world_model_health(validator(model(lambda obs: obs), off), "reacher-easy/1")
    (finding,) = (f for f in found if f.gate == "worse_than_copy")
    assert "worse than no change" in finding.message
    assert finding.where == "reacher-easy/1"


def test_two_policies_that_behave_identically():
    rows = {"a": [1, 2], "b": [3, 4], "c": [1, 2], "d": [0, 0], "e": [0, 0]}
    (finding,) = returns_health(rows)
    assert (finding.gate, finding.where, finding.detail) == ("identical_returns", "c", "those of a")


def test_a_constant_reward_is_rightly_constant(validator):
    still = copy.copy(validator)
    still.batch = validator.batch._replace(reward_HB=torch.zeros_like(validator.batch.reward_HB))
    component, module = world_model("mlp")
    torch.nn.init.zeros_(module.reward[-1].weight)
    gates = {f.gate for f in world_model_health(still(module, component.rollout))}
    assert gates & {"reward_constant", "reward_unexplained", "reward_ignores_action"} == set()
    assert "reward_no_better_than_mean" not in gates


def test_a_size_beyond_two_percent_is_a_factor():
    assert size_health(None) == size_health(0.01) == size_health(-0.02) == []
    (finding,) = size_health(0.073)
    assert finding.gate == "size_parity"
    assert "+7.3%" in finding.detail


def test_a_world_model_that_gets_worse():
    assert learning_health({"score": 0.2}, {"score": 0.29}) == []
    (finding,) = learning_health({"score": 0.2}, {"score": 0.31})
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
        return found._replace(reward_logits_HBR=(probabilities + 1e-12).log().unsqueeze(0))

    measures = validator(model(lambda obs: obs), sloped)
    action = validator.batch.action_HBA[0].clone().requires_grad_()
    found = sloped(model(lambda obs: obs), action.new_zeros(len(action), 24), lambda *_: action,
                   None, None)  # fmt: skip
    rewards = two_hot.decode(found.reward_logits_HBR[0])
    slopes = torch.autograd.grad(rewards.sum(), action)[0][:, 0]
    wanted = slopes.square().mean().sqrt()
    assert measures["reward_action_gradient"] == pytest.approx(float(wanted), rel=1e-5)
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
