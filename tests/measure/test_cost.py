"""The cost of an update, counted by torch, against closed formulas of the layers' widths.

A Linear of ``inputs`` x ``outputs`` costs 2 · inputs · outputs a row: once forward, once for the
gradient of its weight where that learns, once for the gradient of its input where anything before
it does. All else is elementwise and not counted. The agreement is exact.
"""

from itertools import pairwise

import pytest
import torch
from pairs import (
    DONE,
    LEARNING,
    OPTIMISER,
    PAIRS,
    RATES,
    WIDTHS,
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

from fmbpo.hookspecs import Task
from fmbpo.measure.cost import flops
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate

CELLS, CRITICS = 2, 3
OBS, ACTION, BINS = 24, 6, 101
LATENT, TASK = WIDTHS["latent_dim"], WIDTHS["task_dim"]
EVALUATIONS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
"""Of a sub-step."""
SOLVERS = [(solver, k) for solver in EVALUATIONS for k in (1, 3)]
METHODS = [("mlp", {}), *(("flow", {"solver": s, "substeps": k}) for s, k in SOLVERS)]
each_method = pytest.mark.parametrize(
    ("kind", "settings"), METHODS, ids=["-".join(map(str, [k, *s.values()])) for k, s in METHODS]
)


def macs(*widths):
    """Multiply-adds of a row in a chain of Linear layers of these widths."""
    return sum(a * b for a, b in pairwise(widths))


def passes(settings, open_end=True):
    """Passes through a velocity network: none at τ = 1 where the field is not defined there."""
    if not settings:
        return 1
    solver, substeps = settings["solver"], settings["substeps"]
    return EVALUATIONS[solver] * substeps - (open_end and solver in ("heun", "rk4"))


def parts(kind):
    """Multiply-adds a row of the world model's encoder, dynamics and reward head."""
    step = LATENT + TASK + ACTION
    tau = 1 if kind == "flow" else 0
    return (
        macs(OBS + TASK, *WIDTHS["encoder_units"], LATENT),
        macs(step + tau, *WIDTHS["units"], LATENT),
        macs(step, *WIDTHS["units"], BINS),
    )


def model_update_cost(kind, trained):
    """One world-model update; ``trained``: solver and sub-steps of the loss."""
    encoder, dynamics, reward = parts(kind)
    # Forward, weights' gradients and inputs' gradients; the embedding learns, so that even the
    # first layer's input has a gradient. The targets pass forward alone.
    total = 3 * B * encoder + B * H * encoder
    total += 3 * B * H * passes(trained) * dynamics
    if kind == "flow":  # the flow-matching loss, all steps at once
        total += 3 * B * H * dynamics
    total += 3 * B * H * reward
    return 2 * total


def policy_update_cost(world, kind, world_settings, policy_settings):
    """One policy update of one cell in a model that learns nothing."""
    encoder, dynamics, reward = parts(world)
    total = B * encoder  # o_0 depends on nothing that learns
    # Forward and the inputs' gradients, down to the action.
    total += 2 * B * H * (passes(world_settings) * dynamics + reward)
    tau = 1 + ACTION if kind == "flow" else 0
    actor, first = macs(LATENT + tau, 16, 8, ACTION), macs(LATENT + tau, 16)
    # The policy's own input has no gradient, but those of a flow's later passes have.
    total += B * H * (3 * passes(policy_settings, open_end=False) * actor - first)
    critic, first = macs(LATENT, 16, 1), macs(LATENT, 16)
    total += 2 * CRITICS * B * critic  # V(z_H), and the actor's gradient through it
    total += CRITICS * B * H * critic  # the targets
    steps = LEARNING.critic_iterations  # each over all mini-batches
    total += steps * CRITICS * B * H * (3 * critic - first)
    return 2 * total


def counted_model_update(kind, stacked=False, **settings):
    """A flow's loss has both of its terms, if not told otherwise."""
    if kind == "flow":
        settings = {"endpoint_coef": 1.0, **settings}
    component, module = world_model(kind, **settings)
    update = WorldModelUpdate(module, component.loss, OPTIMISER, stacked=stacked)
    given = (
        WorldModelState.initial(params(module)),
        batch(),
        torch.randn(H, B, module.loss_noise_dim),
    )
    if stacked:
        given = stack([given] * CELLS)
    return flops(update, *given, RATES.actor, DONE)


def counted_policy_update(world, kind, world_settings, policy_settings, own_models=False):
    _, states, starts = problem(world, kind, cells=CELLS)
    made = pair(world_model(world, **world_settings), policy(kind, **policy_settings))
    models = stack([params(made.world_model)] * CELLS) if own_models else {}
    return flops(policy_update(made), states, starts, RATES, models)


@each_method
@pytest.mark.parametrize("stacked", [False, True], ids=["one", "stacked"])
def test_a_world_model_update(kind, settings, stacked):
    counted = counted_model_update(kind, stacked, **settings)
    assert counted == model_update_cost(kind, settings) * (CELLS if stacked else 1)


def test_training_with_its_own_method_costs_what_that_costs():
    predicted, trained = {"solver": "rk4", "substeps": 4}, {"solver": "heun", "substeps": 2}
    own = {f"train_{k}": v for k, v in trained.items()}
    assert counted_model_update("flow", **predicted, **own) == model_update_cost("flow", trained)


def test_without_the_endpoint_term_the_last_solution_reaches_no_loss():
    """It is computed all the same, but has no backward pass."""
    _, dynamics, _ = parts("flow")
    settings = {"solver": "heun", "substeps": 2}
    field_alone = counted_model_update("flow", endpoint_coef=0.0, **settings)
    saved = 2 * 2 * B * passes(settings) * dynamics
    assert field_alone == model_update_cost("flow", settings) - saved


DEFAULT_MODEL = {"mlp": {}, "flow": {"solver": "heun", "substeps": 4}}
DEFAULT_POLICY = {"mlp": {}, "flow": {"solver": "heun", "substeps": 2}}


@pytest.mark.parametrize(("world", "kind"), PAIRS)
@pytest.mark.parametrize("own_models", [False, True], ids=["frozen", "own models"])
def test_a_policy_update(world, kind, own_models):
    given = world, kind, DEFAULT_MODEL[world], DEFAULT_POLICY[kind]
    assert counted_policy_update(*given, own_models) == CELLS * policy_update_cost(*given)


@each_method
def test_a_policy_update_in_every_world_model(kind, settings):
    given = kind, "mlp", settings, {}
    assert counted_policy_update(*given) == CELLS * policy_update_cost(*given)


@each_method
def test_a_policy_update_of_every_policy(kind, settings):
    given = "mlp", kind, {}, settings
    assert counted_policy_update(*given) == CELLS * policy_update_cost(*given)


@pytest.mark.parametrize("solver", EVALUATIONS)
def test_doubling_the_sub_steps_adds_their_passes(solver):
    """From 2 to 4: the pass that an open end saves is saved in both."""
    _, dynamics, _ = parts("flow")
    more = B * H * 2 * EVALUATIONS[solver] * dynamics
    few, many = ({"solver": solver, "substeps": k} for k in (2, 4))
    learning = [counted_model_update("flow", **settings) for settings in (few, many)]
    assert learning[1] - learning[0] == 2 * 3 * more
    acting = [counted_policy_update("flow", "mlp", settings, {}) for settings in (few, many)]
    assert acting[1] - acting[0] == CELLS * 2 * 2 * more


def counted_passes(network, call):
    """Forward passes through a network while ``call`` runs."""
    seen = []
    with network.register_forward_hook(lambda *_: seen.append(1)):
        call()
    return len(seen)


def predicted(component, module):
    """One step of a world model."""
    real = batch()
    task = Task(real.index_B, real.mask_BA, module.embed(real.index_B))
    z = module.encode(real.obs_HBO[0], task.embedding_BE)
    return component.predict(module, z, real.action_HBA[0], task, torch.zeros(B, module.noise_dim))


@pytest.mark.parametrize("parameterisation", ["endpoint", "tangent", "logit"])
@pytest.mark.parametrize("source", ["latent", "noise"])
@pytest.mark.parametrize(("solver", "substeps"), SOLVERS)
def test_evaluations_of_a_flow_world_model(parameterisation, source, solver, substeps):
    """The endpoint parameterisation alone is not defined at τ = 1."""
    component, module = world_model(
        "flow",
        parameterisation=parameterisation,
        source=source,
        solver=solver,
        substeps=substeps,
    )
    made = counted_passes(module.dynamics, lambda: predicted(component, module))
    expected = passes({"solver": solver, "substeps": substeps}, parameterisation == "endpoint")
    assert made == module.evaluations == expected


def test_evaluations_of_an_mlp_world_model():
    component, module = world_model("mlp")
    made = counted_passes(module.dynamics, lambda: predicted(component, module))
    assert made == module.evaluations == 1


@each_method
def test_evaluations_of_a_policy(kind, settings):
    real = batch()
    task = Task(real.index_B, real.mask_BA, torch.zeros(B, TASK))
    z = torch.zeros(B, LATENT)
    for gate in ({}, {"gate": True}) if kind == "flow" else ({},):
        component, module = policy(kind, **settings, **gate)
        network = module.velocity_net if kind == "flow" else module.mean
        noise = torch.zeros(B, module.noise_dim)
        act = lambda c=component, m=module, n=noise: c.predict(m, z, task, n)  # noqa: E731
        made = counted_passes(network, act)
        assert made == module.evaluations == passes(settings, open_end=False)
