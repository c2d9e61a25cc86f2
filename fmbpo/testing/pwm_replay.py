"""PWM's and TD-MPC2's recorded computations, repeated by this engine and the MLP plugins.

``replay`` yields, for every array of a golden folder, the same array as this code computes it from
the folder's inputs and weights. Conventions: PWM's released behaviour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fmbpo.config.protocols import ModelOptimiser
from fmbpo.hookspecs import Imagined
from fmbpo.nn import two_hot
from fmbpo.nn.returns import td_lambda
from fmbpo.pwm.critic import ensemble_values
from fmbpo.pwm.optim import (
    Params,
    adam_step_,
    clip,
    flatten,
    gradient,
    linear_decay,
    unflatten,
)
from fmbpo.pwm.pair import HookCall
from fmbpo.pwm.policy import CellState, PolicyUpdate, Rates, ReturnScale
from fmbpo.pwm.start import Start
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate
from fmbpo.testing.pwm_golden import Arrays, Replay, pwm_actor, pwm_critics, pwm_model, under
from fmbpo.training.own_models import loss_settings
from fmbpo.training.trees import Tree, stack

_METRICS = ("actor_loss", "critic_loss", "actor_grad_norm", "critic_grad_norm")


def replay(folder: Path, config: Mapping[str, Any], dtype: torch.dtype) -> Arrays:
    """``(FILE/ARRAY, value)`` for every recorded output."""
    r = Replay(folder, config, dtype)
    noise = r.inputs["eps1"]
    for name, arrays in (
        ("math", _math(r)),
        ("wm_outputs", _wm_outputs(r)),
        ("actor_outputs", _actor_outputs(r)),
        ("actor_loss_det", _actor_loss(r, torch.zeros_like(noise))),
        ("actor_loss_sto", _actor_loss(r, noise)),
        ("actor_loss_sto_nodetach", _actor_loss(r, noise, detach=False)),
        ("actor_loss_sto_noretrms", _actor_loss(r, noise, scale_returns=False)),
        ("critic_loss", _critic_loss(r)),
        ("wm_loss_pwm", _wm_loss_pwm(r)),
        ("wm_loss_tdmpc2_rho099", _wm_loss_tdmpc2(r, 0.99)),
        ("wm_loss_tdmpc2_rho05", _wm_loss_tdmpc2(r, 0.5)),
        ("update", _update(r)),
        ("update_finetune", _update_finetune(r)),
    ):
        yield from under(f"{name}/", arrays)


def _math(r: Replay) -> Arrays:
    x, xs, logits = r.math["x"], r.math["xs"], r.math["logits"]
    bins = torch.linspace(-two_hot.BOUND, two_hot.BOUND, two_hot.BINS, dtype=r.dtype)
    yield "symlog_x", two_hot.symlog(x)
    yield "two_hot_x", two_hot.two_hot(x)
    yield "two_hot_roundtrip", two_hot.symexp((two_hot.two_hot(x) * bins).sum(-1, keepdim=True))
    yield "symexp_xs", two_hot.symexp(xs)
    yield "two_hot_inv_logits", two_hot.decode(logits).unsqueeze(-1)
    yield "almost_two_hot_inv_logits", two_hot.decode_symlog(logits).unsqueeze(-1)
    yield "soft_ce_logits_x12", two_hot.cross_entropy(logits, x[: len(logits)]).unsqueeze(-1)


@torch.no_grad()
def _wm_outputs(r: Replay) -> Arrays:
    first = r.wm.predict(r.model, r.z0, r.act[0], r.task, r.none[0])
    rollout = r.wm.rollout(r.model, r.z0, lambda t, _: r.act[t], r.task, r.none)
    logits = rollout.reward_HBR
    one = slice(1, 2)
    yield "encode_obs0", r.z0
    yield "encode_full", r.model.encode(r.obs, r.task.embedding_BE)
    yield "task_emb_weight_after", r.weights["task_embedding.weight"]
    yield "next0", first.state
    yield "reward0_logits", first.reward_BR
    yield "rollout_zs", rollout.z_HBD
    yield "rollout_reward_logits", logits
    yield "rollout_reward_logits_3d", r.model.reward_logits(rollout.z_HBD[:-1], r.act, r.task)
    yield "two_hot_inv", two_hot.decode(logits).unsqueeze(-1)
    yield "almost_two_hot_inv", two_hot.decode_symlog(logits).unsqueeze(-1)
    yield "encode_int_task", r.model.encode(r.obs[0][one], r.model.embed(r.index[one]))
    yield "act_deterministic", r.act_without_noise(r.z0)


@torch.no_grad()
def _actor_outputs(r: Replay) -> Arrays:
    z0, full = r.z0, r.model.encode(r.obs, r.task.embedding_BE)
    log_std = r.actor["log_std.value"]
    yield "z", z0
    yield "mu", r.mean(z0)
    yield "mu_tanh", r.act_without_noise(z0)
    yield "mu_full", r.mean(full)
    yield "sample_eps1_0", r.mean(z0) + log_std.exp() * r.inputs["eps1"][0]
    yield "logstd_clamped", log_std
    yield "critic_values_full", ensemble_values(r.critic, r.critics, full)


def _actor_loss(
    r: Replay, noise: Tensor, detach: bool = True, scale_returns: bool = True
) -> Arrays:
    policy = r.policy if detach else r.build_policy(detach=False)
    update = r.policy_update(policy, scale_returns=scale_returns)
    grads, (imagined, scale, metrics) = gradient(
        update.actor_loss, r.actor, r.critics, r.cell.scale, r.start(r.obs[0], noise), {}
    )
    grads = {k: g for k, g in grads.items() if g.any()}
    yield "loss", metrics["loss"]
    yield "grad_norm", clip(flatten(grads), 1.0)[1]
    yield from under("grad/", pwm_actor(grads))
    if not scale_returns:
        return
    yield "loss_raw", -imagined.return_B
    yield "loss_raw_mean", -imagined.return_B.mean()
    yield "ret_rms", _scale(scale)
    if not detach:
        return
    rollout = imagined.rollout
    z = rollout.z_HBD[:-1]
    next_value = ensemble_values(r.critic, r.critics, rollout.z_HBD[1:]).amin(0)
    yield "actions_pre_tanh", r.mean(z) + r.actor["log_std.value"].exp() * noise
    yield "actions", rollout.action_HBA
    yield "reward_logits", rollout.reward_HBR
    yield "z_last", rollout.z_HBD[-1]
    yield "obs_buf", z
    yield "rew_buf", imagined.reward_HB
    yield "next_values", next_value
    yield "target_values", update.targets({}, r.critics, imagined)
    yield "done_mask", torch.ones_like(next_value)  # one-step targets in PWM's terms
    if noise.any():
        return
    last = torch.zeros_like(next_value)
    last[-1] = 1.0
    for kind, done in (("last", last), ("random", r.random_done)):
        lam = r.learning.lam * (1.0 - done)  # PWM's mask ends the return
        targets = td_lambda(imagined.reward_HB, next_value, r.learning.discount, lam)
        yield f"tdlambda_done_{kind}/done_mask", done
        yield f"tdlambda_done_{kind}/target_values", targets


def _critic_loss(r: Replay) -> Arrays:
    _, z, target = _imagined(r, r.cell, r.start(r.obs[0], torch.zeros_like(r.inputs["eps1"])))
    grads, loss = _of_ensemble(r.policy_update(), r.critics, z, target)
    yield "obs", z
    yield "target_values", target
    yield "pred", ensemble_values(r.critic, r.critics, z)
    yield "loss", loss
    yield from under("grad/", pwm_critics(grads))


def _of_ensemble(
    update: PolicyUpdate, critics: Params, z: Tensor, target: Tensor
) -> tuple[Params, Tensor]:
    """Gradient and value of the mean of the critics' losses."""
    members = len(next(iter(critics.values())))
    inputs = [z.expand(members, *z.shape)], target.expand(members, *target.shape)
    grads, losses = gradient(partial(update.critic_loss, members), critics, *inputs, stacked=True)
    return grads, losses.mean()


def _imagined(r: Replay, cell: CellState, start: Start) -> tuple[Imagined, Tensor, Tensor]:
    """An imagined trajectory, its latents ``[H B, D]`` and their targets ``[H B]``."""
    update = r.policy_update()
    _, (imagined, _, _) = update.actor_loss(cell.policy, cell.critics, cell.scale, start, {})
    z = imagined.rollout.z_HBD[:-1].flatten(0, 1).detach()
    return imagined, z, update.targets({}, cell.critics, imagined).flatten().detach()


def _wm_loss_pwm(r: Replay) -> Arrays:
    settings = loss_settings(len(r.act), r.config["gamma"])
    call = HookCall(r.build(**settings), r.wm.loss)
    grads, metrics = gradient(call.with_params, r.weights, r.batch, r.none, r.begun)
    yield "total", metrics["loss"]
    yield "dynamics", metrics["consistency"]
    yield "reward", metrics["reward_loss"] * settings["reward_coef"]
    yield "grad_norm", clip(flatten(grads), 1.0)[1]
    yield from under("grad/", pwm_model(grads))


def _wm_loss_tdmpc2(r: Replay, rho: float) -> Arrays:
    c = r.config["tdmpc2"]
    module = r.build(rho=rho, consistency_coef=c["consistency_coef"], reward_coef=c["reward_coef"])
    module.project = lambda params: params  # recorded before the next look-up renormalises
    call = HookCall(module, r.wm.loss)
    grads, metrics = gradient(call.with_params, r.weights, r.batch, r.none, r.begun)
    yield "consistency_loss", metrics["consistency"]
    yield "reward_loss", metrics["reward_loss"]
    yield "total_loss", metrics["loss"]
    yield "grad_norm", clip(flatten(grads), 1.0)[1]
    rollout = r.wm.rollout(r.model, r.z0, lambda t, _: r.act[t], r.task, r.none)
    yield "soft_ce_per_step", two_hot.cross_entropy(rollout.reward_HBR, r.batch.reward_HB)
    yield from under("grad/", pwm_model(grads))
    optimiser = _optimiser(r, c["lr"], c["grad_clip_norm"], c["enc_lr_scale"])
    update = WorldModelUpdate(module, r.wm.loss, optimiser)
    rate = torch.tensor(c["lr"], dtype=r.dtype)
    state, _ = update(WorldModelState.initial(r.weights), r.batch, r.none, rate, r.begun)
    yield from under("after_step/", pwm_model(state.params))


def _update(r: Replay) -> Arrays:
    update, unclamped = r.policy_update(), r.policy_update(r.unclamped())
    state = stack([r.cell])
    for number, epoch, row in ((1, 0, 0), (2, 5000, 5)):
        rates = _rates(r, epoch)
        yield f"lrs{number}", _all_rates(r, epoch)[: number + 1]  # lrs1 has no model_lr
        start = r.start(r.obs[row], r.inputs[f"eps{number}"])
        cell = _only(state)
        imagined, z, target = _imagined(r, cell, start)
        critic_steps = list(_critic_steps(r, cell, z, target, rates))
        yield f"target_values{number}", target.view_as(imagined.reward_HB)
        yield f"loss_raw{number}", -imagined.return_B
        # PWM clamps the log standard deviation before its next use, this engine after the step.
        raw, _ = unclamped(state, stack([start]), rates)
        state, metrics = update(state, stack([start]), rates)
        after = _only(state)
        yield f"metrics{number}", torch.stack([metrics[name][0] for name in _METRICS])
        yield f"critic_losses{number}", torch.stack([loss for _, loss in critic_steps])
        yield f"ret_rms{number}", _scale(after.scale)
        yield from under(f"after{number}/actor/", pwm_actor(_only(raw).policy))
        yield from under(f"after{number}/", pwm_critics(after.critics))
        if number == 1:
            rows = len(z) // r.learning.critic_minibatches
            yield "minibatch_sizes1", torch.full((len(critic_steps),), rows)
            yield from under("after_critic_step1/", pwm_critics(critic_steps[0][0]))
            adam = after.policy_adam
            for suffix, moments in (("exp_avg", adam.first), ("exp_avg_sq", adam.second)):
                for name, value in pwm_actor(unflatten(moments, after.policy)):
                    yield f"adam1/actor/{name}/{suffix}", value
    yield "lr_schedule_epochs", r.epochs
    yield "lr_schedule", torch.stack([_all_rates(r, int(epoch)) for epoch in r.epochs])


def _critic_steps(
    r: Replay, cell: CellState, z: Tensor, target: Tensor, rates: Rates
) -> Iterator[tuple[Params, Tensor]]:
    """The critics after each critic step of the update, and the loss of the step."""
    learning, update = r.learning, r.policy_update()
    critics, adam = cell.critics, cell.critic_adam
    parts = (x.chunk(learning.critic_minibatches) for x in (z, target))
    for z_mini, target_mini in list(zip(*parts, strict=True)) * learning.critic_iterations:
        grads, loss = _of_ensemble(update, critics, z_mini, target_mini)
        flat, adam = flatten(critics, 1), adam.clone()
        clipped = clip(flatten(grads, 1).flatten(), learning.critic_grad_clip)[0].view_as(flat)
        adam_step_(flat, clipped, adam, rates.critic, learning.betas)
        critics = unflatten(flat, critics)
        yield critics, loss


def _update_finetune(r: Replay) -> Arrays:
    c = r.config
    module = r.build(**loss_settings(len(r.act), c["gamma"]))
    optimiser = _optimiser(r, c["model_lr"], c["wm_grad_norm"], 1.0)
    model_update = WorldModelUpdate(module, r.wm.loss, optimiser, stacked=True)
    rate = torch.tensor(c["model_lr"], dtype=r.dtype)
    model = stack([WorldModelState.initial(r.weights, stale_embedding=True)])
    model, of_model = model_update(model, stack([r.batch]), r.none[None], rate, r.begun)
    start = r.start(r.obs[0], r.inputs["eps1"])
    state, of_policy = r.policy_update(r.unclamped())(
        stack([r.cell]), stack([start]), _rates(r), model.params
    )
    name = "task_embedding.weight"  # PWM renormalises looked-up rows only
    weights, after = _only(model.params), _only(state)
    weights = r.with_rows(weights, weights[name], r.weights[name])
    yield from under("after/wm/", pwm_model(weights))
    yield from under("after/actor/", pwm_actor(after.policy))
    yield from under("after/", pwm_critics(after.critics))
    metrics = [of_policy[name] for name in _METRICS]
    metrics += [of_model["loss"], of_model["consistency"], of_model["reward_loss"] / len(r.act)]
    yield "metrics", torch.cat([*metrics, of_model["grad_norm"]])


def _optimiser(r: Replay, rate: float, clip: float, encoder_scale: float) -> ModelOptimiser:
    return ModelOptimiser(
        learning_rate=rate,
        final_learning_rate=rate,
        betas=r.config["wm_betas"],
        grad_clip=clip,
        encoder_scale=encoder_scale,
    )


def _all_rates(r: Replay, epoch: int) -> Tensor:
    """Learning rates of actor, critic and world model."""
    names, done = ("actor_lr", "critic_lr", "model_lr"), epoch / r.config["max_epochs"]
    return torch.tensor([linear_decay(r.config[k], 1e-5, done) for k in names], dtype=r.dtype)


def _rates(r: Replay, epoch: int = 0) -> Rates:
    return Rates(*_all_rates(r, epoch)[:2])


def _scale(scale: ReturnScale) -> Tensor:
    """PWM's ``ret_rms``: mean (of losses, hence the sign), variance and number."""
    return torch.stack([-scale.mean, scale.variance, scale.seen])


def _only(stacked: Tree) -> Tree:
    """The only cell of a stack."""
    cell: Tree = tree_map(lambda t: t[0], stacked)
    return cell
