"""Quality of the actor's gradients: signal-to-noise ratio, norms by part, Jacobians of a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap
from torch.utils._pytree import tree_leaves, tree_map

from fmbpo.base.metrics import ACTION_NOISE, ESNR, GROWTH, grad_norm_of, jacobian
from fmbpo.hookspecs import State
from fmbpo.protocols import Grows
from fmbpo.pwm.acting import Actors
from fmbpo.pwm.optim import Params, gradient
from fmbpo.pwm.pair import HookCall, Pair
from fmbpo.pwm.policy import CellState, PolicyUpdate
from fmbpo.pwm.start import Start

PARTS = 4
"""Number of mini-batches for the variance of a gradient."""


def diagnose(
    update: PolicyUpdate,
    state: CellState,
    start: Start,
    models: Params,
    real_TA: Tensor,
    seed: int,
) -> dict[str, Tensor]:
    """Measures ``[T]``, one per cell. Changes no parameter and draws from no generator of the run.

    ``esnr``: ``signal_to_noise`` of the actor's gradient over mini-batches of the start states,
    left out if the batch has a single row. ``grad_norm/PART``: norms of its top-level parts.
    ``jacobian/...``: root mean squares over the batch of the Frobenius norms of the first imagined
    step's Jacobians, estimated by vector-Jacobian products with random normal vectors: of the next
    latent with respect to latent (of a model that remembers: the whole state) and action, and of
    the action with respect to latent and noise.
    ``growth``, if the policy is ``Grows``: the factor by which its sub-steps change the norm of
    such a vector. ``action_noise``: see ``Actors.action_noise``.
    """
    grads = _part_gradients(update, state, start, models)
    parts = next(iter(grads.values())).shape[1]
    found = {ESNR: signal_to_noise(grads)} if parts > 1 else {}
    for part in dict.fromkeys(name.split(".")[0] for name in grads):
        mine = [g.mean(1).flatten(1) for name, g in grads.items() if name.split(".")[0] == part]
        found[grad_norm_of(part)] = torch.cat(mine, 1).norm(dim=1)
    tasks = start.index_B[:, 0], start.mask_BA[:, 0]
    actors = Actors(update.pair, state.policy, models, *tasks)
    found[ACTION_NOISE] = actors.action_noise([start.past(update.pair.warm_up)], real_TA, seed)
    return {**found, **_jacobians(update.pair, state, start, models, seed)}


def _part_gradients(update: PolicyUpdate, state: CellState, start: Start, models: Params) -> Params:
    """The actor's gradient on each mini-batch: ``[T, PARTS, ...]``."""
    batch = start.index_B.shape[1]
    parts = min(PARTS, batch)
    size = batch // parts
    found = []
    for i in range(parts):
        some = start.of_rows(slice(i * size, (i + 1) * size))
        grads, _ = gradient(
            update.actor_loss, state.policy, state.critics, state.scale, some, models,
            stacked=True, buffers=update.buffers,
        )  # fmt: skip
        found.append({name: g for name, g in grads.items() if name not in update.buffers})
    return {name: torch.stack([g[name] for g in found], 1) for name in found[0]}


def signal_to_noise(grads: Params) -> Tensor:
    """``[T]`` expected signal-to-noise ratios ``|E g|² / Σ Var[g]`` of gradients ``[T, P, ...]`` on
    P > 1 mini-batches; 0 if the variance is 0.

    ``(|mean_P g|² - s / P) / s`` with the unbiased variance ``s``: the mean over P mini-batches
    still has a P-th of their noise, since ``E |mean_P g|² = |E g|² + Σ Var[g] / P``. Pure noise
    has a mean of 0, and single values of both signs. They are not clipped at 0: averages over
    iterations and cells would be too high again.
    """
    flat = torch.cat([g.flatten(2) for g in grads.values()], 2)
    spread = flat.var(1).sum(1)
    signal = flat.mean(1).square().sum(1) - spread / flat.shape[1]
    return torch.where(spread > 0, signal / spread.clamp(min=1e-30), torch.zeros_like(signal))


def _jacobians(
    pair: Pair, state: CellState, start: Start, models: Params, seed: int
) -> dict[str, Tensor]:
    grow = HookCall(pair.policy, lambda module, *args: module.growth(*args))
    generator = torch.Generator().manual_seed(seed)
    width = pair.world_model.latent_dim
    shape = (*start.index_B.shape, width + start.mask_BA.shape[-1])
    vectors = torch.randn(shape, generator=generator).to(start.obs_BO.device)

    def one(policy: Params, model: Params, start: Start, v: Tensor) -> dict[str, Tensor]:
        past = start.past(pair.warm_up)
        state, task = pair.behind(model, past, start.index_B, start.mask_BA)
        z = pair.latent(model, state)
        noise, model_noise = start.policy_noise_HBN[0], start.model_noise_HBN[0]
        found: Any = vjp(lambda z, n: pair.act(policy, z, task, n), z, noise)
        action, pull = found
        to_z, to_noise = pull(v[:, width:])

        def following(state: State, action: Tensor) -> Tensor:
            return pair.latent(model, pair.step(model, state, action, task, model_noise).state)

        found = vjp(following, state, action)
        next_to_state, next_to_action = found[1](v[:, :width])
        next_to_z = torch.cat([x.flatten(1) for x in tree_leaves(next_to_state)], 1)
        growth = {}
        if isinstance(pair.policy, Grows):
            growth[GROWTH] = grow.with_params(policy, z, task, noise, v[:, width:])
        return {
            **growth,
            jacobian("latent", "latent"): _rms(next_to_z),
            jacobian("action", "latent"): _rms(next_to_action),
            jacobian("latent", "action"): _rms(to_z),
            jacobian("noise", "action"): _rms(to_noise),
        }

    with torch.no_grad():
        found: Any = vmap(one)(state.policy, models, start, vectors)
    return dict(tree_map(Tensor.detach, found))


def _rms(rows: Tensor) -> Tensor:
    """``[B, N]`` -> root mean square of the rows' norms (0-d)."""
    return rows.square().sum(-1).mean().sqrt()
