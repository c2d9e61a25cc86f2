"""Updated parameters go back into their allowed set: no floor or norm can wind up."""

import pytest
import torch
from pairs import DONE, KINDS, OPTIMISER, RATES, B, H, batch, params, problem, world_model

from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_std_stays_at_its_floor_and_leaves_it_at_once(kind):
    update, states, starts = problem("mlp", kind)
    floor = update.pair.policy.config.min_log_std
    below = {**states.policy, "log_std.value": torch.full_like(states.policy["log_std.value"], -9)}
    new, _ = update(states._replace(policy=below), starts, RATES)
    assert (new.policy["log_std.value"] >= floor).all()


@pytest.mark.parametrize("kind", KINDS)
def test_task_embeddings_have_norm_at_most_one_after_an_update(kind):
    component, module = world_model(kind)
    with torch.no_grad():
        module.task_embedding.weight.mul_(200)
    update = WorldModelUpdate(module, component.loss, OPTIMISER)
    noise = torch.zeros(H, B, module.loss_noise_dim)
    state = WorldModelState.initial(params(module))
    assert state.params["task_embedding.weight"].norm(dim=1).max() > 1.5
    new, _ = update(state, batch(), noise, torch.tensor(1e-3), DONE)
    assert new.params["task_embedding.weight"].norm(dim=1).max() <= 1 + 1e-5
