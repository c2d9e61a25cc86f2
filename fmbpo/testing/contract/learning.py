"""Checks of gradients and learning: what flows where, and that it leads somewhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fmbpo.hookspecs import Task
from fmbpo.nn import two_hot
from fmbpo.testing.contract.subject import Policy, Subject, WorldModel, broken, fixed_seed, listed


def gradients_reach_the_inputs(subject: Subject) -> None:
    """First-order gradients are the method: latents and actions must have a gradient."""
    module = subject.module()
    inputs = subject.inputs(module)
    varied = [x.clone().requires_grad_() for x in inputs.varied()]
    outputs = subject.predict(module, inputs.with_varied(varied))
    names = ("latent", "action")
    for place, output in enumerate(outputs):
        weighed = (output * torch.linspace(-1, 1, output.shape[-1]).to(output)).sum()
        if not weighed.requires_grad:
            grads: tuple[Tensor | None, ...] = (None,) * len(varied)
        else:
            grads = torch.autograd.grad(weighed, varied, retain_graph=True, allow_unused=True)
        for name, grad in zip(names, grads, strict=False):
            if grad is None or not grad.any():
                broken(
                    f"result {place} of `predict` has a gradient to the {name}",
                    "it has none",
                    "remove detach(), no_grad, rounding and argmax on the way",
                )


def gradients_are_exact(subject: Subject) -> None:
    """Analytic gradients agree with finite differences in float64."""
    module = subject.module().double()
    inputs = subject.inputs(module, rows=2)
    varied = [x.clone().requires_grad_() for x in inputs.varied()]
    try:
        torch.autograd.gradcheck(
            lambda *x: subject.predict(module, inputs.with_varied(list(x))), varied
        )
    except (RuntimeError, ValueError) as error:
        broken(
            "gradients equal finite differences",
            str(error).strip().splitlines()[0],
            "look for custom backward functions, straight-through tricks and detached parts",
        )


def loss_reaches_every_parameter(subject: Subject) -> None:
    """A parameter without gradient never learns, and nothing else would say so."""
    module = subject.module()
    loss, _ = subject.loss(module)
    names, parameters = zip(*module.named_parameters(), strict=True)
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    idle = [n for n, g in zip(names, grads, strict=True) if g is None or not g.any()]
    if idle:
        broken(
            "the loss has a gradient to every parameter",
            f"none to {listed(idle)}",
            "use the parameter, or remove it",
        )


def frozen_is_frozen(subject: Subject) -> None:
    """Frozen parameters take no gradient and do not drift, and gradients still pass through."""
    module = subject.module()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)  # as training would leave it
    subject.component.freeze(module)
    learning = [name for name, p in module.named_parameters() if p.requires_grad]
    if learning:
        broken(
            "`freeze` stops every parameter",
            f"{listed(learning)} still learn",
            "call fmbpo.nn.blocks.freeze(module)",
        )
    before = [p.detach().clone() for p in module.parameters()]
    inputs = subject.inputs(module)
    varied = [x.clone().requires_grad_() for x in inputs.varied()]
    outputs = subject.predict(module, inputs.with_varied(varied))
    total = torch.stack([x.square().sum() for x in outputs]).sum()
    grads: tuple[Tensor | None, ...] = (None,) * len(varied)
    if total.requires_grad:
        grads = torch.autograd.grad(total, varied, allow_unused=True)
    if not all(g is not None and g.any() for g in grads):
        broken(
            "gradients pass through a frozen module to its inputs",
            "they do not",
            "freeze parameters alone: no torch.no_grad, no detach",
        )
    with torch.no_grad():
        subject.predict(module, inputs)
        subject.rollout(module)
    if not all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)):
        broken("frozen parameters stay", "they moved in a call", "change no parameter in a hook")
    torch.optim.AdamW(module.parameters(), lr=0.1).step()
    if not all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)):
        broken(
            "frozen parameters stay where an optimiser has them",
            "they moved: gradients from before `freeze` were left",
            "call fmbpo.nn.blocks.freeze(module), which drops them",
        )


def _train(subject: Subject, module: torch.nn.Module, steps: int, rate: float) -> list[float]:
    adam = torch.optim.Adam(module.parameters(), rate)
    losses = []
    for _ in range(steps):
        loss, _ = subject.loss(module)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        losses.append(float(loss.detach()))
    return losses


def loss_falls(subject: Subject) -> None:
    """Sixty steps of Adam on one example bring its loss down, and a policy's return up."""
    module = subject.module(fresh=True)
    before = _mean_return(subject, module)
    with fixed_seed(0):
        losses = _train(subject, module, 60, 1e-2)
    first, last = losses[0], min(losses[-5:])
    fallen = (first - last) / max(abs(first), 1e-6)
    if not math.isfinite(last) or fallen < 0.05:
        broken(
            "60 Adam steps lower the loss of one example by a twentieth or more",
            f"{first:.4g} -> {last:.4g}",
            "check the sign of the loss, detached parts, and the scale of its terms",
        )
    after = _mean_return(subject, module)
    if not after >= before:
        broken(
            "60 Adam steps on a policy's loss raise the return",
            f"{before:.4g} -> {after:.4g}",
            "the loss is minus the return: check its sign",
        )


def _mean_return(subject: Subject, module: torch.nn.Module) -> float:
    """Of a policy's fixed example; 0 for a world model."""
    if not isinstance(subject, Policy):
        return 0.0
    with torch.no_grad():
        mask = subject.inputs(module).task.mask_BA
        return float(subject.imagined(subject.rollout(module), mask).return_B.mean())


def _rewards(subject: WorldModel, module: torch.nn.Module, rows: int) -> tuple[Tensor, Tensor]:
    """Decoded first rewards of real rows and the real ones."""
    batch = subject.batch(module, seed=1, rows=rows)
    task = Task(batch.index_B, batch.mask_BA, module.embed(batch.index_B))  # type: ignore[operator]
    z = module.encode(batch.obs_HBO[0], task.embedding_BE)  # type: ignore[operator]
    noise = z.new_zeros(rows, int(module.noise_dim))  # type: ignore[arg-type]
    logits = subject.component.predict(module, z, batch.action_HBA[0], task, noise)[1]
    return two_hot.decode(logits), batch.reward_HB[0]


def decoded_reward_follows_the_real_one(subject: WorldModel) -> None:
    """The fault that destroyed an earlier study: a reward head whose decoded reward stays
    constant while its loss falls."""
    module, rows = subject.module(fresh=True), 64
    adam = torch.optim.Adam(module.parameters(), 1e-2)
    batch, noise = subject.batch(module, 1, rows), subject.loss_noise(module, 1, rows)
    for _ in range(200):
        loss, _ = subject.component.loss(module, batch, noise)
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        decoded, real = _rewards(subject, module, rows)
    r2 = float(1 - (decoded - real).square().mean() / real.var())
    if not r2 > 0.3:
        broken(
            "after 200 steps on 64 rows the decoded reward explains them (R² > 0.3)",
            f"R² {r2:.2f}, spread {float(decoded.std()):.2g} of {float(real.std()):.2g}",
            "use fmbpo.nn.two_hot.cross_entropy of `predict`'s logits and the same step's reward",
        )


def policys_input_is_cut(subject: Policy) -> None:
    """PWM cuts the gradient at the latent that the policy sees; the path through the world
    model stays. A setting ``detach = false`` may say otherwise."""
    if getattr(subject.config, "detach", True) is False:
        return
    module = subject.module()
    inputs = subject.inputs(module)
    z = inputs.z.clone().requires_grad_()
    rollout = subject.rollout_from(module, inputs._replace(z=z), subject.noise(module, 0))
    (seen,) = torch.autograd.grad(rollout.action_HBA.sum(), z, retain_graph=True, allow_unused=True)
    if seen is not None and seen.any():
        broken(
            "in a rollout the policy sees the latents without their gradient",
            "its actions have a gradient to the start",
            "use fmbpo.nn.rollout.policy_rollout, or give the policy z.detach()",
        )
    (through,) = torch.autograd.grad(rollout.z_HBD[-1].sum(), z, allow_unused=True)
    if through is None or not through.any():
        broken(
            "the path through the world model is not cut",
            "the last latent has no gradient to the first",
            "detach what the policy sees, not what the partner gets",
        )


CHECKS = (
    gradients_reach_the_inputs,
    gradients_are_exact,
    loss_reaches_every_parameter,
    frozen_is_frozen,
    loss_falls,
)
WORLD_MODEL_CHECKS = (decoded_reward_follows_the_real_one,)
POLICY_CHECKS = (policys_input_is_cut,)
