"""Checks of gradients and learning: what flows where, and that it leads somewhere."""

from __future__ import annotations

import math
from typing import NamedTuple

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
    """Analytic gradients agree with finite differences in float64, for inputs and parameters."""
    module = subject.module().double()
    inputs = subject.inputs(module, rows=2)
    varied = [x.clone().requires_grad_() for x in inputs.varied()]
    parameters = list(module.parameters())

    def predict(*x: Tensor) -> tuple[Tensor, ...]:
        return subject.predict(module, inputs.with_varied(list(x[: len(varied)])))

    for what, wanted in (("inputs", varied), ("parameters", [*varied, *parameters])):
        try:
            torch.autograd.gradcheck(predict, wanted, fast_mode=what == "parameters")
        except (RuntimeError, ValueError) as error:
            broken(
                f"gradients to the {what} equal finite differences",
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
    before = [p.detach().clone() for p in module.parameters()]
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)  # as training would leave it
    subject.component.freeze(module)
    if not all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)):
        broken("`freeze` leaves the parameters' values", "it changes them", "stop them, no more")
    learning = [name for name, p in module.named_parameters() if p.requires_grad]
    if learning:
        broken(
            "`freeze` stops every parameter",
            f"{listed(learning)} still learn",
            "call fmbpo.nn.blocks.freeze(module)",
        )
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


def loss_is_a_mean_over_rows(subject: Subject) -> None:
    """The batch's size is a setting: doubling a batch must not double the step."""
    module = subject.module()
    with torch.no_grad():
        once, twice = (subject.loss(module, copies=copies)[0] for copies in (1, 2))
    if not torch.allclose(once, twice, rtol=1e-4, atol=1e-6):
        broken(
            "the loss of a batch and of the batch taken twice are equal",
            f"{float(once):.4g} and {float(twice):.4g}",
            "take the mean over B",
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


class _Step(NamedTuple):
    """The first step of 64 rows after 400 updates on them."""

    found: Tensor
    """[64, D]: predicted next latents."""
    wanted: Tensor
    """[64, D]: the next observations' latents."""
    reward: Tensor
    real_reward: Tensor
    index_B: Tensor
    """Tasks of the rows."""


def _trained_step(subject: WorldModel) -> _Step:
    module, rows = subject.module(fresh=True), 64
    adam = torch.optim.Adam(module.parameters(), 3e-3)
    batch, noise = subject.batch(module, 1, rows), subject.loss_noise(module, 1, rows)
    for _ in range(400):
        loss, _ = subject.component.loss(module, batch, noise)
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        task = Task(batch.index_B, batch.mask_BA, module.embed(batch.index_B))
        z, z_next = (module.encode(batch.obs_HBO[t], task.embedding_BE) for t in (0, 1))
        still = z.new_zeros(rows, module.noise_dim)
        found, logits = subject.component.predict(module, z, batch.action_HBA[0], task, still)
    return _Step(found, z_next, two_hot.decode(logits), batch.reward_HB[0], batch.index_B)


def predicted_latent_is_that_of_its_row(subject: WorldModel) -> None:
    """The dynamics learn where each row goes: not to stay, nor where another row goes."""
    step = _trained_step(subject)
    apart = torch.cdist(step.found, step.wanted).square()
    same_row = torch.eye(len(apart), dtype=torch.bool)
    same_task = step.index_B.unsqueeze(0) == step.index_B.unsqueeze(1)
    own, others = (float(apart[m].mean()) for m in (same_row, same_task & ~same_row))
    if not own < 0.25 * others:
        broken(
            "after 400 steps on 64 rows the squared distance of predicted latents to their own "
            "row's next one is less than a quarter of that to other rows' of the task",
            f"{own:.2g} of {others:.2g}",
            "let the target be the latent of the next observation of the same row, and check the "
            "sign and weight of that term",
        )


def decoded_reward_follows_the_real_one(subject: WorldModel) -> None:
    """The fault that destroyed an earlier study: a reward head whose decoded reward stays
    constant while its loss falls."""
    step = _trained_step(subject)
    decoded, real = step.reward, step.real_reward
    r2 = float(1 - (decoded - real).square().mean() / real.var())
    if not r2 > 0.3:
        broken(
            "after 400 steps on 64 rows the decoded reward explains them (R² > 0.3)",
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


def gradients_pass_through_the_rollout(subject: Policy) -> None:
    """What is imagined has a gradient to the parameters through the world model: latents and
    predicted rewards alike. A cut one would leave the actor nothing to learn from."""
    module = subject.module()
    rollout = subject.rollout(module)
    logits = rollout.reward_logits_HBR
    ends = {
        "the last latent": rollout.z_HBD[-1].sum(),
        "the predicted rewards": (logits * torch.linspace(-1, 1, logits.shape[-1])).sum(),
    }
    for name, end in ends.items():
        grads: tuple[Tensor | None, ...] = ()
        if end.requires_grad:
            parameters = list(module.parameters())
            grads = torch.autograd.grad(end, parameters, retain_graph=True, allow_unused=True)
        if not any(g is not None and g.any() for g in grads):
            broken(
                f"{name} of a rollout has a gradient to the parameters",
                "it has none",
                "hand the partner the action itself, and return its answer as it is",
            )


def loss_follows_the_return(subject: Policy) -> None:
    """The actor is paid by rewards and by the value behind the horizon."""
    module = subject.module()
    inputs = subject.inputs(module)
    with torch.no_grad():
        rollout = subject.rollout(module)
    imagined = subject.imagined(rollout, inputs.task.mask_BA)
    parts = [x.clone().requires_grad_() for x in (imagined.reward_HB, imagined.value_B)]
    reward, value = parts
    whole = imagined._replace(reward_HB=reward, value_B=value, return_B=reward.sum(0) + value)
    loss, _ = subject.component.loss(module, whole)
    grads: tuple[Tensor | None, ...] = (None, None)
    if loss.requires_grad:
        grads = torch.autograd.grad(loss, parts, allow_unused=True)
    for name, grad in zip(("rewards", "value at the horizon"), grads, strict=True):
        if grad is None or not (grad < 0).all():
            broken(
                f"a higher {name} lowers the loss of every row",
                "it does not",
                "minimise -(imagined.return_B / imagined.scale).mean()",
            )


CHECKS = (
    gradients_reach_the_inputs,
    gradients_are_exact,
    loss_reaches_every_parameter,
    frozen_is_frozen,
    loss_is_a_mean_over_rows,
    loss_falls,
)
WORLD_MODEL_CHECKS = (predicted_latent_is_that_of_its_row, decoded_reward_follows_the_real_one)
POLICY_CHECKS = (
    policys_input_is_cut,
    gradients_pass_through_the_rollout,
    loss_follows_the_return,
)
