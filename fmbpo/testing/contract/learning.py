"""Checks of gradients and learning: the paths of gradients, and the effect of training."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator

import attrs
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from fmbpo.testing.contract.subject import (
    PolicySubject,
    Subject,
    WorldModelSubject,
    fixed_seed,
    generator,
    reached,
    varied,
    with_return,
)
from fmbpo.testing.contract.trained import LEAST_ORDER, LEAST_R2, LONGEST, ROWS, learned, train
from fmbpo.testing.outcomes import expect, expecting, some_of

_STEPS = 60
"""Adam steps on one example."""


def gradients_reach_the_inputs(subject: Subject) -> None:
    """The method is first-order: predictions have gradients with respect to latents and actions."""
    inputs, leaves = varied(subject.inputs())
    remedy = "remove detach(), no_grad, rounding and argmax on the path"
    for place, output in enumerate(subject.predict(inputs)[:2]):
        weighed = (output * torch.linspace(-1, 1, output.shape[-1]).to(output)).sum()
        found = dict(zip(leaves, reached(weighed, leaves.values()), strict=True))
        by_action, by_state = found.pop("action", True), any(found.values())
        for name, there in {"latent": by_state, "action": by_action}.items():
            expected = f"result {place} of `predict` has a gradient with respect to the {name}"
            expect(there, expected, remedy)


def gradients_are_exact(subject: Subject) -> None:
    """Gradients with respect to inputs and parameters equal finite differences in float64."""
    subject = attrs.evolve(subject, dtype=torch.float64)
    inputs, leaves = varied(subject.inputs(rows=2))
    tensors = list(leaves.values())
    rest, spec = tree_flatten(inputs)  # the leaves come first

    def predict(*x: Tensor) -> tuple[Tensor, ...]:
        given = [*x[: len(tensors)], *rest[len(tensors) :]]
        return subject.predict(tree_unflatten(given, spec))

    remedy = "look for custom backward functions, straight-through tricks and detached parts"
    with expecting("gradients with respect to the inputs equal finite differences", remedy):
        torch.autograd.gradcheck(predict, tensors)
    expected = "gradients with respect to the parameters equal finite differences"
    for name, found, wanted in _slopes(subject.module, lambda: subject.predict(inputs)):
        near = math.isclose(found, wanted, rel_tol=1e-3, abs_tol=1e-5)
        expect(near, expected, remedy, f"{found:.6g} in place of {wanted:.6g} for {name}")


def _slopes(
    module: nn.Module, results: Callable[[], Iterable[Tensor]]
) -> Iterator[tuple[str, float, float]]:
    """Each parameter's name, and the slope of the weighed results along a random direction of it:
    by its gradient, and by a central difference."""
    g = generator(0)
    weights = [torch.randn(x.shape, generator=g, dtype=x.dtype) for x in results()]

    def total() -> Tensor:
        return torch.stack([(w * x).sum() for w, x in zip(weights, results(), strict=True)]).sum()

    names, parameters = zip(*module.named_parameters(), strict=True)
    grads = torch.autograd.grad(total(), parameters, allow_unused=True)
    for name, parameter, grad in zip(names, parameters, grads, strict=True):
        step = 1e-6 * torch.randn(parameter.shape, generator=g, dtype=parameter.dtype)
        with torch.no_grad():
            parameter.add_(step)
            above = float(total())
            parameter.sub_(2 * step)
            below = float(total())
            parameter.add_(step)
        by_gradient = 0.0 if grad is None else float((grad * step).sum()) / 1e-6
        yield name, by_gradient, (above - below) / 2e-6


def loss_reaches_every_parameter(subject: Subject) -> None:
    """A parameter without a gradient never learns, and nothing else would reveal it."""
    names, parameters = zip(*subject.module.named_parameters(), strict=True)
    found = reached(subject.loss()[0], parameters)
    idle = [name for name, learns in zip(names, found, strict=True) if not learns]
    expected = "the loss has a gradient with respect to every parameter"
    expect(not idle, expected, "use the parameter, or remove it", f"none to {some_of(idle)}")


def frozen_is_frozen(subject: Subject) -> None:
    """``freeze`` stops every parameter; gradients still pass through to the inputs."""
    module, remedy = subject.module, "call fmbpo.nn.blocks.freeze(module)"
    before = [p.detach().clone() for p in module.parameters()]
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)  # as training would leave it

    def unmoved() -> bool:
        return all(map(torch.equal, before, module.parameters()))

    subject.component.freeze(module)
    expect(unmoved(), "`freeze` keeps the parameters' values", remedy, "it changes them")
    learning = [name for name, p in module.named_parameters() if p.requires_grad]
    found = f"{some_of(learning)} still learn"
    expect(not learning, "`freeze` stops every parameter", remedy, found)
    inputs, leaves = varied(subject.inputs())
    total = torch.stack([x.square().sum() for x in subject.predict(inputs)]).sum()
    expected = "gradients pass through a frozen module to its inputs"
    expect(all(reached(total, leaves.values())), expected, "no torch.no_grad, no detach")
    with torch.no_grad():
        subject.predict(inputs)
        subject.rollout()
    found = "a hook changed them"
    expect(unmoved(), "frozen parameters do not change", "change no parameter in a hook", found)
    torch.optim.AdamW(module.parameters(), lr=0.1).step()
    found = "it changed them, by gradients from before `freeze`"
    expect(unmoved(), "an optimiser does not change frozen parameters", remedy, found)


@torch.no_grad()
def loss_is_a_mean_over_rows(subject: Subject) -> None:
    """The loss does not depend on the batch size, which is a setting."""
    losses = []
    for copies in (1, 2):
        with fixed_seed(0):
            losses.append(subject.loss(subject.example(copies=copies))[0])
    once, twice = losses
    equal = torch.allclose(once, twice, rtol=1e-4, atol=1e-6)
    found = f"{float(once):.4g} and {float(twice):.4g}"
    expect(equal, "a batch with each row repeated has the same loss", "take the mean over B", found)


def loss_falls(subject: WorldModelSubject) -> str:
    """Sixty steps of Adam on one example lower its loss."""
    subject = attrs.evolve(subject, fresh=True)
    with fixed_seed(0):
        adam = torch.optim.Adam(subject.module.parameters(), 1e-2)
        losses = train(lambda _: subject.loss()[0], _STEPS, adam)
    first, last = losses[0], statistics.median(losses[-5:])
    expected = f"{_STEPS} Adam steps lower the loss of one example"
    remedy = "check the sign of the loss and of its gradient, and detached parts"
    found = f"{first:.6g} -> {last:.6g}"
    expect(math.isfinite(last) and last < first, expected, remedy, found)
    return found


def return_rises(subject: PolicySubject) -> str:
    """Sixty steps of Adam on one example raise its return, or hold it above that of a policy which
    learns from the loss's other terms alone. The loss itself may rise, as with a multiplier that
    learns."""
    before, after = (_return_after(subject, steps) for steps in (0, _STEPS))
    found = f"{before:.4g} -> {after:.4g}"
    if not after > before:
        alone = _return_after(subject, _STEPS, by_return=False)
        found = f"{found}, and {alone:.4g} without its gradient"
        expected = f"{_STEPS} Adam steps raise the return of one example, as far as its loss allows"
        expect(after > alone, expected, "check the sign of the loss and of its gradient", found)
    return found


def _return_after(subject: PolicySubject, steps: int, by_return: bool = True) -> float:
    """The mean return of a new policy's example after training on it; if not ``by_return``, the
    return and what imagination visits pass no gradient."""
    subject = attrs.evolve(subject, fresh=True)

    def loss(_: int) -> Tensor:
        imagined, *rest = subject.example()
        if not by_return:
            seen = imagined.rollout
            z_HBD, reward_HBR = seen.z_HBD.detach(), seen.reward_HBR.detach()
            held = seen._replace(z_HBD=z_HBD, reward_HBR=reward_HBR)
            imagined = with_return(imagined, Tensor.detach)._replace(rollout=held)
        return subject.loss((imagined, *rest))[0]

    with fixed_seed(0):
        if steps and loss(0).requires_grad:
            train(loss, steps, torch.optim.Adam(subject.module.parameters(), 1e-2))
        with torch.no_grad():
            return float(subject.example()[0].return_B.mean())


def predicted_latent_is_that_of_its_row(subject: WorldModelSubject) -> str:
    """The dynamics learn each row's next latent, not its present one or another row's: predicted
    latents are nearer to it than to those of other rows and actions."""
    measured = learned(subject)
    found = f"{measured.of_actions:.2f} with other actions, {measured.of_rows:.2f} with other rows"
    expect(
        measured.order >= LEAST_ORDER,
        f"after at most {LONGEST} steps on {ROWS} rows, a predicted latent is nearer to its row's "
        f"next latent than to that of another action or another row in {LEAST_ORDER} of the "
        "comparisons (chance: 0.5)",
        "let the target be the same row's next latent; check that term's sign and weight",
        found,
    )
    return f"{found}; needed: {LEAST_ORDER}"


def decoded_reward_follows_the_real_one(subject: WorldModelSubject) -> str:
    """Decoded rewards follow the real ones. In an earlier study, they stayed constant."""
    measured = learned(subject)
    found = f"R² {measured.r2:.2f}, standard deviation {measured.spread:.2g}"
    expect(
        measured.r2 >= LEAST_R2,
        f"after at most {LONGEST} steps on {ROWS} rows, decoded rewards explain the real ones "
        f"(R² of at least {LEAST_R2})",
        "use fmbpo.nn.two_hot.cross_entropy of `predict`'s logits and the same step's reward",
        found,
    )
    return f"{found}; needed: R² {LEAST_R2}"


def policys_input_is_cut(subject: PolicySubject) -> None:
    """As in PWM, the policy sees latents without gradient; the path through the world model is
    kept. Skipped if the settings have ``detach = false``."""
    if getattr(subject.config, "detach", True) is False:
        return
    inputs, leaves = varied(subject.inputs())
    rollout = subject.rollout(inputs)
    (seen,) = reached(rollout.action_HBA.sum(), leaves.values())
    expected = "in a rollout, the policy sees the latents without their gradient"
    expect(not seen, expected, "use fmbpo.nn.rollout.policy_rollout, or give it z.detach()")
    (through,) = reached(rollout.z_HBD[-1].sum(), leaves.values())
    expected = "the path through the world model is not cut"
    expect(through, expected, "detach the policy's input, not the partner's")


def gradients_pass_through_the_rollout(subject: PolicySubject) -> None:
    """Imagined latents and rewards have gradients with respect to the actor's parameters."""
    rollout = subject.rollout()
    logits = rollout.reward_HBR
    remedy = "pass the action itself to the partner, and return its answer unchanged"
    for name, end in (
        ("the last latent", rollout.z_HBD[-1].sum()),
        ("the predicted rewards", (logits * torch.linspace(-1, 1, logits.shape[-1])).sum()),
    ):
        found = any(reached(end, subject.module.parameters()))
        expect(found, f"{name} of a rollout has a gradient with respect to the parameters", remedy)


def loss_follows_the_return(subject: PolicySubject) -> None:
    """Higher rewards and a higher value beyond the horizon lower the actor's loss."""
    with torch.no_grad():
        imagined, *rest = subject.example()
    reward, value = (x.clone().requires_grad_() for x in (imagined.reward_HB, imagined.value_B))
    whole = imagined._replace(reward_HB=reward, value_B=value, return_B=reward.sum(0) + value)
    loss, _ = subject.loss((whole, *rest))
    grads: tuple[Tensor | None, ...] = (None, None)
    if loss.requires_grad:
        grads = torch.autograd.grad(loss, (reward, value), allow_unused=True)
    remedy = "minimise -(imagined.return_B / imagined.scale).mean()"
    for name, grad in zip(("rewards", "value at the horizon"), grads, strict=True):
        falls = grad is not None and bool((grad < 0).all())
        expect(falls, f"a higher {name} lowers the loss of every row", remedy)
