"""What the flow world model's settings do; the contract is in test_contract.py."""

from functools import cache

import pytest
import torch

from fmbpo.hookspecs import Batch, Task, WorldModelDims
from fmbpo.nn.blocks import simnorm
from fmbpo.nn.ode import STAGES
from fmbpo.plugins import load_plugin
from fmbpo_wm_flow.field import PARAMETERISATIONS, centred

torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
B, H, LATENT = 4, 3, 16
DIMS = WorldModelDims(obs=5, action=3, tasks=3)
INDEX = torch.tensor([0, 1, 1, 0])
DONE = torch.tensor(0.5)
MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])[INDEX]
plugin = cache(lambda: load_plugin("world_model", "flow"))


def build(solver="heun", substeps=2, **settings):
    torch.manual_seed(0)
    widths = {"encoder_units": [16], "units": [16, 16], "latent_dim": LATENT, "task_dim": 4}
    config = plugin().Config(**widths, solver=solver, substeps=substeps, **settings)
    module = plugin().build(config, DIMS)
    # Both are zero at first: no gradient to the actions, and a field that does not see τ.
    torch.nn.init.normal_(module.reward[-1].weight, std=0.3)
    torch.nn.init.normal_(module.dynamics[0].linear.weight[:, -1], std=0.3)
    return module


def step_inputs(module):
    torch.manual_seed(1)
    task = Task(INDEX, MASK, module.embed(INDEX).detach())
    z, action = simnorm(3 * torch.randn(B, LATENT)), torch.rand(B, 3)
    return z, action, task, torch.empty(B, module.noise_dim)


def real_batch():
    torch.manual_seed(2)
    obs, action = torch.randn(H + 1, B, 5), torch.rand(H, B, 3) * 2 - 1
    batch = Batch(obs, action, torch.rand(H, B), INDEX, MASK, torch.zeros(H, B))
    return batch, torch.randn(H, B, 2 + LATENT)


def test_entry_point_and_settings():
    assert plugin().distribution == "fmbpo-wm-flow"
    refused = [{"solver": "leapfrog"}, {"substeps": 0}, {"tau": "late"}, {"latent_dim": 12}]
    refused += [{"train_solver": "leapfrog"}, {"train_substeps": -1}]
    for wrong in refused:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            plugin().Config(**wrong)


def test_sources_in_training_are_the_models_own_solutions():
    module, (batch, noise) = build(), real_batch()
    seen = []
    module.reward.register_forward_pre_hook(lambda _, args: seen.append(args[0][..., :LATENT]))
    plugin().loss(module, batch, noise, DONE)
    task = Task(INDEX, MASK, module.embed(INDEX))
    rollout = plugin().rollout(module, seen[0][0], lambda t, z: batch.action_HBA[t], task, noise)
    torch.testing.assert_close(seen[0], rollout.z_HBD[:-1])


# -- the alternatives to the default: parameterisation, source, what is trained from where -------

STOCHASTIC = {"source": "noise"}
every_parameterisation = pytest.mark.parametrize("name", PARAMETERISATIONS)


@pytest.mark.parametrize("solver", STAGES)
@pytest.mark.parametrize("substeps", [1, 4])
@every_parameterisation
@pytest.mark.parametrize("source", [{}, STOCHASTIC], ids=["latent", "noise"])
@torch.no_grad()
def test_latents_stay_on_the_simplex(solver, substeps, name, source):
    """Over 64 sub-steps of a field so strong that every action throws latents to another face."""
    module = build(solver, substeps, parameterisation=name, **source)
    module.dynamics[0].linear.weight[:, LATENT + 4 : LATENT + 7].normal_(std=30.0)  # the action's
    last = module.dynamics[-1]
    # The endpoint's head has a LayerNorm, which undoes any scale of the weights before it.
    (last.norm if name == "endpoint" else last).weight.mul_(100.0)
    z, _, task, _ = step_inputs(module)
    steps = 64 // substeps
    noise = torch.randn(steps, B, module.noise_dim)
    rollout = plugin().rollout(module, z, lambda t, z: torch.randn(B, 3), task, noise)
    groups = rollout.z_HBD.unflatten(-1, (-1, 8))
    assert (groups >= 0).all()
    torch.testing.assert_close(groups.sum(-1), torch.ones(steps + 1, B, 2), rtol=0, atol=1e-5)
    assert groups.diff(dim=0).abs().sum(-1).mean() > 0.2


TRAINED = [
    ({"train_solver": "rk4"}, ("rk4", 2)),
    ({"train_substeps": 3}, ("heun", 3)),
    ({"train_solver": "euler", "train_substeps": 1}, ("euler", 1)),
]


@pytest.mark.parametrize(("settings", "method"), TRAINED)
@pytest.mark.parametrize("variant", [{}, STOCHASTIC, {"endpoint_coef": 1.0}])
def test_training_is_solved_apart_from_prediction(settings, method, variant):
    """The loss is that of a model of which this is the one method; predictions are not."""
    (batch, noise), found = real_batch(), []
    ours = build("heun", 2, **settings, **variant)
    for module in (ours, build(*method, **variant), build("heun", 2, **variant)):
        z, action, task, _ = step_inputs(module)
        loss, _ = plugin().loss(module, batch, noise, DONE)
        grads = torch.autograd.grad(loss, list(module.parameters()))
        start = torch.randn(B, module.noise_dim)
        z_next = plugin().predict(module, z, action, task, start).state
        whole = plugin().rollout(module, z, lambda t, z, a=action: a, task, start[None]).z_HBD[-1]
        assert torch.equal(whole, z_next)
        found.append((loss, torch.cat([g.flatten() for g in grads]), z_next))
    (loss, grads, z_next), trained, predicted = found
    assert torch.equal(loss, trained[0])
    assert torch.equal(grads, trained[1])
    assert not torch.allclose(loss, predicted[0], rtol=1e-6)
    assert torch.equal(z_next, predicted[2])
    assert not torch.allclose(z_next, trained[2], atol=1e-4)


def test_evaluations_are_those_of_prediction():
    """And the loss makes as many as its own method needs, beside one for the whole path."""
    module = build("heun", 2, train_solver="midpoint", train_substeps=3)
    (batch, noise), (z, action, task, none) = real_batch(), step_inputs(module)
    passes = []
    module.dynamics.register_forward_pre_hook(lambda _, args: passes.append(args[0].dim()))
    plugin().predict(module, z, action, task, none)
    assert len(passes) == module.evaluations == 3
    passes.clear()
    plugin().loss(module, batch, noise, DONE)
    assert (passes.count(2), passes.count(3)) == (H * 2 * 3, 1)


@every_parameterisation
def test_a_perfect_field_has_no_loss_and_one_euler_step_is_exact(name):
    """Of the straight path, whose velocity does not depend on τ."""
    torch.manual_seed(0)
    field = PARAMETERISATIONS[name]
    z, target = (torch.randn(2, B, LATENT).unflatten(-1, (-1, 8)).softmax(-1)).flatten(-2)
    source, wanted = field.enter(z), field.enter(target)
    for tau in (0.0, 0.4, 1.0):
        x, remaining = (1 - tau) * source + tau * wanted, torch.full((B, 1), 1 - tau)
        output = target if name == "endpoint" else wanted - source + 0.3  # a group's mean is free
        residual = field.residual(output, x, remaining, wanted - source)
        torch.testing.assert_close(residual, torch.zeros_like(x), rtol=0, atol=1e-5)
        if tau < 1:
            velocity = field.velocity(output, x, 1 - tau)
            torch.testing.assert_close(velocity, centred(velocity), rtol=0, atol=1e-5)
            torch.testing.assert_close(
                field.leave(x + (1 - tau) * velocity), target, atol=1e-5, rtol=1e-4
            )


def test_a_random_source_and_the_solved_endpoint_exclude_each_other():
    with pytest.raises(ValueError, match="endpoint_coef must be 0"):
        plugin().Config(source="noise", endpoint_coef=1.0)
    for wrong in ({"parameterisation": "end"}, {"trained_from": "student"}, {"source": "z"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            plugin().Config(**wrong)


def test_the_loss_is_the_weighted_sum_of_its_two_errors():
    batch, noise = real_batch()

    def consistency(matching, endpoint):
        module = build(matching_coef=matching, endpoint_coef=endpoint)
        return plugin().loss(module, batch, noise, DONE)[1]["consistency"]

    both = 0.25 * consistency(1.0, 0.0) + 3.0 * consistency(0.0, 1.0)
    torch.testing.assert_close(consistency(0.25, 3.0), both)
    with pytest.raises(ValueError, match="must not both be 0"):
        build(matching_coef=0.0, endpoint_coef=0.0)


def test_without_flow_matching_the_time_is_not_drawn():
    assert build(matching_coef=0.0, endpoint_coef=1.0).loss_noise_dim == 0
    assert build().loss_noise_dim == 2


def test_sources_of_flow_matching():
    """Own predictions, recorded latents, or by the noise's sign one of them."""
    batch, noise = real_batch()
    seen = {}
    for kind in ("rollout", "teacher", "mixed"):
        module = build(trained_from=kind, tau="midpoint", substeps=1, solver="euler")
        calls = []
        module.dynamics.register_forward_pre_hook(lambda _, args, c=calls: c.append(args[0]))
        plugin().loss(module, batch, noise, DONE)
        (seen[kind],) = [x[..., :LATENT] for x in calls if x.dim() == 3]
    own = noise[..., 1:2] < 0
    assert own.any()
    assert not own.all()
    torch.testing.assert_close(seen["mixed"], torch.where(own, seen["rollout"], seen["teacher"]))
    task = Task(INDEX, MASK, module.embed(INDEX))
    recorded = module.encode(batch.obs_HBO, task.embedding_BE)
    torch.testing.assert_close(seen["teacher"], (recorded[:-1] + recorded[1:]) / 2)


def test_a_detached_velocity_has_another_gradient_and_the_same_value():
    batch, noise = real_batch()
    losses, grads = [], []
    for detach in (False, True):
        module = build(detach_velocity=detach)
        loss, _ = plugin().loss(module, batch, noise, DONE)
        losses.append(loss)
        grads.append(torch.autograd.grad(loss, list(module.encoder.parameters())))
    torch.testing.assert_close(*losses)
    assert not all(torch.allclose(a, b) for a, b in zip(*grads, strict=True))


def test_curvature_is_zero_for_a_straight_field_alone():
    module = build()
    z, action, task, noise = step_inputs(module)
    assert module.curvature(z, action, task, noise) > 1e-3
    fixed = simnorm(torch.randn(LATENT)).expand(B, -1)
    # The same end from everywhere: straight paths.
    module.dynamics.forward = lambda x: fixed
    assert module.curvature(z, action, task, noise) < 1e-8
    module = build(**STOCHASTIC)
    assert module.curvature(z, action, task, torch.randn(B, module.noise_dim)).shape == ()
