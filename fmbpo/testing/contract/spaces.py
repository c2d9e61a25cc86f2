"""Checks of the spaces of latents and actions, and of masked action dimensions."""

from __future__ import annotations

import torch

from fmbpo.hookspecs import OnSimplex, Task
from fmbpo.testing.contract.subject import (
    PolicySubject,
    WorldModelSubject,
    expect,
    generator,
)


@torch.no_grad()
def latent_stays_in_its_space(subject: WorldModelSubject) -> None:
    """A model that declares simplex latents keeps them there: in an earlier study one left the
    simplex by 17."""
    if not isinstance(subject.module, OnSimplex):
        return
    size, steps, inputs = subject.module.simplex_dim, 32, subject.inputs(scale=3.0)
    noise = torch.randn(steps, *inputs.noise.shape, generator=generator(0))
    rollout = subject.rollout(inputs, noise, lambda t, _: inputs.action * (-1) ** t)
    groups = rollout.z_HBD.reshape(steps + 1, len(inputs.z), -1, size)
    low, off = float(groups.min()), float((groups.sum(-1) - 1).abs().max())
    expect(
        low >= -1e-5 and off <= 1e-4,
        f"groups of {size} latent entries stay on the simplex over {steps} steps",
        f"smallest entry {low:.2g}, a group's sum off by {off:.2g}",
        "end the step in SimNorm, or project; a velocity's groups must sum to 0",
    )


@torch.no_grad()
def masked_actions_are_inert(subject: WorldModelSubject) -> None:
    """Padded action dimensions must not reach the model: tasks would differ by their padding."""
    inputs, (batch, noise) = subject.inputs(), subject.example()
    mask, action = inputs.task.mask_BA, inputs.action
    other = torch.where(mask == 1, action, 50.0)
    filled = batch._replace(action_HBA=torch.where(mask == 1, batch.action_HBA, 50.0))
    plain, masked, moved = (
        subject.predict(inputs._replace(action=x)) for x in (action, other, -action)
    )
    losses = [subject.loss((b, noise))[0] for b in (batch, filled)]
    results = {
        "predict": all(map(torch.equal, plain, masked)),
        "loss": torch.equal(*losses),
    }
    for hook, equal in results.items():
        expect(
            equal,
            f"values in masked action dimensions change nothing in `{hook}`",
            "they do",
            "multiply the action by its mask before you use it",
        )
    used = not torch.equal(moved[0], plain[0])
    expect(used, "actions change the next latent", "they do not", "use the action")


@torch.no_grad()
def actions_are_bounded_and_masked(subject: PolicySubject) -> None:
    """Actions lie in [-1, 1], and padded dimensions are exactly 0."""
    for scale in (1.0, 10.0):
        inputs = subject.inputs(scale=scale)
        mask = inputs.task.mask_BA
        (action,) = subject.predict(inputs)
        largest = float(action.abs().max())
        remedy = "end in tanh, or clamp smoothly"
        expect(largest <= 1, "actions lie in [-1, 1]", f"{largest:.3g}", remedy)
        remedy = "multiply the action by task.mask_BA"
        expect(not action[mask == 0].any(), "masked dimensions are 0", "they are not", remedy)
        remedy = "apply the mask the right way round"
        expect(action[mask == 1].any(), "actions are used", "all are 0", remedy)


@torch.no_grad()
def task_is_told_by_its_embedding(subject: WorldModelSubject) -> None:
    """One model serves many tasks: the task must change its predictions."""
    inputs = subject.inputs()
    other = Task(*(x.roll(1, 0) for x in inputs.task))._replace(mask_BA=inputs.task.mask_BA)
    one, two = (subject.predict(inputs._replace(task=t))[0] for t in (inputs.task, other))
    expect(
        not torch.allclose(one, two),
        "another task gives another prediction",
        "the same one",
        "put task.embedding_BE among the inputs of the dynamics",
    )
