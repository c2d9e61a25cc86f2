"""Checks of the hooks' values: shapes, spaces, purity, and ``rollout`` as repeated ``predict``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from fmbpo.base.metrics import FIELDS, GRAD_NORM
from fmbpo.hookspecs import Encodes, Rollout, Task
from fmbpo.nn.state import begin, latent
from fmbpo.protocols import OnSimplex
from fmbpo.pwm.optim import buffers_of, split
from fmbpo.pwm.pair import reward_dim
from fmbpo.testing.contract.subject import (
    HORIZON,
    ROWS,
    ModelInputs,
    PolicySubject,
    Subject,
    WorldModelSubject,
    close,
    fixed_seed,
    generator,
    near,
    varied,
    world,
)
from fmbpo.testing.outcomes import expect


def _shape(what: str, value: object, *wanted: int) -> None:
    found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
    remedy = "see the shapes in fmbpo/hookspecs.py"
    expect(found == list(wanted), f"{what} has shape {list(wanted)}", remedy, f"{found}")


def shapes_fit(subject: Subject) -> None:
    """Every hook's result has the shape that the engine expects."""
    actions = subject.dims.action
    for rows in (1, ROWS, 7):
        inputs = subject.inputs(rows=rows)
        found = subject.predict(inputs)
        if not isinstance(subject, WorldModelSubject):
            _shape("`predict`'s action", found[0], rows, actions)
            continue
        module, embedding = subject.module, inputs.task.embedding_BE
        width, rewards = module.latent_dim, reward_dim(module)
        _shape("the latent of an observation", latent(module, inputs[0]), rows, width)
        _shape("`embed`'s result", embedding, rows, module.task_dim)
        _shape("`predict`'s latent", found[0], rows, width)
        _shape("`predict`'s reward", found[1], rows, rewards)
        if isinstance(module, Encodes):
            z = module.encode(torch.zeros(HORIZON, rows, subject.dims.obs), embedding)
            _shape("`encode`'s result for [H, B, O]", z, HORIZON, rows, width)
    rollout, of_world = subject.rollout(), isinstance(subject, WorldModelSubject)
    width = subject.module.latent_dim if of_world else subject.inputs()[0].shape[-1]
    rewards = reward_dim(subject.module)
    kind, whole = f"a {type(rollout).__name__}", isinstance(rollout, Rollout)
    expect(whole, "`rollout` returns a Rollout", "see fmbpo/hookspecs.py", kind)
    _shape("`rollout`'s latents (H + 1 rows)", rollout.z_HBD, HORIZON + 1, ROWS, width)
    _shape("`rollout`'s actions", rollout.action_HBA, HORIZON, ROWS, actions)
    _shape("`rollout`'s rewards", rollout.reward_HBR, HORIZON, ROWS, rewards)
    for name, value in rollout.extras.items():
        _shape(f"`rollout`'s {name!r}", value, HORIZON, ROWS)


def precision_is_kept(subject: Subject) -> None:
    """A module in float64 computes in float64, so gradients and golden numbers can be checked."""
    subject = attrs.evolve(subject, dtype=torch.float64)
    values = tree_leaves((subject.predict(subject.inputs()), subject.rollout(), subject.loss()[0]))
    kinds = {value.dtype for value in values}
    remedy = "make new tensors with x.new_... or .to(x)"
    expect(kinds == {torch.float64}, "float64 in, float64 out", remedy, f"{kinds}")


def loss_and_metrics_are_numbers(subject: Subject) -> None:
    """The engine differentiates one number and logs the others without a graph."""
    loss, metrics = subject.loss()
    _, metrics = split(metrics, buffers_of(subject.module))
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
        of_loss = "use context.loss_noise_BN; declare its width as module.loss_noise_dim"
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
    remedy = "keep no state between calls; a model with memory is `Remembers` in fmbpo/protocols.py"
    expect(equal, "calls with other arguments do not change a result", remedy)


@torch.no_grad()
def noise_matters_where_declared(subject: Subject) -> None:
    """A module that declares noise is stochastic: noise without effect is a mistake."""
    width, inputs = subject.module.noise_dim, subject.inputs()
    one, two = (subject.predict(inputs._replace(noise=subject.inputs(s).noise)) for s in (0, 1))
    expected = f"noise of width {width} changes the prediction"
    expect(not width or not close(one, two), expected, "use it, or declare noise_dim = 0")


@torch.no_grad()
def loss_noise_matters_where_declared(subject: Subject) -> None:
    """The engine draws noise for ``loss``: noise without effect is a mistake."""
    width, of_policy = (
        getattr(subject.module, "loss_noise_dim", 0),
        subject.component.kind == "policy",
    )
    given, other, at = [*subject.example()], subject.example(1), 4 if of_policy else 1
    drawn = *given[:at], other[at], *given[at + 1 :]
    one, two = (subject.loss((*x,))[0] for x in (given, drawn))
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
        expect(_finite(total, leaves.values(), *tree_leaves(inputs[0]), *found), expected, remedy)
        if not isinstance(subject, WorldModelSubject):
            continue
        batch, *rest = subject.example()
        obs, reward = scale * batch.obs_HBO, scale * (batch.reward_HB - 1)
        loss, _ = subject.loss((batch._replace(obs_HBO=obs, reward_HB=reward), *rest))
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
        task = mine.task._replace(embedding_BE=embedding)
        return *predicted, embedding, *tree_leaves(begin(subject.module, obs, task))

    together, turned, alone = map(found, (torch.arange(rows), order, torch.arange(1)))
    expect(
        near([x[order] for x in together], turned) and near([x[:1] for x in together], alone),
        "a row's latent and prediction do not depend on the other rows",
        "normalise over features (LayerNorm), not over the batch",
    )


@torch.no_grad()
def rollout_is_repeated_predict(subject: Subject) -> None:
    """Policies are trained by ``rollout`` and act by ``predict``: both must be the same model."""
    inputs, noise = subject.inputs(), subject.noise()
    partner = subject.partner(inputs)
    rollout = subject.rollout(inputs, noise)
    first = latent(subject.module, inputs[0])
    starts = torch.equal(rollout.z_HBD[0], first)
    expect(starts, "a rollout begins with its start", "return z as the first latent")
    state = inputs[0]
    for t, z in enumerate(rollout.z_HBD[:-1]):
        if isinstance(inputs, ModelInputs):
            action = partner(t, z)
            given = inputs._replace(state=state, action=action, noise=noise[t])
            predicted = subject.component.predict(subject.module, *given)
            state, following = predicted.state, latent(subject.module, predicted.state)
        else:
            (action,) = subject.predict(inputs._replace(z=z, noise=noise[t]))
            predicted = partner(t, z, action)
            following = predicted.state
        # The action comes first, since the others depend on it.
        for name, a, b in (
            ("action", action, rollout.action_HBA[t]),
            ("latent", following, rollout.z_HBD[t + 1]),
            ("reward", predicted.reward_BR, rollout.reward_HBR[t]),
            *((k, v, rollout.extras.get(k, v + 1)[t]) for k, v in predicted.extras.items()),
        ):
            expected = f"the rollout's {name} at step {t} is that of `predict` with noise[{t}]"
            remedy = "use fmbpo.nn.rollout, or step from the latent of the step before"
            expect(near(a, b), expected, remedy, f"it is off by {(a - b).abs().max():.2g}")


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
    groups = rollout.z_HBD.reshape(steps + 1, len(inputs.action), -1, size)
    low, off = float(groups.min()), float((groups.sum(-1) - 1).abs().max())
    kept = low >= -1e-5 and off <= 1e-4
    expected = f"groups of {size} latent entries stay on the simplex over {steps} steps"
    remedy = "end the step in SimNorm, or project; a velocity's groups must sum to 0"
    expect(kept, expected, remedy, f"smallest entry {low:.2g}, a group's sum off by {off:.2g}")


@torch.no_grad()
def masked_actions_are_inert(subject: WorldModelSubject) -> None:
    """Padded action dimensions do not affect the model, or tasks would differ by their padding."""
    inputs, (batch, *rest) = subject.inputs(), subject.example()
    mask, action = inputs.task.mask_BA, inputs.action
    other = torch.where(mask == 1, action, 50.0)
    filled = batch._replace(action_HBA=torch.where(mask == 1, batch.action_HBA, 50.0))
    plain, masked, moved = (
        subject.predict(inputs._replace(action=x)) for x in (action, other, -action)
    )
    losses = [subject.loss((b, *rest))[0] for b in (batch, filled)]
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
