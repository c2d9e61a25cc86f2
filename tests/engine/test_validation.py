"""Held-out measures: what a perfect, a collapsed and a constant model score, and the warnings."""

from types import SimpleNamespace

import pytest
import torch

from fmbpo.engine.dataset import load_dataset
from fmbpo.engine.health import learning_health, returns_health, world_model_health
from fmbpo.engine.validation import Validator
from fmbpo.experiment.schema import DataConfig
from fmbpo.hookspecs import Rollout
from fmbpo.nn import two_hot
from fmbpo.tasks.mt30 import OBS_WIDTH


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
    said = " ".join(world_model_health(measures))
    for words in ("explains nothing", "reward is constant", "collapsed", "leave the simplex"):
        assert words in said


def test_worse_than_no_change(validator):
    hook = perfect(validator)

    def off(module, *rest):
        found = hook(module, *rest)
        return found._replace(z_HBD=found.z_HBD + 10.0)

    said = world_model_health(validator(model(lambda obs: obs), off))
    assert any("worse than no change" in text for text in said)


def test_two_policies_that_behave_identically():
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]).numpy()
    assert returns_health(["a", "b", "c", "d", "e"], rows) == [
        "a and c have identical returns in every episode"
    ]


def test_a_world_model_that_gets_worse():
    assert learning_health({"score": 0.2}, {"score": 0.29}) == []
    (said,) = learning_health({"score": 0.2}, {"score": 0.31})
    assert "got worse while the policy learned (score 0.200 -> 0.310)" in said
