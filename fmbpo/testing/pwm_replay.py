"""PWM's and TD-MPC2's recorded computations, done again by this engine and the MLP plugins.

``replay`` yields, for every array of a golden folder, the same array as this code computes it from
the folder's inputs and weights. Conventions: PWM's released behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fmbpo.config.optimiser import ModelOptimiser
from fmbpo.nn import two_hot
from fmbpo.pwm.critic import ensemble_values
from fmbpo.pwm.optim import AdamState, Params, adam_step, clip, gradient, linear_decay
from fmbpo.pwm.pair import HookCall
from fmbpo.pwm.policy import CellState, Rates, ReturnScale, Start, td_lambda
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate
from fmbpo.testing.pwm_golden import Arrays, Replay, pwm_actor, pwm_critics, pwm_model
from fmbpo.training.own_models import loss_settings
from fmbpo.training.trees import stack


def replay(folder: Path, config: Mapping[str, Any], dtype: torch.dtype) -> Arrays:
    """``(FILE/ARRAY, value)`` for every recorded output."""
    r = Replay(folder, config, dtype)
    for name, arrays in (
        ("math", _math(r)),
        ("wm_outputs", _wm_outputs(r)),
        ("actor_outputs", _actor_outputs(r)),
        ("actor_loss_det", _actor_loss(r, torch.zeros_like(r.inputs["eps1"]))),
        ("actor_loss_sto", _actor_loss(r, r.inputs["eps1"])),
        ("actor_loss_sto_nodetach", _actor_loss(r, r.inputs["eps1"], detach=False)),
        ("actor_loss_sto_noretrms", _actor_loss(r, r.inputs["eps1"], scale_returns=False)),
        ("critic_loss", _critic_loss(r)),
        ("wm_loss_pwm", _wm_loss_pwm(r)),
        ("wm_loss_tdmpc2_rho099", _wm_loss_tdmpc2(r, 0.99)),
        ("wm_loss_tdmpc2_rho05", _wm_loss_tdmpc2(r, 0.5)),
        ("update", _update(r)),
        ("update_finetune", _update_finetune(r)),
    ):
        yield from ((f"{name}/{key}", value) for key, value in arrays)


def _math(r: Replay) -> Arrays:
    x, xs, logits = r.math["x"], r.math["xs"], r.math["logits"]
    bins = torch.linspace(two_hot.LOW, two_hot.HIGH, two_hot.BINS, dtype=r.dtype)
    yield "symlog_x", two_hot.symlog(x)
    yield "two_hot_x", two_hot.two_hot(x)
    yield "two_hot_roundtrip", two_hot.symexp((two_hot.two_hot(x) * bins).sum(-1, keepdim=True))
    yield "symexp_xs", two_hot.symexp(xs)
    yield "two_hot_inv_logits", two_hot.decode(logits).unsqueeze(-1)
    yield "almost_two_hot_inv_logits", two_hot.decode_symlog(logits).unsqueeze(-1)
    yield "soft_ce_logits_x12", two_hot.cross_entropy(logits, x[: len(logits)]).unsqueeze(-1)


@torch.no_grad()
def _wm_outputs(r: Replay) -> Arrays:
    z0 = r.model.encode(r.obs[0], r.task.embedding_BE)
    none = r.obs.new_zeros(len(r.act), len(r.index), 0)
    first = r.wm.predict(r.model, z0, r.act[0], r.task, none[0])
    rollout = r.wm.rollout(r.model, z0, lambda t, _: r.act[t], r.task, none)
    one = slice(1, 2)
    noise = torch.zeros_like(r.act[0])
    yield "encode_obs0", z0
    yield "encode_full", r.model.encode(r.obs, r.task.embedding_BE)
    yield "task_emb_weight_after", r.weights["task_embedding.weight"]
    yield "next0", first.z_BD
    yield "reward0_logits", first.reward_logits_BR
    yield "rollout_zs", rollout.z_HBD
    yield "rollout_reward_logits", rollout.reward_logits_HBR
    yield "rollout_reward_logits_3d", r.model.reward_logits(rollout.z_HBD[:-1], r.act, r.task)
    yield "two_hot_inv", two_hot.decode(rollout.reward_logits_HBR).unsqueeze(-1)
    yield "almost_two_hot_inv", two_hot.decode_symlog(rollout.reward_logits_HBR).unsqueeze(-1)
    yield "encode_int_task", r.model.encode(r.obs[0][one], r.model.embed(r.index[one]))
    act = HookCall(r.policy, r.pi.predict)
    yield "act_deterministic", act.with_params(r.actor, z0, r.task, noise)


@torch.no_grad()
def _actor_outputs(r: Replay) -> Arrays:
    z0 = r.model.encode(r.obs[0], r.task.embedding_BE)
    full = r.model.encode(r.obs, r.task.embedding_BE)
    std = r.actor["log_std.value"].exp()
    yield "z", z0
    yield "mu", r.mean(z0)
    act = HookCall(r.policy, r.pi.predict)
    yield "mu_tanh", act.with_params(r.actor, z0, r.task, torch.zeros_like(r.act[0]))
    yield "mu_full", r.mean(full)
    yield "sample_eps1_0", r.mean(z0) + std * r.inputs["eps1"][0]
    yield "logstd_clamped", r.actor["log_std.value"]
    yield "critic_values_full", ensemble_values(r.critic, r.critics, full)


def _actor_loss(
    r: Replay, noise: Tensor, detach: bool = True, scale_returns: bool = True
) -> Arrays:
    policy = r.policy if detach else r.build_policy(detach=False)
    update = r.policy_update(policy, scale_returns=scale_returns)
    scale = ReturnScale.initial(r.obs)
    start = r.start(r.obs[0], noise)
    leaves = {k: v.detach().requires_grad_() for k, v in r.actor.items()}
    loss, (imagined, scale, _) = update.actor_loss(leaves, r.critics, scale, start, {})
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    named = {k: g for k, g in zip(leaves, grads, strict=True) if g is not None and g.any()}
    yield "loss", loss
    yield "grad_norm", clip(named, 1.0)[1]
    yield from ((f"grad/{pwm_actor(k)}", g) for k, g in named.items())
    if not scale_returns:
        return
    yield "loss_raw", -imagined.return_B
    yield "loss_raw_mean", -imagined.return_B.mean()
    yield "ret_rms", torch.stack([-scale.mean, scale.variance, scale.seen])
    if not detach:
        return
    rollout = imagined.rollout
    z, last = rollout.z_HBD[:-1], rollout.z_HBD[-1]
    next_value = ensemble_values(r.critic, r.critics, rollout.z_HBD[1:]).amin(0)
    yield "actions_pre_tanh", r.mean(z) + r.actor["log_std.value"].exp() * noise
    yield "actions", rollout.action_HBA
    yield "reward_logits", rollout.reward_logits_HBR
    yield "z_last", last
    yield "obs_buf", z
    yield "rew_buf", imagined.reward_HB
    yield "next_values", next_value
    yield "target_values", update.targets(r.critics, imagined)
    yield "done_mask", torch.ones_like(next_value)  # what one-step targets are in PWM's terms
    if noise.any():
        return
    last = torch.zeros_like(next_value)
    last[-1] = 1.0
    for kind, done in (("last", last), ("random", r.random_done)):
        lam = r.learning.lam * (1.0 - done)  # a return ends where PWM's mask says so
        targets = td_lambda(imagined.reward_HB, next_value, r.learning.discount, lam)
        yield f"tdlambda_done_{kind}/done_mask", done
        yield f"tdlambda_done_{kind}/target_values", targets


def _flat(r: Replay, noise: Tensor) -> tuple[Tensor, Tensor]:
    update = r.policy_update()
    start = r.start(r.obs[0], noise)
    _, (imagined, _, _) = update.actor_loss(
        r.actor, r.critics, ReturnScale.initial(r.obs), start, {}
    )
    z = imagined.rollout.z_HBD[:-1].flatten(0, 1).detach()
    return z, update.targets(r.critics, imagined).flatten().detach()


def _critic_loss(r: Replay) -> Arrays:
    z, target = _flat(r, torch.zeros_like(r.inputs["eps1"]))
    update = r.policy_update()
    grads, loss = gradient(update.critic_loss, r.critics, z, target)
    yield "obs", z
    yield "target_values", target
    yield "pred", ensemble_values(r.critic, r.critics, z)
    yield "loss", loss
    yield from ((f"grad/{k}", v) for k, v in pwm_critics(grads))


def _wm_loss_pwm(r: Replay) -> Arrays:
    settings = loss_settings(len(r.act), r.config["gamma"])
    module = r.build(**settings)
    call = HookCall(module, r.wm.loss)
    none = r.obs.new_zeros(len(r.act), len(r.index), 0)
    grads, metrics = gradient(call.with_params, r.weights, r.batch(), none)
    yield "total", metrics["loss"]
    yield "dynamics", metrics["consistency"]
    yield "reward", metrics["reward_loss"] * settings["reward_coef"]
    yield "grad_norm", clip(grads, 1.0)[1]
    yield from ((f"grad/{k}", v) for k, v in pwm_model(grads))


def _wm_loss_tdmpc2(r: Replay, rho: float) -> Arrays:
    c = r.config["tdmpc2"]
    module = r.build(rho=rho, consistency_coef=c["consistency_coef"], reward_coef=c["reward_coef"])
    module.project = lambda params: params  # recorded before the next look-up renormalises
    call = HookCall(module, r.wm.loss)
    none = r.obs.new_zeros(len(r.act), len(r.index), 0)
    grads, metrics = gradient(call.with_params, r.weights, r.batch(), none)
    yield "consistency_loss", metrics["consistency"]
    yield "reward_loss", metrics["reward_loss"]
    yield "total_loss", metrics["loss"]
    yield "grad_norm", clip(grads, 1.0)[1]
    with torch.no_grad():
        z0 = r.model.encode(r.obs[0], r.task.embedding_BE)
        rollout = r.wm.rollout(r.model, z0, lambda t, _: r.act[t], r.task, none)
    yield "soft_ce_per_step", two_hot.cross_entropy(rollout.reward_logits_HBR, r.rew)
    yield from ((f"grad/{k}", v) for k, v in pwm_model(grads))
    optimiser = _optimiser(r, c["lr"], c["grad_clip_norm"], c["enc_lr_scale"])
    update = WorldModelUpdate(module, r.wm.loss, optimiser)
    rate = torch.tensor(c["lr"], dtype=r.dtype)
    state, _ = update(WorldModelState.initial(r.weights), r.batch(), none, rate)
    yield from ((f"after_step/{k}", v) for k, v in pwm_model(state.params))


def _update(r: Replay) -> Arrays:
    c = r.config
    update = r.policy_update()
    unclamped = r.policy_update(r.unclamped())
    state = stack([CellState.initial(r.actor, r.critics)])
    rates = Rates(*(torch.tensor(c[k], dtype=r.dtype) for k in ("actor_lr", "critic_lr")))
    yield "lrs1", torch.stack(list(rates))
    for number, (obs, noise) in enumerate(
        ((r.obs[0], r.inputs["eps1"]), (r.obs[5], r.inputs["eps2"])), 1
    ):
        if number == 2:
            scheduled = _rates(c, 5000, r.dtype)
            yield "lrs2", scheduled
            rates = Rates(scheduled[0], scheduled[1])
        start = r.start(obs, noise)
        yield from ((k + str(number), v) for k, v in _critic_details(r, state, start, rates))
        before = state
        state, metrics = update(state, stack([start]), rates)
        first = _critic_steps(r, before, start, rates)
        losses = torch.stack([loss for _, _, loss in first])
        yield (
            f"metrics{number}",
            torch.stack(
                [
                    metrics["actor_loss"][0],
                    metrics["critic_loss"][0],
                    metrics["actor_grad_norm"][0],
                    metrics["critic_grad_norm"][0],
                ]
            ),
        )
        yield f"critic_losses{number}", losses
        scale = state.scale
        yield f"ret_rms{number}", torch.stack([-scale.mean, scale.variance, scale.seen])[:, 0]
        # PWM clamps the log standard deviation before its next use, this engine after the step.
        raw, _ = unclamped(before, stack([start]), rates)
        policy = {k: v[0] for k, v in raw.policy.items()}
        yield from ((f"after{number}/actor/{pwm_actor(k)}", v) for k, v in policy.items())
        critics = {k: v[0] for k, v in state.critics.items()}
        yield from ((f"after{number}/{k}", v) for k, v in pwm_critics(critics))
        if number == 1:
            rows = len(r.act) * len(r.index) // c["critic_batches"]
            steps = c["critic_iterations"] * c["critic_batches"]
            yield "minibatch_sizes1", torch.full((steps,), rows)
            yield from ((f"after_critic_step1/{k}", v) for k, v in pwm_critics(first[0][0]))
            for k in policy:
                name = f"adam1/actor/{pwm_actor(k)}"
                yield f"{name}/exp_avg", state.policy_adam.first[k][0]
                yield f"{name}/exp_avg_sq", state.policy_adam.second[k][0]
    yield "lr_schedule_epochs", r.epochs
    yield "lr_schedule", torch.stack([_rates(c, int(e), r.dtype) for e in r.epochs])


def _rates(config: Mapping[str, Any], epoch: int, dtype: torch.dtype) -> Tensor:
    """Actor's, critic's, world model's learning rate."""
    names, done = ("actor_lr", "critic_lr", "model_lr"), epoch / config["max_epochs"]
    return torch.tensor([linear_decay(config[k], 1e-5, done) for k in names], dtype=dtype)


def _critic_details(r: Replay, state: CellState, start: Start, rates: Rates) -> Arrays:
    cell: CellState = _only(state)
    update = r.policy_update()
    _, (imagined, _, _) = update.actor_loss(cell.policy, cell.critics, cell.scale, start, {})
    yield "target_values", update.targets(cell.critics, imagined)
    yield "loss_raw", -imagined.return_B


def _critic_steps(
    r: Replay, state: CellState, start: Start, rates: Rates
) -> list[tuple[Params, AdamState, Tensor]]:
    """The update's critic steps one by one, for what lies between its ends."""
    cell: CellState = _only(state)
    update = r.policy_update()
    _, (imagined, _, _) = update.actor_loss(cell.policy, cell.critics, cell.scale, start, {})
    z = imagined.rollout.z_HBD[:-1].flatten(0, 1).detach()
    target = update.targets(cell.critics, imagined).flatten().detach()
    critics, adam = cell.critics, cell.critic_adam
    done = []
    parts = r.learning.critic_minibatches
    for z_mini, target_mini in list(zip(z.chunk(parts), target.chunk(parts), strict=True)) * (
        r.learning.critic_iterations
    ):
        grads, loss = gradient(update.critic_loss, critics, z_mini, target_mini)
        grads, _ = clip(grads, r.learning.critic_grad_clip)
        critics, adam = adam_step(critics, grads, adam, rates.critic, r.learning.betas)
        done.append((critics, adam, loss))
    return done


def _update_finetune(r: Replay) -> Arrays:
    c = r.config
    module = r.build(**loss_settings(len(r.act), c["gamma"]))
    optimiser = _optimiser(r, c["model_lr"], c["wm_grad_norm"], 1.0)
    model_update = WorldModelUpdate(module, r.wm.loss, optimiser, stacked=True)
    none = r.obs.new_zeros(1, len(r.act), len(r.index), 0)
    model_rate = torch.tensor(c["model_lr"], dtype=r.dtype)
    model = stack([WorldModelState.initial(r.weights, stale_embedding=True)])
    model, model_metrics = model_update(model, stack([r.batch()]), none, model_rate)
    update = r.policy_update(r.unclamped())
    state = stack([CellState.initial(r.actor, r.critics)])
    rates = Rates(*(torch.tensor(c[k], dtype=r.dtype) for k in ("actor_lr", "critic_lr")))
    start = r.start(r.obs[0], r.inputs["eps1"])
    after, metrics = update(state, stack([start]), rates, model.params)
    weights = {k: v[0] for k, v in model.params.items()}
    rows = weights["task_embedding.weight"]  # a row that is not looked up is not renormalised
    weights["task_embedding.weight"] = torch.where(
        r.looked_up, rows, r.weights["task_embedding.weight"]
    )
    yield from ((f"after/wm/{k}", v) for k, v in pwm_model(weights))
    policy = {k: v[0] for k, v in after.policy.items()}
    yield from ((f"after/actor/{pwm_actor(k)}", v) for k, v in policy.items())
    critics = {k: v[0] for k, v in after.critics.items()}
    yield from ((f"after/{k}", v) for k, v in pwm_critics(critics))
    reward = model_metrics["reward_loss"][0] / len(r.act)
    yield (
        "metrics",
        torch.stack(
            [
                metrics["actor_loss"][0],
                metrics["critic_loss"][0],
                metrics["actor_grad_norm"][0],
                metrics["critic_grad_norm"][0],
                model_metrics["loss"][0],
                model_metrics["consistency"][0],
                reward,
                model_metrics["grad_norm"][0],
            ]
        ),
    )


def _optimiser(r: Replay, rate: float, clip: float, encoder_scale: float) -> ModelOptimiser:
    return ModelOptimiser(
        learning_rate=rate,
        final_learning_rate=rate,
        betas=r.config["wm_betas"],
        grad_clip=clip,
        encoder_scale=encoder_scale,
    )


def _only(state: CellState) -> CellState:
    """The one cell of a stack."""
    cell: CellState = tree_map(lambda t: t[0], state)
    return cell
