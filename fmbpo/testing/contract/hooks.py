"""Checks of the hooks' values: shapes, purity, agreement of ``rollout`` with ``predict``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from fmbpo.hookspecs import Rollout
from fmbpo.nn import two_hot
from fmbpo.testing.contract.subject import (
    HORIZON,
    ROWS,
    ModelInputs,
    Subject,
    WorldModelSubject,
    broken,
    expect,
    fixed_seed,
    generator,
    varied,
    world,
)


def _shape(what: str, value: object, *wanted: int) -> None:
    found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
    remedy = "see the shapes in hookspecs.py"
    expect(found == list(wanted), f"{what} has shape {list(wanted)}", f"{found}", remedy)


def shapes_fit(subject: Subject) -> None:
    """Every hook's result has the shape that the engine stacks and compiles for."""
    actions, bins = subject.dims.action, two_hot.BINS
    for rows in (1, ROWS, 7):
        inputs = subject.inputs(rows=rows)
        found = subject.predict(inputs)
        if not isinstance(subject, WorldModelSubject):
            _shape("`predict`'s action", found[0], rows, actions)
            continue
        module, embedding = subject.module, inputs.task.embedding_BE
        _shape("`encode`'s result", inputs.z, rows, module.latent_dim)
        _shape("`embed`'s result", embedding, rows, module.task_dim)
        _shape("`predict`'s latent", found[0], rows, module.latent_dim)
        _shape("`predict`'s reward logits", found[1], rows, bins)
        z = module.encode(torch.zeros(HORIZON, rows, subject.dims.obs), embedding)
        _shape("`encode`'s result for [H, B, O]", z, HORIZON, rows, module.latent_dim)
    rollout, z = subject.rollout(), subject.inputs().z
    if not isinstance(rollout, Rollout):
        broken("`rollout` gives a Rollout", f"a {type(rollout).__name__}", "see hookspecs.py")
    _shape("`rollout`'s latents (H + 1 rows)", rollout.z_HBD, HORIZON + 1, *z.shape)
    _shape("`rollout`'s actions", rollout.action_HBA, HORIZON, ROWS, actions)
    _shape("`rollout`'s reward logits", rollout.reward_logits_HBR, HORIZON, ROWS, bins)


def precision_is_kept(subject: Subject) -> None:
    """A module in float64 computes in float64: gradients can be checked, golden numbers too."""
    subject = attrs.evolve(subject, dtype=torch.float64)
    values = [*subject.predict(subject.inputs()), *subject.rollout(), subject.loss()[0]]
    kinds = {value.dtype for value in values}
    remedy = "make new tensors with x.new_... or .to(x)"
    expect(kinds == {torch.float64}, "float64 in, float64 out", f"{kinds}", remedy)


def loss_and_metrics_are_numbers(subject: Subject) -> None:
    """The engine differentiates one number and logs the others without a graph."""
    loss, metrics = subject.loss()
    _shape("`loss`", loss)
    finite = torch.isfinite(loss)
    expect(finite, "a finite loss", f"{loss}", "look for a division or a logarithm of 0")
    for name, value in metrics.items():
        _shape(f"metric {name!r}", value)
        expect(not value.requires_grad, f"metric {name!r} has no graph", "it has one", "detach it")
        finite = torch.isfinite(value)
        expect(finite, f"metric {name!r} is finite", f"{value}", "look for a division by 0")


@torch.no_grad()
def _all(subject: Subject, seed: int = 0) -> list[Tensor]:
    """All results of the hooks for fixed arguments."""
    inputs = subject.inputs(seed)
    rollout = subject.rollout(inputs, subject.noise(seed))
    loss = subject.loss(subject.example(seed))
    return tree_leaves((subject.predict(inputs), rollout, loss))


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def has_no_randomness_of_its_own(subject: Subject) -> None:
    """The engine owns all randomness: without equal results for equal noise, no run could be
    resumed."""
    found, drawn = [], False
    for seed in (1, 2):
        with fixed_seed(seed):
            before = torch.get_rng_state()
            found.append(_all(subject))
            drawn |= not torch.equal(before, torch.get_rng_state())
    expect(
        not drawn and _same(*found),
        "equal arguments give equal results, and no random number is drawn",
        "torch's generator moved" if drawn else "two different results",
        "use the `noise` argument; declare its width as module.noise_dim",
    )


def keeps_no_memory(subject: Subject) -> None:
    """A hook's result depends on its arguments alone, not on earlier calls."""
    first, other, again = (_all(subject, seed) for seed in (0, 5, 0))
    unused = attrs.evolve(subject)
    expect(
        _same(first, again) and _same(other, _all(unused, 5)),
        "equal arguments give equal results",
        "another result after calls with other arguments",
        "keep no state between calls; a recurrent state belongs into the latent",
    )


@torch.no_grad()
def noise_matters_where_declared(subject: Subject) -> None:
    """A module that declares noise is stochastic: noise without effect is a mistake somewhere."""
    width, inputs = subject.module.noise_dim, subject.inputs()
    if not width:
        return
    one, two = (
        subject.predict(inputs._replace(noise=subject.inputs(seed).noise)) for seed in (0, 1)
    )
    expect(
        not _same([*one], [*two]),
        f"noise of width {width} changes the prediction",
        "it changes nothing",
        "use it, or declare noise_dim = 0",
    )


@torch.no_grad()
def loss_noise_matters_where_declared(subject: WorldModelSubject) -> None:
    """The engine draws noise for ``loss``: noise without effect is a mistake."""
    if not subject.module.loss_noise_dim:
        return
    batch, noise = subject.example()
    _, other = subject.example(1)
    one, two = (subject.loss((batch, x))[0] for x in (noise, other))
    expect(
        not torch.equal(one, two),
        f"noise of width {subject.module.loss_noise_dim} changes the loss",
        "it changes nothing",
        "use it, or declare loss_noise_dim = 0",
    )


@torch.no_grad()
def leaves_its_arguments_alone(subject: Subject) -> None:
    """The engine uses the same tensors again: an in-place change would silently spoil them."""
    inputs, noise, example = subject.inputs(), subject.noise(), subject.example()
    # The recorded action itself, so that a change of it shows.
    partner = (lambda *_: inputs.action) if isinstance(inputs, ModelInputs) else world
    calls: dict[str, Callable[[], object]] = {
        "predict": lambda: subject.predict(inputs),
        "rollout": lambda: subject.rollout(inputs, noise, partner),
        "loss": lambda: subject.loss(example),
    }
    held = [x for x in tree_leaves((inputs, noise, example)) if isinstance(x, Tensor)]
    kept = [x.clone() for x in held]
    for hook, call in calls.items():
        call()
        for before, after in zip(kept, held, strict=True):
            expect(
                torch.equal(before, after),
                f"`{hook}` leaves its arguments as they are",
                f"it changed one of shape {list(after.shape)}",
                "no x += ..., no x.add_(...)",
            )


def stays_finite(subject: Subject) -> None:
    """Extreme observations, latents and noise give extreme numbers, not NaN: one NaN would end
    the run of a whole grid."""
    for scale in (0.0, 1.0, 10.0, 100.0):
        inputs, leaves = varied(subject.inputs(scale=scale))
        found = subject.predict(inputs)
        total = torch.stack([x.sum() for x in found]).sum()
        expect(
            _finite(total, leaves.values(), inputs.z, *found),
            f"finite values and gradients of `predict` for inputs of scale {scale:g}",
            "some are not",
            "bound the arguments of exponentials, and the divisors",
        )
        if not isinstance(subject, WorldModelSubject):
            continue
        batch, noise = subject.example()
        obs, reward = scale * batch.obs_HBO, scale * (batch.reward_HB - 1)
        loss, _ = subject.loss((batch._replace(obs_HBO=obs, reward_HB=reward), noise))
        expect(
            _finite(loss, subject.module.parameters()),
            f"a finite loss and gradient for observations and rewards of scale {scale:g}",
            "some are not",
            "rewards can be negative and large: fmbpo.nn.two_hot takes any",
        )


def _finite(total: Tensor, inputs: Iterable[Tensor], *values: Tensor) -> bool:
    """Whether the 0-d ``total``, its gradients to the inputs, and the values are finite."""
    grads = torch.autograd.grad(total, list(inputs), allow_unused=True)
    return all(x is None or bool(torch.isfinite(x).all()) for x in (total, *grads, *values))


@torch.no_grad()
def rows_do_not_see_each_other(subject: Subject) -> None:
    """A row's latent and prediction depend on that row alone: no statistics over the batch."""
    rows = 6
    inputs = subject.inputs(rows=rows)
    order = torch.arange(rows).flip(0)

    def found(chosen: Tensor) -> tuple[Tensor, ...]:
        mine = tree_map_only(Tensor, lambda x: x[chosen], inputs)
        predicted = subject.predict(mine)
        if not isinstance(subject, WorldModelSubject):
            return predicted
        obs = torch.randn(rows, subject.dims.obs, generator=generator(1))[chosen]
        embedding = subject.module.embed(mine.task.index_B)
        return *predicted, embedding, subject.module.encode(obs, embedding)

    together, turned, alone = map(found, (torch.arange(rows), order, torch.arange(1)))
    for a, b, c in zip(together, turned, alone, strict=True):
        expect(
            _near(a[order], b) and _near(a[:1], c),
            "a row's latent and prediction are the same in any batch",
            "it depends on the other rows",
            "normalise over features (LayerNorm), not over the batch",
        )


def _near(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def rollout_is_repeated_predict(subject: Subject) -> None:
    """Policies are trained by rollouts and act by ``predict``: both must be the same model."""
    inputs, noise = subject.inputs(), subject.noise()
    partner = subject.partner(inputs)
    rollout = subject.rollout(inputs, noise)
    starts = torch.equal(rollout.z_HBD[0], inputs.z)
    expect(starts, "a rollout begins with its start", "another latent", "put z in front")
    for t, z in enumerate(rollout.z_HBD[:-1]):
        if isinstance(inputs, ModelInputs):
            action = partner(t, z)
            now = inputs._replace(z=z, action=action, noise=noise[t])
            following, logits = subject.predict(now)
        else:
            (action,) = subject.predict(inputs._replace(z=z, noise=noise[t]))
            following, logits = partner(t, z, action)
        # The action first: the others are consequences of it.
        for name, a, b in (
            ("action", action, rollout.action_HBA[t]),
            ("latent", following, rollout.z_HBD[t + 1]),
            ("reward", logits, rollout.reward_logits_HBR[t]),
        ):
            expect(
                _near(a, b),
                f"the rollout's {name} at step {t} is that of `predict` with noise[{t}]",
                f"it is off by {(a - b).abs().max():.2g}",
                "use fmbpo.nn.rollout, or step from the latent of the step before",
            )


@torch.no_grad()
def partner_is_asked_once_per_step(subject: Subject) -> None:
    """The partner of a rollout sees t = 0..H-1 in order, with the latent of that step."""
    inputs = subject.inputs()
    partner, times, latents = subject.partner(inputs), [], []

    def noting(t: int, z: Tensor, *action: Tensor) -> object:
        times.append(t)
        latents.append(z)
        return partner(t, z, *action)

    rollout = subject.rollout(inputs, partner=noting)
    expect(
        times == list(range(HORIZON)),
        f"the partner is called with t = 0..{HORIZON - 1}",
        f"{times}",
        "call it once per step, with t from 0",
    )
    equal = all(map(torch.equal, latents, rollout.z_HBD))
    expect(equal, "the partner sees z[t] at step t", "another latent", "pass the current latent")


@torch.no_grad()
def horizon_is_that_of_the_noise(subject: Subject) -> None:
    """H is the length of the noise, whatever its width: one step more noise, one step more."""
    inputs, steps = subject.inputs(), HORIZON + 2
    noise = inputs.noise.new_zeros(steps, *inputs.noise.shape)
    found = len(subject.rollout(inputs, noise).action_HBA)
    remedy = "take H from len(noise)"
    expect(found == steps, f"{steps} rows of noise give {steps} steps", f"{found}", remedy)
