"""Checks of the hooks' values: shapes, spaces, purity, and ``rollout`` as repeated ``predict``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_leaves, tree_map_only

from fmbpo.base.metrics import FIELDS, GRAD_NORM
from fmbpo.hookspecs import Curved, Grows, OnSimplex, Rollout, Task
from fmbpo.nn import two_hot
from fmbpo.testing.contract.subject import (
    HORIZON,
    ROWS,
    ModelInputs,
    PolicySubject,
    Subject,
    WorldModelSubject,
    close,
    expect,
    expecting,
    fixed_seed,
    generator,
    varied,
    world,
)


def _shape(what: str, value: object, *wanted: int) -> None:
    found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
    remedy = "see the shapes in fmbpo/hookspecs.py"
    expect(found == list(wanted), f"{what} has shape {list(wanted)}", remedy, f"{found}")


def shapes_fit(subject: Subject) -> None:
    """Every hook's result has the shape that the engine expects."""
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
    kind, whole = f"a {type(rollout).__name__}", isinstance(rollout, Rollout)
    expect(whole, "`rollout` returns a Rollout", "see fmbpo/hookspecs.py", kind)
    _shape("`rollout`'s latents (H + 1 rows)", rollout.z_HBD, HORIZON + 1, *z.shape)
    _shape("`rollout`'s actions", rollout.action_HBA, HORIZON, ROWS, actions)
    _shape("`rollout`'s reward logits", rollout.reward_logits_HBR, HORIZON, ROWS, bins)


def precision_is_kept(subject: Subject) -> None:
    """A module in float64 computes in float64, so gradients and golden numbers can be checked."""
    subject = attrs.evolve(subject, dtype=torch.float64)
    values = [*subject.predict(subject.inputs()), *subject.rollout(), subject.loss()[0]]
    kinds = {value.dtype for value in values}
    remedy = "make new tensors with x.new_... or .to(x)"
    expect(kinds == {torch.float64}, "float64 in, float64 out", remedy, f"{kinds}")


def loss_and_metrics_are_numbers(subject: Subject) -> None:
    """The engine differentiates one number and logs the others without a graph."""
    loss, metrics = subject.loss()
    for name, value in {"`loss`": loss, **{f"metric {k!r}": v for k, v in metrics.items()}}.items():
        _shape(name, value)
        finite = torch.isfinite(value)
        expect(finite, f"{name} is finite", "look for a division or a logarithm of 0", f"{value}")
        expect(name == "`loss`" or not value.requires_grad, f"{name} has no graph", "detach it")
    taken = (FIELDS | {GRAD_NORM}) & metrics.keys()
    if isinstance(subject, WorldModelSubject):  # the names of a policy's get a prefix
        expected, found = "metrics have names of their own", f"metric {', '.join(sorted(taken))}"
        expect(not taken, expected, f"rename it: the record has {', '.join(sorted(taken))}", found)


@torch.no_grad()
def _all(subject: Subject, seed: int = 0) -> list[Tensor]:
    """All results of the hooks for the arguments of this seed."""
    inputs = subject.inputs(seed)
    rollout = subject.rollout(inputs, subject.noise(seed))
    loss = subject.loss(subject.example(seed))
    return tree_leaves((subject.predict(inputs), rollout, loss))


def _seeded(subject: Subject, seed: int) -> list[Tensor]:
    """``_all`` from one state of torch's generator: another check is there for random numbers."""
    with fixed_seed(0):
        return _all(subject, seed)


def has_no_randomness_of_its_own(subject: Subject) -> None:
    """The engine owns all randomness: equal noise gives equal results, so a run can be resumed."""
    use = "use its `noise` argument; declare the width as module."
    of_loss = f"{use}loss_noise_dim"
    if isinstance(subject, PolicySubject):
        of_loss = "compute it from its arguments alone: the imagined actions already carry noise"
    calls: dict[str, tuple[Callable[[], Any], str]] = {
        "predict": (lambda: subject.predict(subject.inputs()), f"{use}noise_dim"),
        "rollout": (subject.rollout, f"{use}noise_dim"),
        "loss": (subject.loss, of_loss),
    }
    for hook, (call, remedy) in calls.items():
        found = []
        for seed in (1, 2):
            with fixed_seed(seed), torch.no_grad():
                before = torch.get_rng_state()
                found.append(call())
                still = torch.equal(before, torch.get_rng_state())
                moved = "torch's generator moved"
                expect(still, f"`{hook}` draws no random number", remedy, moved)
        expected = f"equal arguments of `{hook}` give equal results"
        expect(close(*found), expected, remedy, "two different results")


def keeps_no_memory(subject: Subject) -> None:
    """A hook's result depends only on its arguments, not on earlier calls."""
    first, other, again = (_seeded(subject, seed) for seed in (0, 5, 0))
    equal = close(first, again) and close(other, _seeded(attrs.evolve(subject), 5))
    remedy = "keep no state between calls; a recurrent state belongs in the latent"
    expect(equal, "calls with other arguments do not change a result", remedy)


@torch.no_grad()
def noise_matters_where_declared(subject: Subject) -> None:
    """A module that declares noise is stochastic: noise without effect is a mistake."""
    width, inputs = subject.module.noise_dim, subject.inputs()
    one, two = (subject.predict(inputs._replace(noise=subject.inputs(s).noise)) for s in (0, 1))
    expected = f"noise of width {width} changes the prediction"
    expect(not width or not close(one, two), expected, "use it, or declare noise_dim = 0")


@torch.no_grad()
def loss_noise_matters_where_declared(subject: WorldModelSubject) -> None:
    """The engine draws noise for ``loss``: noise without effect is a mistake."""
    width, (batch, noise) = subject.module.loss_noise_dim, subject.example()
    one, two = (subject.loss((batch, x))[0] for x in (noise, subject.example(1)[1]))
    expected = f"noise of width {width} changes the loss"
    expect(not width or not close(one, two), expected, "use it, or declare loss_noise_dim = 0")


@torch.no_grad()
def leaves_its_arguments_alone(subject: Subject) -> None:
    """The engine uses its tensors again: a hook must not change them in place."""
    inputs, noise, example = subject.inputs(), subject.noise(), subject.example()
    # The partner returns the recorded action itself, so that a change of it is found.
    partner = (lambda *_: inputs.action) if isinstance(inputs, ModelInputs) else world
    held = [x for x in tree_leaves((inputs, noise, example)) if isinstance(x, Tensor)]
    kept = [x.clone() for x in held]
    for hook, call, arguments in (
        ("predict", subject.predict, (inputs,)),
        ("rollout", subject.rollout, (inputs, noise, partner)),
        ("loss", subject.loss, (example,)),
    ):
        call(*arguments)
        expected = f"`{hook}` does not change its arguments"
        expect(all(map(torch.equal, kept, held)), expected, "no x += ..., no x.add_(...)")


def stays_finite(subject: Subject) -> None:
    """Extreme inputs give finite numbers: one NaN would end the run of a whole grid."""
    for scale in (0.0, 1.0, 10.0, 100.0):
        inputs, leaves = varied(subject.inputs(scale=scale))
        found = subject.predict(inputs)
        total = torch.stack([x.sum() for x in found]).sum()
        expected = f"finite values and gradients of `predict` for inputs of scale {scale:g}"
        remedy = "bound the arguments of exponentials, and keep divisors away from 0"
        expect(_finite(total, leaves.values(), inputs.z, *found), expected, remedy)
        if not isinstance(subject, WorldModelSubject):
            continue
        batch, noise = subject.example()
        obs, reward = scale * batch.obs_HBO, scale * (batch.reward_HB - 1)
        loss, _ = subject.loss((batch._replace(obs_HBO=obs, reward_HB=reward), noise))
        expected = f"a finite loss and gradient for observations and rewards of scale {scale:g}"
        remedy = "rewards can be negative and large: fmbpo.nn.two_hot accepts any"
        expect(_finite(loss, subject.module.parameters()), expected, remedy)


def _finite(total: Tensor, inputs: Iterable[Tensor], *values: Tensor) -> bool:
    """Whether the 0-d ``total``, its gradients to the inputs, and the values are finite."""
    grads = torch.autograd.grad(total, list(inputs), allow_unused=True)
    return all(x is None or bool(torch.isfinite(x).all()) for x in (total, *grads, *values))


@torch.no_grad()
def rows_do_not_see_each_other(subject: Subject) -> None:
    """A row's latent and prediction depend on this row only: no statistics over the batch."""
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
    expect(
        _near([x[order] for x in together], turned) and _near([x[:1] for x in together], alone),
        "a row's latent and prediction do not depend on the other rows",
        "normalise over features (LayerNorm), not over the batch",
    )


def _near(a: object, b: object) -> bool:
    return close(a, b, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def rollout_is_repeated_predict(subject: Subject) -> None:
    """Policies are trained by ``rollout`` and act by ``predict``: both must be the same model."""
    inputs, noise = subject.inputs(), subject.noise()
    partner = subject.partner(inputs)
    rollout = subject.rollout(inputs, noise)
    starts = torch.equal(rollout.z_HBD[0], inputs.z)
    expect(starts, "a rollout begins with its start", "return z as the first latent")
    for t, z in enumerate(rollout.z_HBD[:-1]):
        if isinstance(inputs, ModelInputs):
            action = partner(t, z)
            following, logits = subject.predict(inputs._replace(z=z, action=action, noise=noise[t]))
        else:
            (action,) = subject.predict(inputs._replace(z=z, noise=noise[t]))
            following, logits = partner(t, z, action)
        # The action comes first, since the others depend on it.
        for name, a, b in (
            ("action", action, rollout.action_HBA[t]),
            ("latent", following, rollout.z_HBD[t + 1]),
            ("reward", logits, rollout.reward_logits_HBR[t]),
        ):
            expected = f"the rollout's {name} at step {t} is that of `predict` with noise[{t}]"
            remedy = "use fmbpo.nn.rollout, or step from the latent of the step before"
            expect(_near(a, b), expected, remedy, f"it is off by {(a - b).abs().max():.2g}")


@torch.no_grad()
def partner_is_asked_once_per_step(subject: Subject) -> None:
    """A rollout calls its partner with t = 0..H-1 in order, each time with the latent of step t."""
    inputs = subject.inputs()
    partner, times, latents = subject.partner(inputs), [], []

    def noting(t: int, z: Tensor, *action: Tensor) -> object:
        times.append(t)
        latents.append(z)
        return partner(t, z, *action)

    rollout = subject.rollout(inputs, partner=noting)
    expected = f"the partner is called with t = 0..{HORIZON - 1}"
    expect(times == [*range(HORIZON)], expected, "call it once per step, from t = 0", f"{times}")
    equal = all(map(torch.equal, latents, rollout.z_HBD))
    expect(equal, "the partner sees z[t] at step t", "pass the current latent")


@torch.no_grad()
def horizon_is_that_of_the_noise(subject: Subject) -> None:
    """H is the length of the noise, whatever its width: one more row gives one more step."""
    inputs, steps = subject.inputs(), HORIZON + 2
    noise = inputs.noise.new_zeros(steps, *inputs.noise.shape)
    found = len(subject.rollout(inputs, noise).action_HBA)
    remedy = "take H from len(noise)"
    expect(found == steps, f"{steps} rows of noise give {steps} steps", remedy, f"{found}")


@torch.no_grad()
def latent_stays_in_its_space(subject: WorldModelSubject) -> None:
    """Declared simplex latents stay on the simplex. In an earlier study, they left it by 17."""
    if not isinstance(subject.module, OnSimplex):
        return
    size, steps, inputs = subject.module.simplex_dim, 32, subject.inputs(scale=3.0)
    noise = torch.randn(steps, *inputs.noise.shape, generator=generator(0))
    rollout = subject.rollout(inputs, noise, lambda t, _: inputs.action * (-1) ** t)
    groups = rollout.z_HBD.reshape(steps + 1, len(inputs.z), -1, size)
    low, off = float(groups.min()), float((groups.sum(-1) - 1).abs().max())
    kept = low >= -1e-5 and off <= 1e-4
    expected = f"groups of {size} latent entries stay on the simplex over {steps} steps"
    remedy = "end the step in SimNorm, or project; a velocity's groups must sum to 0"
    expect(kept, expected, remedy, f"smallest entry {low:.2g}, a group's sum off by {off:.2g}")


@torch.no_grad()
def masked_actions_are_inert(subject: WorldModelSubject) -> None:
    """Padded action dimensions do not affect the model, or tasks would differ by their padding."""
    inputs, (batch, noise) = subject.inputs(), subject.example()
    mask, action = inputs.task.mask_BA, inputs.action
    other = torch.where(mask == 1, action, 50.0)
    filled = batch._replace(action_HBA=torch.where(mask == 1, batch.action_HBA, 50.0))
    plain, masked, moved = (
        subject.predict(inputs._replace(action=x)) for x in (action, other, -action)
    )
    losses = [subject.loss((b, noise))[0] for b in (batch, filled)]
    for hook, both in (("predict", (plain, masked)), ("loss", losses)):
        expected = f"values in masked action dimensions change nothing in `{hook}`"
        expect(close(*both), expected, "multiply the action by task.mask_BA first")
    expect(not torch.equal(moved[0], plain[0]), "actions change the next latent", "use the action")


@torch.no_grad()
def actions_are_bounded_and_masked(subject: PolicySubject) -> None:
    """Actions are in [-1, 1], and padded dimensions are exactly 0."""
    for scale in (1.0, 10.0):
        inputs = subject.inputs(scale=scale)
        mask = inputs.task.mask_BA
        (action,) = subject.predict(inputs)
        largest, remedy = float(action.abs().max()), "multiply the action by task.mask_BA"
        expect(largest <= 1, "actions are in [-1, 1]", "end in tanh", f"{largest:.3g}")
        expect(not action[mask == 0].any(), "masked dimensions are 0", remedy)
        expect(action[mask == 1].any(), "the other dimensions are used", remedy)


@torch.no_grad()
def task_is_told_by_its_embedding(subject: WorldModelSubject) -> None:
    """One model serves many tasks: the task's embedding changes its predictions."""
    inputs = subject.inputs()
    other = Task(*(x.roll(1, 0) for x in inputs.task))._replace(mask_BA=inputs.task.mask_BA)
    one, two = (subject.predict(inputs._replace(task=t))[0] for t in (inputs.task, other))
    differs, remedy = not torch.allclose(one, two), "give the dynamics task.embedding_BE"
    expect(differs, "different tasks give different predictions", remedy)


@torch.no_grad()
def curvature_is_a_mean_over_rows(subject: WorldModelSubject) -> None:
    """The report shows a flow's curvature: one number, not negative, whatever the batch size."""
    module = subject.module
    if not isinstance(module, Curved):
        return
    inputs = subject.inputs()
    both = tree_map_only(Tensor, lambda x: torch.cat([x, x]), inputs)
    found = [module.curvature(*some) for some in (inputs, both)]
    _is_a_measure("`curvature`", *found)


@torch.no_grad()
def growth_is_a_mean_over_rows(subject: PolicySubject) -> None:
    """The diagnostics record a gradient's growth: one positive number, whatever the batch size and
    the length of the vector; they map it over stacked parameters."""
    module: Any = subject.module
    if not isinstance(module, Grows):
        return
    inputs = subject.inputs()
    vector = torch.randn(inputs.task.mask_BA.shape, generator=generator(7)).to(inputs.noise)
    doubled = tree_map_only(Tensor, lambda x: torch.cat([x, x]), (*inputs, vector))
    longer = module.growth(*inputs, 10 * vector)
    found = [module.growth(*inputs, vector), module.growth(*doubled)]
    _is_a_measure("`growth`", *found)
    remedy = "divide by the norm of the vector"
    positive = bool(found[0] > 0)
    expect(positive, "`growth` is positive", "take a norm of the gradient", f"{found[0]}")
    expected = "`growth` does not depend on the vector's length"
    expect(_near(found[0], longer), expected, remedy, f"{found[0]} and {longer}")
    params = {f"module.{k}": torch.stack([p, p]) for k, p in subject.module.named_parameters()}
    call = _Growth(module)
    with expecting("`growth` maps over stacked parameters", "no .item(), no branch on data"):
        stacked = vmap(lambda own: functional_call(call, own, (*inputs, vector)))(params)
    equal = _near(stacked, torch.stack([found[0]] * 2))
    remedy = "read the parameters of the module that it is called on"
    expect(equal, "stacked parameters give the same `growth` as single ones", remedy)


class _Growth(nn.Module):
    """``growth`` as ``forward``, for ``functional_call``."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Any) -> Any:
        return self.module.growth(*arguments)


def _is_a_measure(name: str, one: Tensor, doubled: Tensor) -> None:
    """A finite 0-d number of at least 0, the same for each row twice."""
    _shape(f"{name}'s result", one)
    right = bool(torch.isfinite(one)) and float(one) >= 0
    remedy = "average squares over rows, and keep divisors away from 0"
    expect(right, f"{name} is finite and not negative", remedy, f"{one}")
    equal = close(one, doubled, rtol=1e-4, atol=1e-6)
    expected = f"{name} of each row twice is that of each row once"
    expect(equal, expected, "take the mean over rows, not the sum", f"{one} and {doubled}")
