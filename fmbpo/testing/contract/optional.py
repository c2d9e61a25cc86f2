"""Checks of optional parts of the contract: memory, extras, real steps, critics, targets. A plugin
without such a part passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves

from fmbpo.hookspecs import CONTINUE, LOG_PROB, State, Task
from fmbpo.nn.state import begin, observe
from fmbpo.protocols import HasCritic, Remembers, SeesData, SetsTargets
from fmbpo.testing.contract.subject import (
    PolicySubject,
    WorldModelSubject,
    close,
    generator,
    reached,
    world,
)
from fmbpo.testing.outcomes import expect, expecting

_DRAWS = 4000
"""Actions by which a log-density is checked."""


@torch.no_grad()
def state_keeps_its_shapes(subject: WorldModelSubject) -> None:
    """A state has the same parts and shapes from ``begin``, ``observe`` and ``predict``: the engine
    stacks states, and records updates once."""
    module = subject.module
    if not isinstance(module, Remembers):
        return
    first, seen, obs, action, task = _observed(subject)
    noise = obs.new_zeros(len(obs), subject.module.noise_dim)
    predicted = subject.component.predict(module, first, action, task, noise).state
    wanted = _shapes(first)
    remedy = "return the same tuple or dictionary of tensors everywhere"
    for name, state in (("observe", seen), ("predict", predicted)):
        expected = f"`{name}`'s state has the parts and shapes of `begin`'s"
        expect(_shapes(state) == wanted, expected, remedy, f"{_shapes(state)}, not {wanted}")
    floating = all(x.is_floating_point() and x.shape[0] == len(obs) for x in tree_leaves(first))
    expect(floating, "a state's tensors are floating-point, [B, ...]", "one row per row of a batch")


@torch.no_grad()
def state_follows_the_observation(subject: WorldModelSubject) -> None:
    """After an observation, a state depends on it, on the action and on what came before."""
    module = subject.module
    if not isinstance(module, Remembers):
        return
    first, seen, obs, action, task = _observed(subject)
    before = module.begin(-obs, task)
    for what, other in (
        ("the observation", module.observe(first, action, -obs, task)),
        ("the action", module.observe(first, -action, obs, task)),
        ("the state before", module.observe(before, action, obs, task)),
    ):
        remedy = f"use {what} in `observe`"
        expect(not close(seen, other), f"`observe`'s state depends on {what}", remedy)
    unseen = action * task.mask_BA + 50.0 * (1 - task.mask_BA)
    inert = close(seen, module.observe(first, unseen, obs, task))
    expect(inert, "masked action dimensions change nothing in `observe`", "multiply by the mask")


def _observed(subject: WorldModelSubject) -> tuple[State, State, Tensor, Tensor, Task]:
    """A first state and the one that follows it, with observation, action and task."""
    batch, *_ = subject.example()
    task = Task(batch.index_B, batch.mask_BA, subject.module.embed(batch.index_B))
    action = batch.action_HBA[0]
    first = begin(subject.module, batch.obs_HBO[0], task)
    seen = observe(subject.module, first, action, batch.obs_HBO[1], task)
    return first, seen, batch.obs_HBO[1], action, task


def _shapes(state: State) -> tuple[object, ...]:
    leaves, spec = tree_flatten(state)
    return str(spec), *(list(x.shape) for x in leaves)


@torch.no_grad()
def continuing_is_a_learned_probability(subject: WorldModelSubject) -> None:
    """Imagined returns are weighted by ``extras["continue"]``: a probability and no logit, which
    the loss compares with real terminations."""
    inputs = subject.inputs(scale=10.0)
    predicted = subject.component.predict(subject.module, *inputs)
    found = predicted.extras.get(CONTINUE)
    if found is None:
        return
    low, high = float(found.min()), float(found.max())
    wanted, remedy = f"extras[{CONTINUE!r}] is in [0, 1]", "apply sigmoid to the logit"
    expect(low >= 0 and high <= 1, wanted, remedy, f"{low:.3g} to {high:.3g}")
    batch, *rest = subject.example()
    other = batch._replace(terminated_HB=1 - batch.terminated_HB)
    one, two = (subject.loss((x, *rest))[0] for x in (batch, other))
    remedy = "add the cross-entropy with 1 - batch.terminated_HB"
    expect(not close(one, two), "the loss depends on batch.terminated_HB", remedy)


@torch.no_grad()
def log_density_is_that_of_the_action(subject: PolicySubject) -> None:
    """``extras["log_prob"]`` is the log-density of the actions themselves, tanh included: over
    actions of one dimension, the density integrates to 1."""
    inputs = subject.inputs()
    if LOG_PROB not in subject.rollout(inputs).extras:
        return
    last = int(inputs.task.mask_BA.sum(1).argmin())  # a task with one action dimension
    many = torch.full((_DRAWS,), last)
    task = Task(*(x[many] for x in inputs.task))
    noise = torch.randn(1, _DRAWS, subject.module.noise_dim, generator=generator(3))
    given = inputs._replace(z=inputs.z[many], task=task)
    found = subject.rollout(given, noise.to(inputs.noise), partner=world)
    action, order = found.action_HBA[0].sum(-1).sort()
    density = found.extras[LOG_PROB][0, order].exp()
    mass = float(torch.trapezoid(density, action))
    remedy = "subtract the log-slope of tanh, and leave masked dimensions out"
    expected = f"the density exp(extras[{LOG_PROB!r}]) integrates to 1 over the actions"
    expect(abs(mass - 1) < 0.1, expected, remedy, f"{mass:.3g}")


def loss_learns_from_the_data(subject: PolicySubject) -> None:
    """A policy that asks for real steps uses them: drawing them costs time."""
    if not isinstance(subject.module, SeesData):
        return
    example: list[Any] = [*subject.example()]
    other = [*example[:5], example[5].roll(1, -1), -example[6], *example[7:]]
    one, two = (subject.loss((*given,))[0] for given in (example, other))
    remedy = "use context.real, or leave real_steps out"
    expect(not close(one, two), "the loss depends on the real steps", remedy)


def own_critic_is_a_function_of_rows(subject: PolicySubject) -> None:
    """A critic of the policy's own gives a value and an error per row, with gradients."""
    module = subject.module
    if not isinstance(module, HasCritic):
        return
    remedy = "see Critic in fmbpo/protocols.py"
    with expecting("`build_critic` builds a critic from hidden widths", remedy):
        critic = module.build_critic([16, 8])
    inputs = subject.inputs()
    z, action = inputs.z.clone().requires_grad_(), inputs.task.mask_BA.clone().requires_grad_()
    with expecting("the critic takes latents and actions", remedy):
        values = critic(z, action)
        errors = critic.error(z, action, torch.full_like(values, 2.0))
    for name, found in (("values", values), ("errors", errors)):
        right = list(found.shape) == [len(z)]
        expect(right, f"a critic's {name} have shape [{len(z)}]", remedy, f"{list(found.shape)}")
    for name, there in zip(("latents", "actions"), reached(values.sum(), (z, action)), strict=True):
        expect(there, f"a critic's values have a gradient with respect to the {name}", remedy)
    learns = all(reached(errors.mean(), critic.parameters()))
    expect(learns, "a critic's error has a gradient with respect to every parameter", remedy)
    near, far = (critic.error(z, action, values.detach() + off).mean() for off in (0.5, 5.0))
    expect(near < far, "a critic's error grows with the distance to its target", remedy)


@torch.no_grad()
def own_targets_follow_the_rewards(subject: PolicySubject) -> None:
    """Targets of the policy's own have a row per step, and grow with rewards and next values."""
    module = subject.module
    if not isinstance(module, SetsTargets):
        return
    imagined, *_ = subject.example()
    reward, value = imagined.reward_HB, torch.ones_like(imagined.reward_HB)
    found = module.targets(imagined, value, 0.99, 0.95)
    remedy = "see fmbpo.nn.returns.td_lambda"
    shape = list(found.shape)
    expect(shape == list(reward.shape), "`targets` are [H, B]", remedy, f"{shape}")
    for name, more in (
        ("rewards", module.targets(imagined._replace(reward_HB=reward + 1), value, 0.99, 0.95)),
        ("next values", module.targets(imagined, value + 1, 0.99, 0.95)),
    ):
        expect((more > found).all(), f"higher {name} raise every target", remedy)
