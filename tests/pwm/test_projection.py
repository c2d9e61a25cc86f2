"""Updated parameters go back into their allowed set: no floor or norm can wind up."""

import pytest
import torch
from pairs import KINDS, RATES, SETTINGS, B, H, batch, params, problem, world_model

from fmbpo.pwm.policy import make_policy_update
from fmbpo.pwm.world_model import (
    WorldModelSettings,
    WorldModelState,
    make_world_model_update,
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_std_stays_at_its_floor_and_leaves_it_at_once(kind):
    roles, states, starts = problem("mlp", kind)
    floor = roles.policy.config.min_log_std
    below = {**states.policy, "log_std.value": torch.full_like(states.policy["log_std.value"], -9)}
    new, _ = make_policy_update(roles, SETTINGS)(states._replace(policy=below), starts, RATES)
    assert (new.policy["log_std.value"] >= floor).all()


@pytest.mark.parametrize("kind", KINDS)
def test_task_embeddings_have_norm_at_most_one_after_an_update(kind):
    component, module = world_model(kind)
    with torch.no_grad():
        module.task_embedding.weight.mul_(200)
    update = make_world_model_update(
        module, component.loss, WorldModelSettings((0.9, 0.999), 20.0, 0.3)
    )
    noise = torch.zeros(H, B, module.loss_noise_dim)
    state = WorldModelState.initial(params(module))
    assert state.params["task_embedding.weight"].norm(dim=1).max() > 1.5
    new, _ = update(state, batch(), noise, torch.tensor(1e-3))
    assert new.params["task_embedding.weight"].norm(dim=1).max() <= 1 + 1e-5
