"""Checks of the terms of a policy's loss beside the return: what they train.

A term that is a fault in most losses is sound in some, so these checks warn.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from fmbpo.hookspecs import Imagined, LossContext, Prediction, Real
from fmbpo.protocols import HasCritic, SeesData
from fmbpo.testing.contract.subject import (
    PolicyInputs,
    PolicySubject,
    generator,
    reached,
    with_return,
)
from fmbpo.testing.contract.trained import train
from fmbpo.testing.outcomes import doubt, some_of

_STEPS, _FARTHER = 60, 0.25
"""Adam steps without a return, and how much they may add to the mean squared distance from the
data's actions, which is at most 4. Sound policies add nothing, anchors that repel 0.5 or more."""


def only_the_return_moves_latents(subject: PolicySubject) -> None:
    """Beside the return, no term of the loss sends a gradient through the world model: it would
    steer imagination to latents in which the term is small. Skipped if the settings have
    ``detach = false``."""
    if getattr(subject.config, "detach", True) is False:
        return
    with torch.no_grad():
        imagined, context = subject.of_loss(subject.example())
    start, *later = imagined.rollout.z_HBD
    leaves = [z.requires_grad_() for z in later]
    rollout = imagined.rollout._replace(z_HBD=torch.stack([start, *leaves]))
    loss = _without_return(subject, imagined._replace(rollout=rollout), context)
    if any(reached(loss, leaves)):
        raise doubt(
            "a term beside the return has a gradient with respect to imagined latents",
            "the term is to change the actions in latents, as an anchor does; an objective of the "
            "latents themselves is sound",
            "give the term imagined.rollout.z_HBD.detach()",
        )


def other_parameters_learn_apart(subject: PolicySubject) -> str | None:
    """No term of the loss trains both the parameters that act and those that do not, which are a
    teacher or a multiplier: the teacher would be drawn to its student."""
    names, parameters = zip(*subject.module.named_parameters(), strict=True)
    (action,) = subject.predict(subject.inputs())
    acts = reached(_weighed(action), parameters)
    acting = [p for p, own in zip(parameters, acts, strict=True) if own]
    others = {n: p for n, p, own in zip(names, parameters, acts, strict=True) if not own}
    loss, _ = subject.loss()
    if not others or not loss.requires_grad:
        return None
    grads = torch.autograd.grad(loss, [*others.values()], create_graph=True, allow_unused=True)
    try:
        shared = [
            name
            for name, grad in zip(others, grads, strict=True)
            if grad is not None and any(reached(_weighed(grad), acting))
        ]
    except RuntimeError as error:  # an operation without a second derivative
        return f"not judged: {str(error).splitlines()[0]}"
    if shared:
        raise doubt(
            f"one term of the loss trains the policy and {some_of(shared)}, which `predict` does "
            "not use",
            "these are a teacher, a discriminator or a multiplier of the policy; a part that "
            "learns together with it (an encoder, a head on shared layers) is sound",
            "detach these in the term that trains the policy (fmbpo.nn.policy.action_error "
            "detaches its target), and the policy in the term that trains these",
        )
    return None


def data_do_not_repel(subject: PolicySubject) -> str | None:
    """Without a return to gain, a policy that sees data stays as near to the data's actions as it
    began: an anchor has the right sign."""
    if not isinstance(subject.module, SeesData):
        return None
    subject = attrs.evolve(subject, fresh=True)
    imagined, context = subject.of_loss(subject.example())
    real = _constant(context.real)
    task, z, wanted = context.task, real.z_HBD[0], real.action_HBA[0]

    def loss(seed: int) -> Tensor:
        noise = subject.noise(seed)
        rollout = subject.rollout(PolicyInputs(z, task, noise[0]), noise, _still)
        actions = rollout.action_HBA
        if isinstance(subject.module, HasCritic):
            actions = torch.cat([actions, actions[:1]])
        made = imagined._replace(rollout=rollout, action_HBA=actions)
        given = context._replace(noise_HBN=noise, real=real)
        return _without_return(subject, made, given)

    @torch.no_grad()
    def distance() -> float:
        (action,) = subject.predict(PolicyInputs(z, task, torch.zeros_like(subject.noise()[0])))
        own = task.mask_BA.sum(-1)
        return float(((action - wanted).square().sum(-1) / own).mean())

    before = distance()
    if not loss(0).requires_grad:
        return None
    train(loss, _STEPS, torch.optim.Adam(subject.module.parameters(), 1e-2))
    after = distance()
    found = f"squared distance {before:.2f} -> {after:.2f}"
    if after > before + _FARTHER:
        raise doubt(
            f"{_STEPS} Adam steps without a return drive actions away from the data's: {found}",
            "the policy is to stay near the data; one that leaves known actions on purpose is "
            "sound",
            "let the loss grow with the distance: check the sign of its weight",
        )
    return found


def _without_return(subject: PolicySubject, imagined: Imagined, context: LossContext) -> Tensor:
    """The loss if rewards and values are 0, whatever the policy does."""
    worthless = context._replace(values=lambda z, _: z.new_zeros(2, *z.shape[:-1]))
    found: tuple[Tensor, object] = subject.component.loss(
        subject.module, with_return(imagined, torch.zeros_like), worthless
    )
    return found[0]


def _weighed(x: Tensor) -> Tensor:
    """The sum (0-d) of ``x[...]`` with random weights."""
    return (torch.randn(x.shape, generator=generator(8)).to(x) * x).sum()


def _constant(real: Real) -> Real:
    """The first latent and action at every step, without rewards and ends."""
    return Real(
        real.z_HBD[:1].expand_as(real.z_HBD),
        real.action_HBA[:1].expand_as(real.action_HBA),
        torch.zeros_like(real.reward_HB),
        torch.zeros_like(real.terminated_HB),
    )


def _still(t: int, z: Tensor, action: Tensor) -> Prediction:
    """A world that no action moves."""
    return Prediction(z, torch.zeros_like(action[:, :1]))
