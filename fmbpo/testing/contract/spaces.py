"""Checks of the spaces that latents and actions live in, and of masked action dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from fmbpo.hookspecs import Batch
from fmbpo.testing.contract.subject import HORIZON, Policy, Subject, WorldModel, broken


def latent_stays_in_its_space(subject: WorldModel) -> None:
    """A model that declares simplex latents keeps them there: an earlier study's left it by 17."""
    module = subject.module()
    size = getattr(module, "simplex_dim", 0)
    if not size:
        return
    inputs = subject.inputs(module, scale=3.0)
    z, action = inputs.z, inputs.action
    assert action is not None
    steps = 32
    noise = torch.randn(steps, *inputs.noise.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = subject.component.rollout(
            module, z, lambda t, _: action * (-1) ** t, inputs.task, noise
        ).z_HBD.unflatten(-1, (-1, size))
    low, off = float(found.min()), float((found.sum(-1) - 1).abs().max())
    if low < -1e-5 or off > 1e-4:
        broken(
            f"groups of {size} latent entries stay on the simplex over {steps} steps",
            f"smallest entry {low:.2g}, a group's sum off by {off:.2g}",
            "end the step in SimNorm, or project; a velocity's groups must sum to 0",
        )


def masked_actions_are_inert(subject: WorldModel) -> None:
    """Padded action dimensions must not reach the model: tasks would differ by their padding."""
    module = subject.module()
    inputs = subject.inputs(module)
    assert inputs.action is not None
    mask = inputs.task.mask_BA
    other = torch.where(mask == 1, inputs.action, 50.0)
    batch, noise = subject.batch(module), subject.loss_noise(module)
    filled = batch._replace(action_HBA=torch.where(mask == 1, batch.action_HBA, 50.0))

    def predicted(action: Tensor) -> tuple[Tensor, ...]:
        return subject.predict(module, inputs._replace(action=action))

    def lost(batch: Batch) -> tuple[Tensor, ...]:
        return (subject.component.loss(module, batch, noise)[0],)

    with torch.no_grad():
        plain = predicted(inputs.action)
        results = {
            "predict": (plain, predicted(other)),
            "loss": (lost(batch), lost(filled)),
        }
        moved = predicted(-inputs.action)
    for hook, pair in results.items():
        if not all(map(torch.equal, *pair)):
            broken(
                f"values in masked action dimensions change nothing in `{hook}`",
                "they do",
                "multiply the action by its mask before it is used",
            )
    if torch.equal(moved[0], plain[0]):
        broken("actions change the next latent", "they do not", "use the action")


def actions_are_bounded_and_masked(subject: Policy) -> None:
    """Actions lie in [-1, 1], and padded dimensions are exactly 0."""
    module = subject.module()
    for scale in (1.0, 10.0):
        inputs = subject.inputs(module, scale=scale)
        with torch.no_grad():
            (action,) = subject.predict(module, inputs)
        if (action.abs() > 1).any():
            broken(
                "actions lie in [-1, 1]",
                f"{float(action.abs().max()):.3g}",
                "end in tanh, or clamp smoothly",
            )
        if action[inputs.task.mask_BA == 0].any():
            broken("masked dimensions are 0", "they are not", "multiply the action by task.mask_BA")
        if not action[inputs.task.mask_BA == 1].any():
            broken("actions are used", "all are 0", "apply the mask the right way round")


def task_is_told_by_its_embedding(subject: WorldModel) -> None:
    """One model serves many tasks: the task must change what it predicts."""
    module = subject.module()
    inputs = subject.inputs(module)
    other = inputs.task._replace(
        index_B=inputs.task.index_B.roll(1), embedding_BE=inputs.task.embedding_BE.roll(1, 0)
    )
    with torch.no_grad():
        one, two = (
            subject.predict(module, inputs._replace(task=t))[0] for t in (inputs.task, other)
        )
    if torch.allclose(one, two):
        broken(
            "another task gives another prediction",
            "the same one",
            "put task.embedding_BE among the inputs of the dynamics",
        )


def horizon_is_that_of_the_noise(subject: Subject) -> None:
    """H is the length of the noise, whatever its width: one step more noise, one step more."""
    module = subject.module()
    inputs = subject.inputs(module)
    noise = inputs.noise.new_zeros(HORIZON + 2, *inputs.noise.shape)
    with torch.no_grad():
        if isinstance(subject, Policy):
            rollout = subject.rollout_from(module, inputs, noise)
        else:
            rollout = subject.component.rollout(
                module, inputs.z, lambda t, z: inputs.action, inputs.task, noise
            )
    if len(rollout.action_HBA) != HORIZON + 2:
        broken(
            f"{HORIZON + 2} rows of noise give {HORIZON + 2} steps",
            f"{len(rollout.action_HBA)}",
            "take H from len(noise)",
        )


CHECKS = (horizon_is_that_of_the_noise,)
WORLD_MODEL_CHECKS = (
    latent_stays_in_its_space,
    masked_actions_are_inert,
    task_is_told_by_its_embedding,
)
POLICY_CHECKS = (actions_are_bounded_and_masked,)
