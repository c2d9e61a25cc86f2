"""Faults of the earlier study that must not come back (algorithm.md, conventions), each a test."""

from collections import Counter

import attrs
import pytest
import torch
from batches import sample
from pairs import DONE, KINDS, OPTIMISER, PAIRS, B, H, batch, one_cell, params, problem, world_model

from fmbpo.config import load_experiment
from fmbpo.config.schema import DataConfig
from fmbpo.data.sampler import SliceSampler
from fmbpo.data.store import info
from fmbpo.hookspecs import Batch, Task
from fmbpo.measure.validation import OVERALL
from fmbpo.nn import two_hot
from fmbpo.nn.returns import td_lambda
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate
from fmbpo.tasks.mt30 import MT30
from fmbpo.training.context import Context
from fmbpo.training.dataset import load_dataset
from fmbpo.training.pretraining import Pretraining

RATE = torch.tensor(3e-3)
ROWS = 64


def synthetic(generator):
    """Sub-trajectories whose reward depends on the observation and the action."""
    obs = torch.randn(H + 1, ROWS, 24, generator=generator)
    action = torch.rand(H, ROWS, 6, generator=generator) * 2 - 1
    reward = 1 + torch.tanh(0.3 * obs[:-1, :, 0] + 2 * action[..., 0])
    index = torch.full((ROWS,), 1)
    return Batch(obs, action, reward, index, torch.ones(ROWS, 6), torch.zeros_like(reward))


def trained(kind, reward_loss):
    """A world model after 200 updates on synthetic rewards, its head starting at zero."""
    component, module = world_model(kind, reward_loss=reward_loss)
    torch.nn.init.zeros_(module.reward[-1].weight)
    optimiser = attrs.evolve(OPTIMISER, encoder_scale=1.0)
    update = WorldModelUpdate(module, component.loss, optimiser)
    state, generator = WorldModelState.initial(params(module)), torch.Generator().manual_seed(0)
    losses = []
    for _ in range(200):
        noise = torch.randn(H, ROWS, module.loss_noise_dim, generator=generator)
        state, metrics = update(state, synthetic(generator), noise, RATE, DONE)
        losses.append(float(metrics["reward_loss"]))
    module.load_state_dict(state.params)
    return module, synthetic(generator), losses


def decoded(module, batch):
    """Decoded rewards of real first steps, and their gradient to the action."""
    task = Task(batch.index_B, batch.mask_BA, module.embed(batch.index_B))
    action = batch.action_HBA[0].clone().requires_grad_()
    z = module.encode(batch.obs_HBO[0], task.embedding_BE)
    reward = two_hot.decode(module.reward_logits(z, action, task))
    return reward.detach(), torch.autograd.grad(reward.sum(), action)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_reward_head_learns(kind):
    module, batch, _ = trained(kind, "two_hot")
    reward, gradient = decoded(module, batch)
    error = (reward - batch.reward_HB[0]).square().mean()
    assert 1 - error / batch.reward_HB[0].var() > 0.9
    assert gradient.abs().mean() > 1e-2


@pytest.mark.parametrize("kind", ["mlp", pytest.param("flow", marks=pytest.mark.endurance)])
def test_pwms_reward_loss_teaches_nothing_while_its_loss_falls(kind):
    module, batch, losses = trained(kind, "logit_mse")
    reward, gradient = decoded(module, batch)
    assert losses[-1] < 0.2 * losses[0]
    assert reward.abs().max() < 1e-3
    assert gradient.abs().max() < 1e-3


def test_td_lambda_over_16_steps_is_not_one_step_and_has_its_closed_form():
    torch.manual_seed(0)
    horizon, gamma, lam = 16, 0.99, 0.95
    reward, value = torch.rand(horizon, B), 5 * torch.rand(horizon, B)
    targets = td_lambda(reward, value, gamma, torch.full_like(value, lam))
    assert not torch.allclose(targets[0], reward[0] + gamma * value[0], rtol=0.05)
    for t in range(horizon):
        steps = [
            sum(gamma**k * reward[t + k] for k in range(n)) + gamma**n * value[t + n - 1]
            for n in range(1, horizon - t + 1)
        ]
        mixed = sum((1 - lam) * lam**n * g for n, g in enumerate(steps[:-1]))
        mixed = mixed + lam ** (len(steps) - 1) * steps[-1]
        torch.testing.assert_close(targets[t], mixed)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_action_dimensions_change_nothing(kind):
    """Of a world model that is handed actions with anything in the padding; and they matter."""
    component, module = world_model(kind)
    real = batch()
    task = Task(real.index_B, real.mask_BA, module.embed(real.index_B))
    z = module.encode(real.obs_HBO[0], task.embedding_BE)
    padding = 100.0 * torch.randn(H, B, 6)
    none = torch.empty(H, B, 0)
    rollouts = []
    for filled in (real.action_HBA, torch.where(real.mask_BA == 1, real.action_HBA, padding)):
        rollouts.append(component.rollout(module, z, lambda t, _, a=filled: a[t], task, none))
        loss_noise = torch.zeros(H, B, module.loss_noise_dim)
        rollouts[-1] += (
            component.loss(module, real._replace(action_HBA=filled), loss_noise, DONE)[0],
        )
    (z1, _, r1, _, loss1), (z2, _, r2, _, loss2) = rollouts
    assert torch.equal(z1, z2)
    assert torch.equal(r1, r2)
    assert torch.equal(loss1, loss2)
    seen = task._replace(mask_BA=torch.ones_like(task.mask_BA))
    unmasked = component.rollout(module, z, lambda t, _: padding[t], seen, none)
    assert not torch.allclose(unmasked.z_HBD, z1)


@pytest.mark.parametrize(("world", "policy"), PAIRS)
def test_policies_leave_the_padding_at_zero(world, policy):
    update, states, starts = problem(world, policy, cells=1)
    state, start = one_cell((states, starts))
    _, (imagined, _, _) = update.actor_loss(state.policy, state.critics, state.scale, start, {})
    action = imagined.rollout.action_HBA
    assert not (action * (1 - start.mask_BA)).any()
    assert action.any()


def test_the_sampler_reaches_every_episode_once_an_epoch(small_store):
    data = load_dataset(DataConfig(path=str(small_store)), torch.device("cpu"))
    rows, size = data.train, 2
    sampler = SliceSampler(rows, 3, size, seed=0)
    assert len(rows.start_E) % size == 0
    for _ in range(3):
        seen = []
        for _ in range(len(rows.start_E) // size):
            drawn = sample(sampler)
            seen += drawn.index_B.tolist()
        tasks = rows.task_E.tolist()
        assert sorted(seen) == sorted(tasks)
    starts, on_host = [], rows.residence.on_host

    def spy(row, horizon):
        starts.extend(row.tolist())
        return on_host(row, horizon)

    rows.residence.on_host = spy
    for _ in range(len(rows.start_E) // size):
        sampler.next()
    episodes = [int(torch.searchsorted(rows.end_E, s, right=True)) for s in starts]
    assert sorted(episodes) == list(range(len(rows.start_E)))
    # As many of each task as the store's manifest counts, less the held-out ones.
    manifest = {MT30[t].index: n["all"] for t, n in info(small_store)["episodes"].items()}
    seen_tasks = Counter(rows.task_E[episodes].tolist())
    assert seen_tasks + Counter(data.held_out.task_E.tolist()) == manifest


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_world_model_is_that_of_the_held_out_episodes(kind, small_store, repository, tiny):
    """Neither the last one nor the one of the luckiest batch."""
    file = repository / f"experiments/phase8_pretrain_{kind}wm.toml"
    e = load_experiment(file, scale="laptop", data=str(small_store), overrides=tiny)
    data = load_dataset(e.data, torch.device("cpu"))
    stage = Pretraining(Context(e, data, torch.device("cpu")), 42)
    measure, scores = stage.validator, iter([9.0, 3.0, 1.0, 2.0])
    stage.validator = lambda *a: {**measure(*a), OVERALL: {"score": next(scores)}}
    stage.evaluate(0)
    weights = []
    for iteration in (1, 2, 3):
        stage.step(iteration)
        weights.append({k: v.clone() for k, v in stage.weights().items()})
        stage.evaluate(iteration)
    assert stage.best_step == 2
    assert all(torch.equal(stage.best[k], weights[1][k]) for k in stage.best)
    assert not all(torch.equal(weights[1][k], weights[2][k]) for k in stage.best)
