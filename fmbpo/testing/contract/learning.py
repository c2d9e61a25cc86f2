"""Checks of gradients and learning: the paths of gradients, and the effect of training."""

from __future__ import annotations

import math
import statistics

import attrs
import torch
from torch import Tensor

from fmbpo.hookspecs import Batch, Task
from fmbpo.nn import two_hot
from fmbpo.testing.contract.subject import (
    ModelInputs,
    PolicySubject,
    Subject,
    WorldModelSubject,
    expect,
    expecting,
    fixed_seed,
    reached,
    varied,
)


def gradients_reach_the_inputs(subject: Subject) -> None:
    """The method is first-order: predictions have gradients with respect to latents and actions."""
    inputs, leaves = varied(subject.inputs())
    remedy = "remove detach(), no_grad, rounding and argmax on the path"
    for place, output in enumerate(subject.predict(inputs)):
        weighed = (output * torch.linspace(-1, 1, output.shape[-1]).to(output)).sum()
        for name, found in zip(leaves, reached(weighed, leaves.values()), strict=True):
            expected = f"result {place} of `predict` has a gradient with respect to the {name}"
            expect(found, expected, remedy)


def gradients_are_exact(subject: Subject) -> None:
    """Gradients with respect to inputs and parameters equal finite differences in float64."""
    subject = attrs.evolve(subject, dtype=torch.float64)
    inputs, leaves = varied(subject.inputs(rows=2))
    tensors = list(leaves.values())  # the first fields of the inputs

    def predict(*x: Tensor) -> tuple[Tensor, ...]:
        given = zip(inputs._fields, x[: len(tensors)], strict=False)
        return subject.predict(inputs._replace(**dict(given)))

    everything = [*tensors, *subject.module.parameters()]
    remedy = "look for custom backward functions, straight-through tricks and detached parts"
    for what, wanted in (("inputs", tensors), ("parameters", everything)):
        with expecting(f"gradients with respect to the {what} equal finite differences", remedy):
            torch.autograd.gradcheck(predict, wanted, fast_mode=what == "parameters")


def loss_reaches_every_parameter(subject: Subject) -> None:
    """A parameter without a gradient never learns, and nothing else would reveal it."""
    names, parameters = zip(*subject.module.named_parameters(), strict=True)
    found = reached(subject.loss()[0], parameters)
    idle = [name for name, learns in zip(names, found, strict=True) if not learns]
    expected = "the loss has a gradient with respect to every parameter"
    expect(not idle, expected, "use the parameter, or remove it", f"none to {_listed(idle)}")


def _listed(names: list[str], most: int = 4) -> str:
    """The first ``most`` names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
    found = f"{_listed(learning)} still learn"
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
    once, twice = (subject.loss(subject.example(copies=copies))[0] for copies in (1, 2))
    equal = torch.allclose(once, twice, rtol=1e-4, atol=1e-6)
    found = f"{float(once):.4g} and {float(twice):.4g}"
    expect(equal, "a batch with each row repeated has the same loss", "take the mean over B", found)


def loss_falls(subject: Subject) -> None:
    """Sixty steps of Adam on one example lower its loss and raise a policy's return."""
    subject = attrs.evolve(subject, fresh=True)
    before = _mean_return(subject)
    with fixed_seed(0):
        losses = _train(subject, 60, torch.optim.Adam(subject.module.parameters(), 1e-2))
    first, last = losses[0], min(losses[-5:])
    fallen = (first - last) / max(abs(first), 1e-6)
    expected = "60 Adam steps lower the loss of one example by at least 5 %"
    remedy = "check the sign of the loss, detached parts, and the scale of its terms"
    expect(math.isfinite(last) and fallen >= 0.05, expected, remedy, f"{first:.4g} -> {last:.4g}")
    after = _mean_return(subject)
    expected, remedy = "60 Adam steps on a policy's loss raise the return", "check the loss's sign"
    expect(after >= before, expected, remedy, f"{before:.4g} -> {after:.4g}")


def _train(
    subject: Subject,
    steps: int,
    adam: torch.optim.Adam,
    fixed: tuple[Batch, Tensor] | None = None,
) -> list[float]:
    """The loss at each Adam step, of ``fixed`` or of the subject's example at that step."""
    losses = []
    for _ in range(steps):
        loss, _ = subject.loss(fixed)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def _mean_return(subject: Subject) -> float:
    """The mean return of a policy's example; 0 for a world model."""
    if not isinstance(subject, PolicySubject):
        return 0.0
    return float(subject.example()[0].return_B.mean())


def _learned(subject: WorldModelSubject) -> tuple[float, ...]:
    """Measures of the first step of 64 rows, after at most 400 updates on them: the mean squared
    distance from a predicted latent to its row's next latent, and to those of other rows of the
    task; R² and the standard deviation of the decoded rewards. They are means over the second half
    of training, since they vary from update to update; training ends as soon as both checks pass by
    far."""
    if "learned" in subject.results:
        return subject.results["learned"]
    results, subject = subject.results, attrs.evolve(subject, fresh=True)
    batch, noise = subject.example(1, rows=64)
    adam = torch.optim.Adam(subject.module.parameters(), 3e-3)
    measured = []
    for _ in range(8):
        _train(subject, 50, adam, (batch, noise))
        measured.append(_measured(subject, batch))
        own, others, r2, _ = measured[-1]
        if own < 0.1 * others and r2 > 0.9:
            measured = measured[-1:]
            break
    columns = zip(*measured[-4:], strict=True)
    results["learned"] = tuple(statistics.fmean(column) for column in columns)
    return results["learned"]


@torch.no_grad()
def _measured(subject: WorldModelSubject, batch: Batch) -> tuple[float, ...]:
    module, rows = subject.module, len(batch.index_B)
    task = Task(batch.index_B, batch.mask_BA, module.embed(batch.index_B))
    z, z_next = (module.encode(batch.obs_HBO[t], task.embedding_BE) for t in (0, 1))
    still = z.new_zeros(rows, module.noise_dim)
    found, logits = subject.predict(ModelInputs(z, batch.action_HBA[0], task, still))
    apart = torch.cdist(found, z_next).square()
    same_row = torch.eye(rows, dtype=torch.bool)
    same_task = batch.index_B.unsqueeze(0) == batch.index_B.unsqueeze(1)
    distances = (float(apart[m].mean()) for m in (same_row, same_task & ~same_row))
    decoded, real = two_hot.decode(logits), batch.reward_HB[0]
    r2 = float(1 - (decoded - real).square().mean() / real.var())
    return (*distances, r2, float(decoded.std()))


def predicted_latent_is_that_of_its_row(subject: WorldModelSubject) -> None:
    """The dynamics learn each row's next latent, not its present one or another row's."""
    own, others, *_ = _learned(subject)
    expect(
        own < 0.25 * others,
        "after up to 400 steps on 64 rows, the mean squared distance from predicted latents to "
        "their row's next latent is less than a quarter of that to other rows' of the task",
        "let the target be the same row's next latent; check that term's sign and weight",
        f"{own:.2g} of {others:.2g}",
    )


def decoded_reward_follows_the_real_one(subject: WorldModelSubject) -> None:
    """Decoded rewards follow the real ones. In an earlier study, they stayed constant."""
    *_, r2, spread = _learned(subject)
    expected = "after up to 400 steps on 64 rows, decoded rewards explain the real ones (R² > 0.8)"
    remedy = "use fmbpo.nn.two_hot.cross_entropy of `predict`'s logits and the same step's reward"
    expect(r2 > 0.8, expected, remedy, f"R² {r2:.2f}, standard deviation {spread:.2g}")


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
    logits = rollout.reward_logits_HBR
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
        (imagined,) = subject.example()
    reward, value = (x.clone().requires_grad_() for x in (imagined.reward_HB, imagined.value_B))
    whole = imagined._replace(reward_HB=reward, value_B=value, return_B=reward.sum(0) + value)
    loss, _ = subject.loss((whole,))
    grads: tuple[Tensor | None, ...] = (None, None)
    if loss.requires_grad:
        grads = torch.autograd.grad(loss, (reward, value), allow_unused=True)
    remedy = "minimise -(imagined.return_B / imagined.scale).mean()"
    for name, grad in zip(("rewards", "value at the horizon"), grads, strict=True):
        falls = grad is not None and bool((grad < 0).all())
        expect(falls, f"a higher {name} lowers the loss of every row", remedy)
