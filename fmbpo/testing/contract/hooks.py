"""Checks of the hooks' values: shapes, purity, agreement of ``rollout`` with ``predict``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from fmbpo.hookspecs import Rollout
from fmbpo.nn import two_hot
from fmbpo.testing.contract.subject import (
    ACTION,
    HORIZON,
    OBS,
    ROWS,
    Inputs,
    Policy,
    Subject,
    WorldModel,
    broken,
    fixed_seed,
    world,
)


def _shape(what: str, value: Any, *wanted: int) -> None:
    found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
    if found != list(wanted):
        broken(f"{what} has shape {list(wanted)}", f"{found}", "see the shapes in hookspecs.py")


def shapes_fit(subject: Subject) -> None:
    """Every hook's result has the shape that the engine stacks and compiles for."""
    module = subject.module()
    width = module.latent_dim if isinstance(subject, WorldModel) else None
    for rows in (1, ROWS, 7):
        inputs = subject.inputs(module, rows)
        found = subject.predict(module, inputs)
        if width is None:
            _shape("`predict`'s action", found[0], rows, ACTION)
            continue
        _shape("`encode`'s result", inputs.z, rows, width)
        _shape("`embed`'s result", inputs.task.embedding_BE, rows, module.task_dim)
        _shape("`predict`'s latent", found[0], rows, width)
        _shape("`predict`'s reward logits", found[1], rows, two_hot.BINS)
        sequence = torch.zeros(HORIZON, rows, OBS)
        z = module.encode(sequence, inputs.task.embedding_BE)
        _shape("`encode`'s result for [H, B, O]", z, HORIZON, rows, width)
    rollout, z = subject.rollout(module), subject.inputs(module).z
    if not isinstance(rollout, Rollout):
        broken("`rollout` gives a Rollout", f"a {type(rollout).__name__}", "see hookspecs.py")
    _shape("`rollout`'s latents (H + 1 rows)", rollout.z_HBD, HORIZON + 1, *z.shape)
    _shape("`rollout`'s actions", rollout.action_HBA, HORIZON, ROWS, ACTION)
    logits = rollout.reward_logits_HBR
    _shape("`rollout`'s reward logits", logits, HORIZON, ROWS, two_hot.BINS)


def precision_is_kept(subject: Subject) -> None:
    """A module in float64 computes in float64: gradients can be checked, golden numbers too."""
    module = subject.module().double()
    predicted = subject.predict(module, subject.inputs(module))
    values = [*predicted, *subject.rollout(module), subject.loss(module)[0]]
    kinds = {value.dtype for value in values}
    if kinds != {torch.float64}:
        broken("float64 in, float64 out", f"{kinds}", "make new tensors with x.new_... or .to(x)")


def loss_and_metrics_are_numbers(subject: Subject) -> None:
    """The engine differentiates one number and logs the others without a graph."""
    module = subject.module()
    loss, metrics = subject.loss(module)
    _shape("`loss`", loss)
    if not torch.isfinite(loss):
        broken("a finite loss", f"{loss}", "look for a division or a logarithm of 0")
    for name, value in metrics.items():
        _shape(f"metric {name!r}", value)
        if value.requires_grad:
            broken(f"metric {name!r} has no graph", "it has one", "detach it")
        if not torch.isfinite(value):
            broken(f"metric {name!r} is finite", f"{value}", "look for a division by 0")


def _all(subject: Subject, module: Any, seed: int = 0) -> list[Tensor]:
    """Everything that the hooks give for fixed arguments."""
    with torch.no_grad():
        predicted = subject.predict(module, subject.inputs(module, seed=seed))
        return tree_leaves((predicted, subject.rollout(module, seed), subject.loss(module, seed)))


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def has_no_randomness_of_its_own(subject: Subject) -> None:
    """Same noise, same output: the engine owns all randomness, else runs cannot be resumed."""
    module, found = subject.module(), []
    for seed in (1, 2):
        with fixed_seed(seed):
            before = torch.get_rng_state()
            found.append(_all(subject, module))
            drawn = not torch.equal(before, torch.get_rng_state())
    if drawn or not _same(*found):
        broken(
            "equal arguments give equal results, and no random number is drawn",
            "torch's generator moved" if drawn else "two different results",
            "use the `noise` argument; declare its width as module.noise_dim",
        )


def keeps_no_memory(subject: Subject) -> None:
    """A hook's result depends on its arguments alone, not on what it was called with before."""
    module, unused = subject.module(), subject.module()
    first, other, again = (_all(subject, module, seed) for seed in (0, 5, 0))
    if not _same(first, again) or not _same(other, _all(subject, unused, 5)):
        broken(
            "equal arguments give equal results",
            "another result after calls with other arguments",
            "keep no state between calls; a recurrent state belongs into the latent",
        )


def noise_matters_where_declared(subject: Subject) -> None:
    """Who declares noise is stochastic; noise that changes nothing is a mistake somewhere."""
    module = subject.module()
    if not module.noise_dim:
        return
    inputs = subject.inputs(module)
    with torch.no_grad():
        one, two = (
            subject.predict(module, inputs._replace(noise=subject.inputs(module, seed=seed).noise))
            for seed in (0, 1)
        )
    if _same(list(one), list(two)):
        broken(
            f"noise of width {module.noise_dim} changes the prediction",
            "it changes nothing",
            "use it, or declare noise_dim = 0",
        )


def loss_noise_matters_where_declared(subject: WorldModel) -> None:
    """Noise that the engine draws for ``loss`` and that changes nothing is a mistake."""
    module = subject.module()
    if not module.loss_noise_dim:
        return
    batch = subject.batch(module)
    with torch.no_grad():
        one, two = (
            subject.component.loss(module, batch, subject.loss_noise(module, seed))[0]
            for seed in (0, 1)
        )
    if torch.equal(one, two):
        broken(
            f"noise of width {module.loss_noise_dim} changes the loss",
            "it changes nothing",
            "use it, or declare loss_noise_dim = 0",
        )


def _arguments(subject: Subject, module: Any, inputs: Inputs) -> dict[str, tuple[Any, ...]]:
    """What each hook that computes takes beside the module."""
    z, action, task, noise = inputs
    if isinstance(subject, WorldModel):
        return {
            "predict": inputs,
            "rollout": (z, lambda t, z: action, task, subject.noise(module, 0)),
            "loss": (subject.batch(module), subject.loss_noise(module)),
        }
    assert isinstance(subject, Policy)
    return {
        "predict": (z, task, noise),
        "rollout": (z, world, task, subject.noise(module, 0)),
        "loss": (subject.imagined(subject.rollout(module), task.mask_BA),),
    }


def leaves_its_arguments_alone(subject: Subject) -> None:
    """The engine uses the same tensors again: an in-place change would spoil them unseen."""
    module = subject.module()
    inputs = subject.inputs(module)
    with torch.no_grad():
        for hook, arguments in _arguments(subject, module, inputs).items():
            held = [x for x in tree_leaves((inputs, arguments)) if isinstance(x, Tensor)]
            kept = [x.clone() for x in held]
            getattr(subject.component, hook)(module, *arguments)
            for before, after in zip(kept, held, strict=True):
                if not torch.equal(before, after):
                    broken(
                        f"`{hook}` leaves its arguments as they are",
                        f"it changed one of shape {list(after.shape)}",
                        "no x += ..., no x.add_(...)",
                    )


def _finite(*values: Tensor | None) -> bool:
    return all(x is None or bool(torch.isfinite(x).all()) for x in values)


def stays_finite(subject: Subject) -> None:
    """Extreme observations, latents and noise give extreme numbers, not NaN: one would end the
    run of a whole grid."""
    module = subject.module()
    for scale in (0.0, 1.0, 10.0, 100.0):
        inputs = subject.inputs(module, scale=scale)
        with torch.enable_grad():
            varied = [x.clone().requires_grad_() for x in inputs.varied()]
            found = subject.predict(module, inputs.with_varied(varied))
            total = torch.stack([x.sum() for x in found]).sum()
            grads = torch.autograd.grad(total, varied, allow_unused=True)
        if not _finite(inputs.z, *found, *grads):
            broken(
                f"finite values and gradients of `predict` for inputs of scale {scale:g}",
                "some are not",
                "bound what is exponentiated or divided by",
            )
        if isinstance(subject, WorldModel):
            batch, noise = subject.batch(module), subject.loss_noise(module)
            obs, reward = scale * batch.obs_HBO, scale * (batch.reward_HB - 1)
            batch = batch._replace(obs_HBO=obs, reward_HB=reward)
            loss = subject.component.loss(module, batch, noise)[0]
            grads = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)
            if not _finite(loss, *grads):
                broken(
                    f"a finite loss and gradient for observations and rewards of scale {scale:g}",
                    "some are not",
                    "rewards can be negative and large: fmbpo.nn.two_hot takes any",
                )


def rows_do_not_see_each_other(subject: Subject) -> None:
    """A row's latent and prediction depend on that row alone: no statistics over the batch."""
    module, rows = subject.module(), 6
    inputs = subject.inputs(module, rows)
    obs = torch.randn(rows, OBS, generator=torch.Generator().manual_seed(1))
    order = torch.arange(rows).flip(0)

    def found(chosen: Tensor) -> tuple[Tensor, ...]:
        mine = tree_map_only(Tensor, lambda x: x[chosen], inputs)
        predicted = subject.predict(module, mine)
        if isinstance(subject, Policy):
            return predicted
        embedding = module.embed(mine.task.index_B)
        return *predicted, embedding, module.encode(obs[chosen], embedding)

    with torch.no_grad():
        together, turned, alone = map(found, (torch.arange(rows), order, torch.arange(1)))
    for a, b, c in zip(together, turned, alone, strict=True):
        near = torch.allclose(a[order], b, rtol=1e-4, atol=1e-5)
        if not near or not torch.allclose(a[:1], c, rtol=1e-4, atol=1e-5):
            broken(
                "a row's latent and prediction are the same in any batch",
                "it depends on the other rows",
                "normalise over features (LayerNorm), not over the batch",
            )


def rollout_is_repeated_predict(subject: Subject) -> None:
    """Policies are trained by rollouts and act by ``predict``: both must be the same model."""
    module = subject.module()
    with torch.no_grad():
        rollout = subject.rollout(module)
        if not torch.equal(rollout.z_HBD[0], subject.inputs(module).z):
            broken("a rollout begins with its start", "another latent", "put z in front")
        for t in range(HORIZON):
            wanted = subject.step(module, rollout, t, 0)
            found = rollout.z_HBD[t + 1], rollout.action_HBA[t], rollout.reward_logits_HBR[t]
            # The action first, of which the others are consequences.
            for name, place in (("action", 1), ("latent", 0), ("reward", 2)):
                a, b = wanted[place], found[place]
                if not torch.allclose(a, b, rtol=1e-4, atol=1e-5):
                    broken(
                        f"the rollout's {name} at step {t} is that of `predict` with noise[{t}]",
                        f"it is off by {(a - b).abs().max():.2g}",
                        "use fmbpo.nn.rollout, or step from the latent of the step before",
                    )


def partner_is_asked_once_a_step(subject: Subject) -> None:
    """The partner of a rollout sees t = 0..H-1 in order, with the latent of that step."""
    seen: list[Any] = []
    module = subject.module()
    with torch.no_grad():
        rollout = subject.rollout(module, seen=seen)
    times = [call[0] for call in seen]
    if times != list(range(HORIZON)):
        broken(
            f"the partner is called with t = 0..{HORIZON - 1}",
            f"{times}",
            "call it once a step, with t from 0",
        )
    if not all(torch.equal(call[1], rollout.z_HBD[call[0]]) for call in seen):
        broken("the partner sees z[t] at step t", "another latent", "hand it the current latent")


WORLD_MODEL_CHECKS = (loss_noise_matters_where_declared,)
CHECKS = (
    shapes_fit,
    precision_is_kept,
    loss_and_metrics_are_numbers,
    has_no_randomness_of_its_own,
    keeps_no_memory,
    noise_matters_where_declared,
    leaves_its_arguments_alone,
    stays_finite,
    rows_do_not_see_each_other,
    rollout_is_repeated_predict,
    partner_is_asked_once_a_step,
)
