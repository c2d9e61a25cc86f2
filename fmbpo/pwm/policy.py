"""A whole policy update of PWM (Georgiev et al. 2024, arXiv 2407.02466), from top to bottom.

::

    imagine      z_0 = E(o_0);  a_t = π(sg z_t);  z_{t+1}, r̂_t from the world model, t < H
    actor step   minimise -(Σ_{t<H} γ^t r̂_t + γ^H V(z_H)) / scale, V the minimum of the critics
    targets      TD(λ) over the imagined rollout, from the critics before their step
    critic steps passes over contiguous, time-major mini-batches, in order

``PolicyUpdate`` is a pure function over tensors. One cell is one task and seed with its own policy,
critics and optimisers. States and starts have a leading dimension of cells, so that many policies
train in one program: each function below is written for one cell, and ``torch.func.vmap`` maps it.

Shape suffixes as in ``fmbpo.hookspecs``, and M for a mini-batch of imagined states.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from fmbpo.base.metrics import GRAD_NORM, LOSS, REWARD, imagined_mean, of_actor, of_critic
from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.schema import PolicyLearningConfig
from fmbpo.hookspecs import CONTINUE, Imagined, LossContext, Metrics, Real, State, Task
from fmbpo.nn.returns import survival, td_lambda, weights
from fmbpo.protocols import SetsTargets
from fmbpo.pwm.critic import ensemble_values
from fmbpo.pwm.optim import (
    AdamState,
    Params,
    adam_init,
    adam_step_,
    buffers_of,
    clip,
    flatten,
    gradient,
    in_one_vector,
    projected,
    projection,
    split,
    unflatten,
)
from fmbpo.pwm.pair import HookCall, Pair, reward_decoder
from fmbpo.pwm.start import Start

# -- state and inputs ------------------------------------------------------------------------


class ReturnScale(NamedTuple):
    """Running mean and (biased) variance of returns, and their number; 0-d (PWM's ``ret_rms``)."""

    mean: Tensor
    variance: Tensor
    seen: Tensor

    @staticmethod
    def initial(like: Tensor) -> ReturnScale:
        """Mean 0, variance 1, number 1e-4, on the device and in the type of ``like``."""
        return ReturnScale(like.new_zeros(()), like.new_ones(()), like.new_full((), 1e-4))

    def updated(self, return_B: Tensor) -> ReturnScale:
        """The state after one more batch of returns (Chan's parallel variance)."""
        n = return_B.shape[0]
        mean, variance = return_B.mean(), return_B.var(correction=0)
        total = self.seen + n
        delta = mean - self.mean
        m2 = self.variance * self.seen + variance * n + delta**2 * self.seen * n / total
        return ReturnScale(self.mean + delta * n / total, m2 / total, total)

    def divisor(self) -> Tensor:
        """``sqrt(variance + 1e-5)``; the mean is not subtracted."""
        return (self.variance + 1e-5).sqrt()


class CellState(NamedTuple):
    """Everything that an update of one cell changes."""

    policy: Params
    policy_adam: AdamState
    critics: Params
    """Stacked along C, the members of the ensemble; so is their optimiser's state."""
    critic_adam: AdamState
    scale: ReturnScale

    @staticmethod
    def initial(policy: Params, critics: Params) -> CellState:
        """These parameters, without history."""
        like = next(iter(policy.values()))
        adams = adam_init(flatten(policy)), adam_init(flatten(critics, 1))
        return CellState(policy, adams[0], critics, adams[1], ReturnScale.initial(like))

    def laid_out(self) -> CellState:
        """The same stacked state as it lies in memory after an update (``in_one_vector``)."""
        policy, critics = in_one_vector(self.policy, 1), in_one_vector(self.critics, 2)
        return self._replace(policy=policy, critics=critics)


class Rates(NamedTuple):
    """Learning rates (0-d)."""

    actor: Tensor
    critic: Tensor


class PolicyUpdate:
    """``update(state, start, rates) -> (state, metrics)``, all cells at once.

    A fourth argument holds the parameters of world models, stacked along the cells, if each cell
    has its own.
    """

    def __init__(
        self,
        pair: Pair,
        critic: nn.Module,
        learning: PolicyLearningConfig,
        conventions: ConventionsConfig,
        *,
        scale_returns: bool = True,
    ) -> None:
        """``critic``: the module for the critics' parameters."""
        self.pair, self.critic = pair, critic
        self.learning, self.conventions = learning, conventions
        self.scale_returns = scale_returns
        self.project, self.buffers = projection(pair.policy), buffers_of(pair.policy)
        self.decode = reward_decoder(pair.world_model, conventions)
        self._targets = HookCall(pair.policy, lambda policy, *given: policy.targets(*given))
        self._error = HookCall(critic, lambda critic, *given: critic.error(*given))

    def __call__(
        self, state: CellState, start: Start, rates: Rates, models: Params | None = None
    ) -> tuple[CellState, Metrics]:
        """One update of every cell."""
        grads, (imagined, scale, actor_metrics) = gradient(
            self.actor_loss, state.policy, state.critics, state.scale, start, models or {},
            stacked=True, buffers=self.buffers,
        )  # fmt: skip
        new, actor_metrics = split(actor_metrics, self.buffers)
        policy, policy_adam, actor_norm = self._actor_step(state, grads, new, rates.actor)
        target_TM = vmap(self.targets)(state.policy, state.critics, imagined).flatten(1)
        horizon = imagined.reward_HB.shape[1]
        seen = self.pair.of_critics(imagined.rollout.z_HBD, imagined.action_HBA)
        given = [x[:, :horizon].flatten(1, 2) for x in seen]
        critics, critic_adam, critic_metrics = self._critic_steps(
            state.critics, state.critic_adam, given, target_TM, rates.critic
        )
        metrics = {
            **{of_actor(name): value for name, value in actor_metrics.items()},
            of_actor(GRAD_NORM): actor_norm,
            imagined_mean(REWARD): imagined.reward_HB.mean((1, 2)),
            **{imagined_mean(k): v.mean((1, 2)) for k, v in imagined.rollout.extras.items()},
            **critic_metrics,
        }
        return CellState(policy, policy_adam, critics, critic_adam, scale), metrics

    # -- imagination, and the actor's loss (one cell) ----------------------------------------

    def actor_loss(
        self, policy: Params, critics: Params, scale: ReturnScale, start: Start, model: Params
    ) -> tuple[Tensor, tuple[Imagined, ReturnScale, Metrics]]:
        """The plugin's loss of the trajectory that ``imagine`` gives.

        Gradients flow from the rewards and V(z_H) through the world model to the actions; the
        policy sees its latents without gradient (its own ``rollout`` decides). The return
        normaliser takes the batch in before it divides, and passes no gradient.
        """
        imagined, context = self.imagine(policy, critics, start, model)
        scale = scale.updated(imagined.return_B.detach())
        horizon = len(imagined.reward_HB)
        divisor = scale.divisor() if self.scale_returns else torch.full_like(scale.mean, horizon)
        imagined = imagined._replace(scale=divisor)
        loss, metrics = self.pair.loss(policy, imagined, context)
        return loss, (imagined, scale, metrics)

    def imagine(
        self, policy: Params, critics: Params, start: Start, model: Params
    ) -> tuple[Imagined, LossContext]:
        """Roll the policy out in the world model; ``return_B`` is what it maximises. Scale 1."""
        return self.imagine_from(*self._begun(model, start), policy, critics, start, model)

    def imagine_from(
        self,
        state: State,
        task: Task,
        real: Real | None,
        policy: Params,
        critics: Params,
        start: Start,
        model: Params,
    ) -> tuple[Imagined, LossContext]:
        """``imagine`` from this state; of ``start``, its noise counts."""
        learning = self.learning
        z_BD = self.pair.latent(model, state)
        horizon, batch = start.model_noise_HBN.shape[:2]
        noise_HBN = start.policy_noise_HBN[:horizon]
        assert z_BD.shape == (batch, self.pair.world_model.latent_dim)
        partner = self.pair.partner(model, state, task, start.model_noise_HBN)
        rollout = self.pair.rollout(policy, z_BD, partner, task, noise_HBN)
        assert rollout.z_HBD.shape == (horizon + 1, *z_BD.shape)
        assert rollout.action_HBA.shape == (horizon, *start.mask_BA.shape)

        reward_HB = self.decode(rollout.reward_HBR)
        assert reward_HB.shape == (horizon, batch)

        def values(z: Tensor, action: Tensor) -> Tensor:
            return ensemble_values(self.critic, critics, *self.pair.of_critics(z, action))

        action_HBA, last_BD = rollout.action_HBA, rollout.z_HBD[-1]
        if self.pair.takes_actions:
            last = self.pair.act(policy, last_BD.detach(), task, start.policy_noise_HBN[horizon])
            action_HBA = torch.cat([action_HBA, last.unsqueeze(0)])
        value_B, continue_HB = values(last_BD, action_HBA[-1]).amin(0), rollout.extras.get(CONTINUE)
        weight_HB = weights(learning.discount, reward_HB, continue_HB)
        late = self.conventions.bootstrap == "horizon_plus_one"
        last_B = learning.discount ** (horizon + late) * value_B
        if continue_HB is not None:
            last_B = survival(continue_HB)[-1] * last_B
        return_B = (weight_HB * reward_HB).sum(0) + last_B
        assert return_B.shape == (batch,)
        one = torch.ones_like(return_B[0])
        imagined = Imagined(rollout, action_HBA, reward_HB, weight_HB, value_B, return_B, one)
        own = start.loss_noise_BN
        drawn = own if isinstance(own, Tensor) else None
        context = LossContext(task, noise_HBN, start.done, values, real, drawn)
        return imagined, context

    def _begun(self, model: Params, start: Start) -> tuple[State, Task, Real | None]:
        """The state behind the warm-up, its task, and what the policy's loss sees from there."""
        first, real = self.pair.warm_up, start.real
        if not (real and self.pair.real_steps):
            past = start.past(first)
            return *self.pair.behind(model, past, start.index_B, start.mask_BA), None
        states, task = self.pair.along(model, real)
        z_HBD = torch.stack([self.pair.latent(model, state) for state in states[first:]])
        steps = (x[first:] for x in (real.action_HBA, real.reward_HB, real.terminated_HB))
        return states[first], task, Real(z_HBD, *steps)

    # -- actor step (all cells) --------------------------------------------------------------

    def _actor_step(
        self, state: CellState, grads: Params, new: Params, rate: Tensor
    ) -> tuple[Params, AdamState, Tensor]:
        """Clip and step, with the ``new`` values of buffers; also the gradients' norms ``[T]``."""
        flat_TP, adam = flatten(state.policy, 1), state.policy_adam.clone()
        clipped_TP, norm_T = clip(flatten(grads, 1), self.learning.actor_grad_clip)
        adam_step_(flat_TP, clipped_TP, adam, rate, self.learning.betas)
        policy = unflatten(flat_TP, state.policy)
        project = vmap(lambda p, new: projected(p, self.project, buffers=new))
        return project(policy, new), adam, norm_T

    # -- critic targets (one cell) -----------------------------------------------------------

    def targets(self, policy: Params, critics: Params, imagined: Imagined) -> Tensor:
        """The policy's own targets ``[H, B]``, or those of TD(λ); one-step targets if the
        conventions say so. ``policy``: its parameters before the update."""
        rollout, reward_HB = imagined.rollout, imagined.reward_HB
        given = self.pair.of_critics(rollout.z_HBD[1:], imagined.action_HBA[1:])
        next_value_HB = ensemble_values(self.critic, critics, *given).amin(0)
        assert next_value_HB.shape == reward_HB.shape
        lam = 0.0 if self.conventions.critic_targets == "one_step" else self.learning.lam
        if isinstance(self.pair.policy, SetsTargets):
            wanted = imagined, next_value_HB, self.learning.discount, lam
            targets: Tensor = self._targets.with_params(policy, *wanted)
            return targets
        lam_HB, goes_on = torch.full_like(next_value_HB, lam), rollout.extras.get(CONTINUE)
        return td_lambda(reward_HB, next_value_HB, self.learning.discount, lam_HB, goes_on)

    # -- critic steps ------------------------------------------------------------------------

    def critic_loss(
        self, members: int, critic: Params, given: Sequence[Tensor], target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One of an ensemble's critics: its share of the loss, and its error's mean over a
        mini-batch, ``given`` as ``[..., D]`` and, if it takes actions, ``[..., A]``."""
        error = self._error.with_params(critic, *given, target).mean()
        return error / members, error

    def _critic_steps(
        self,
        critics: Params,
        adam: AdamState,
        given: Sequence[Tensor],
        target_TM: Tensor,
        rate: Tensor,
    ) -> tuple[Params, AdamState, Metrics]:
        """All cells: ``critic_iterations`` passes over ``critic_minibatches`` parts.

        The members of all ensembles learn side by side (K = T x C). The loss of an ensemble is the
        mean of its members' losses, and its gradient is clipped as one vector.
        """
        learning = self.learning
        assert given[0].shape[:-1] == target_TM.shape
        stack = cells, members = adam.steps.shape
        like = {name: p.flatten(0, 1) for name, p in critics.items()}
        flat_KP, adam = flatten(like, 1), AdamState(*(x.flatten(0, 1).clone() for x in adam))
        inputs = (x.repeat_interleave(members, 0) for x in (*given, target_TM))
        parts = (x.chunk(learning.critic_minibatches, 1) for x in inputs)
        loss, errors = partial(self.critic_loss, members), []
        for *some, target in list(zip(*parts, strict=True)) * learning.critic_iterations:
            grads, error_K = gradient(loss, unflatten(flat_KP, like), some, target, stacked=True)
            clipped_TP, norm_T = clip(flatten(grads, 1).view(cells, -1), learning.critic_grad_clip)
            adam_step_(flat_KP, clipped_TP.view_as(flat_KP), adam, rate, learning.betas)
            errors.append(error_K)
        metrics = {
            of_critic(LOSS): torch.stack(errors).mean(0).view(stack).mean(1),
            of_critic(GRAD_NORM): norm_T,
        }
        learnt = unflatten(flat_KP.view(*stack, -1), critics)
        return learnt, AdamState(*(x.view(*stack, *x.shape[1:]) for x in adam)), metrics
