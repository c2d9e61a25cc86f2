"""Buffers: state that does not learn, which losses set."""

import attrs
import torch
from pairs import (
    DONE,
    OPTIMISER,
    RATES,
    B,
    H,
    batch,
    pair,
    params,
    policy,
    policy_update,
    problem,
    stack,
    world_model,
)

from fmbpo.pwm.optim import gradient
from fmbpo.pwm.policy import CellState
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate
from fmbpo.replay import Replayed
from fmbpo.training.trees import own_params

RATE = torch.tensor(1e-3)


def averaging(component, module, name):
    """The plugin with a buffer that follows one parameter."""
    module.register_buffer("average", torch.zeros_like(params(module)[name]))

    def loss(module, *arguments):
        value, metrics = component.loss(module, *arguments)
        now = dict(module.named_parameters())[name].detach()
        return value, {**metrics, "average": 0.9 * module.average + 0.1 * now}

    return attrs.evolve(component, loss=loss), module


def test_a_world_models_buffer_follows_its_parameters():
    name = "encoder.0.linear.weight"
    component, module = averaging(*world_model("mlp"), name)
    update = WorldModelUpdate(module, component.loss, OPTIMISER, stacked=True)
    plain, same = world_model("mlp")
    other = WorldModelUpdate(same, plain.loss, OPTIMISER, stacked=True)
    noise = torch.empty(1, H, B, 0)
    state = WorldModelState.initial(stack([own_params(module)]))
    without = WorldModelState.initial(stack([own_params(same)]))
    state, without = (s._replace(adam=_rows(s.adam)) for s in (state, without))
    wanted = torch.zeros_like(state.params[name])
    for seed in range(3):
        wanted = 0.9 * wanted + 0.1 * state.params[name]
        real = stack([batch(seed)])
        state, metrics = update(state, real, noise, RATE, DONE)
        without, _ = other(without, real, noise, RATE, DONE)
        assert "average" not in metrics
        torch.testing.assert_close(state.params["average"], wanted)
    for key, value in without.params.items():  # nothing else is different
        assert torch.equal(value, state.params[key]), key


def _rows(adam):
    """An optimiser's state of one model in a stack."""
    return type(adam)(adam.first.view(1, -1), adam.second.view(1, -1), adam.steps.view(1))


def test_a_policys_buffer_follows_its_parameters_also_in_a_replay():
    name = "mean.0.weight"
    made = pair(world_model("mlp"), averaging(*policy("mlp"), name))
    update = policy_update(made)
    _, states, starts = problem("mlp", "mlp", cells=2)
    first = own_params(made.policy)
    policies = {**states.policy, "average": torch.zeros(2, *first["average"].shape)}
    each = [
        CellState.initial({k: v[i] for k, v in policies.items()}, _of(states.critics, i))
        for i in range(2)
    ]
    eager = fast = stack(each).laid_out()
    replayed = Replayed(update.__call__, "the update", required=True, say=print)
    wanted = torch.zeros(2, *first["average"].shape)
    for _ in range(3):
        wanted = 0.9 * wanted + 0.1 * eager.policy[name]
        eager, metrics = update(eager, starts, RATES)
        fast, _ = replayed(fast, starts, RATES)
        assert "actor_average" not in metrics
        torch.testing.assert_close(eager.policy["average"], wanted)
        assert torch.equal(eager.policy["average"], fast.policy["average"])


def _of(params, i):
    return {k: v[i] for k, v in params.items()}


def test_a_buffers_gradient_is_zero():
    leaf, buffer = torch.tensor([2.0]), torch.tensor([3.0])
    given = {"w": leaf, "b": buffer}
    loss = lambda p: ((p["w"] * p["b"]).sum(), ())  # noqa: E731
    grads, _ = gradient(loss, given, buffers=("b",))
    assert (grads["w"].item(), grads["b"].item()) == (3.0, 0.0)
