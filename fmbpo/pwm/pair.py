"""The pair of plugins in an update, with their hooks as functions of parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from fmbpo.config.conventions import ConventionsConfig
from fmbpo.hookspecs import (
    AnswerAction,
    Batch,
    Imagined,
    LossContext,
    Metrics,
    Module,
    Policy,
    Prediction,
    Rollout,
    State,
    Task,
    WorldModel,
)
from fmbpo.nn import state as states
from fmbpo.nn import two_hot
from fmbpo.plugins import Component
from fmbpo.protocols import BinsRewards, DecodesRewards, DrawsNoise, HasCritic, Remembers, SeesData
from fmbpo.pwm.optim import Params
from fmbpo.pwm.start import Past


def reward_decoder(
    model: WorldModel, conventions: ConventionsConfig | None = None
) -> Callable[[Tensor], Tensor]:
    """The reward head's outputs ``[..., R]`` -> rewards ``[...]``, under the conventions if given,
    else in the environment's units."""
    symlog = conventions is not None and conventions.imagined_reward == "symlog"
    if not isinstance(model, DecodesRewards):
        return partial(two_hot.decode_symlog if symlog else two_hot.decode, bound=bound(model))
    decode = model.decode_reward
    return (lambda reward: two_hot.symlog(decode(reward))) if symlog else decode


def bound(model: WorldModel) -> float:
    """The outer bins of rewards in symlog; infinite if the model ``DecodesRewards``."""
    if isinstance(model, DecodesRewards):
        return math.inf
    return model.reward_bound if isinstance(model, BinsRewards) else two_hot.BOUND


def reward_dim(model: WorldModel) -> int:
    """R, the number of the reward head's outputs."""
    return model.reward_dim if isinstance(model, DecodesRewards) else two_hot.BINS


class HookCall(nn.Module):
    """Calls a hook with given parameters in its module, by ``functional_call``."""

    def __init__(self, module: Module, hook: Callable[..., Any]) -> None:
        super().__init__()
        assert isinstance(module, nn.Module)
        self.module, self.hook = module, hook

    def forward(self, *args: Any) -> Any:
        """The hook's result with ``self.module`` as its module."""
        return self.hook(self.module, *args)

    def with_params(self, params: Params, *args: Any) -> Any:
        """The hook's result with ``params``; the module's own parameters replace missing ones."""
        if not params:
            return self.hook(self.module, *args)
        return functional_call(self, {f"module.{k}": v for k, v in params.items()}, args)


class Pair:
    """A world model and a policy. Their parameters are arguments: ``model`` and ``policy``.

    If ``model`` is empty, stacked cells share the module's parameters.
    """

    def __init__(
        self, world_model: WorldModel, model_hooks: Component, policy: Policy, hooks: Component
    ) -> None:
        self.world_model, self.policy = world_model, policy
        self.remembers = isinstance(world_model, Remembers)
        self.warm_up = states.warm_up(world_model)
        """Real steps before imagination begins."""
        self.real_steps = policy.real_steps if isinstance(policy, SeesData) else 0
        """Real steps that the policy's loss sees."""
        self.loss_noise_dim = policy.loss_noise_dim if isinstance(policy, DrawsNoise) else 0
        """Standard normals per row that the policy's loss takes."""
        self.takes_actions = isinstance(policy, HasCritic)
        """Whether the critics are functions of latents and actions."""
        self.begin: Callable[[Params, Tensor, Tensor, Tensor], tuple[State, Task]]
        self.begin = HookCall(world_model, _begun).with_params
        """``(model, obs_BO, index_B, mask_BA)``: states at first observations, and their task."""
        self.task: Callable[[Params, Tensor, Tensor], Task]
        self.task = HookCall(world_model, _task).with_params
        """``(model, index_B, mask_BA)``."""
        self.observe: Callable[[Params, State, Tensor, Tensor, Task], State]
        self.observe = HookCall(world_model, states.observe).with_params
        """``(model, state, action_BA, obs_BO, task)``: states at the observations behind them."""
        self.behind: Callable[[Params, Past, Tensor, Tensor], tuple[State, Task]]
        self.behind = HookCall(world_model, _behind).with_params
        """``(model, past, index_B, mask_BA)``: states behind real steps, and their task."""
        self.along: Callable[[Params, Batch], tuple[list[State], Task]]
        self.along = HookCall(world_model, _along).with_params
        """``(model, real)``: the states along real sub-trajectories, and their task."""
        self.step: Callable[[Params, State, Tensor, Task, Tensor], Prediction]
        self.step = HookCall(world_model, model_hooks.predict).with_params
        """``(model, state, action_BA, task, noise_BN)``: the world model's ``predict``."""
        self.act: Callable[[Params, Tensor, Task, Tensor], Tensor]
        self.act = HookCall(policy, hooks.predict).with_params
        """``(policy, z_BD, task, noise_BN)``: the policy's ``predict``, actions ``[B, A]``."""
        self.rollout: Callable[[Params, Tensor, AnswerAction, Task, Tensor], Rollout]
        self.rollout = HookCall(policy, hooks.rollout).with_params
        """``(policy, z_BD, answer, task, noise_HBN)``: the policy's ``rollout``."""
        self.loss: Callable[[Params, Imagined, LossContext], tuple[Tensor, Metrics]]
        self.loss = HookCall(policy, hooks.loss).with_params
        """``(policy, imagined, context)``: the policy's ``loss``."""
        self._latent = HookCall(world_model, states.latent).with_params

    def latent(self, model: Params, state: State) -> Tensor:
        """The latent ``[B, D]`` of a state."""
        z: Tensor = self._latent(model, state) if self.remembers else state
        return z

    def of_critics(self, z: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        """The arguments of the critics: latents and, if they take actions, those."""
        return (z, action) if self.takes_actions else (z,)

    def partner(self, model: Params, state: State, task: Task, noise: Tensor) -> AnswerAction:
        """The world model from ``state`` as the partner of one rollout of the policy, with
        ``noise_HBN``."""
        states = [state]

        def answer(t: int, _: Tensor, action: Tensor) -> Prediction:
            predicted = self.step(model, states[t], action, task, noise[t])
            states.append(predicted.state)
            return predicted._replace(state=self.latent(model, predicted.state))

        return answer


def _task(model: WorldModel, index: Tensor, mask: Tensor) -> Task:
    return Task(index, mask, model.embed(index))


def _behind(model: WorldModel, past: Past, index: Tensor, mask: Tensor) -> tuple[State, Task]:
    task = _task(model, index, mask)
    return states.behind(model, past.obs_HBO, past.action_HBA, task), task


def _along(model: WorldModel, real: Batch) -> tuple[list[State], Task]:
    task = _task(model, real.index_B, real.mask_BA)
    return states.along(model, real.obs_HBO, real.action_HBA, task), task


def _begun(model: WorldModel, obs: Tensor, index: Tensor, mask: Tensor) -> tuple[State, Task]:
    task = _task(model, index, mask)
    return states.begin(model, obs, task), task
