"""The pair of plugins in an update, with their hooks as functions of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from fmbpo.config.conventions import ConventionsConfig
from fmbpo.hookspecs import (
    AnswerAction,
    Imagined,
    Metrics,
    Module,
    Policy,
    Prediction,
    Rollout,
    Task,
    WorldModel,
)
from fmbpo.nn import two_hot
from fmbpo.plugins import Component
from fmbpo.pwm.optim import Params


def reward_decoder(conventions: ConventionsConfig) -> Callable[[Tensor], Tensor]:
    """Reward logits ``[..., R]`` -> imagined rewards ``[...]``."""
    symlog = conventions.imagined_reward == "symlog"
    return two_hot.decode_symlog if symlog else two_hot.decode


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
        self.begin: Callable[[Params, Tensor, Tensor, Tensor], tuple[Tensor, Task]]
        self.begin = HookCall(world_model, _begun).with_params
        """``(model, obs_BO, index_B, mask_BA)``: latents ``[B, D]``, and their task."""
        self.step: Callable[[Params, Tensor, Tensor, Task, Tensor], Prediction]
        self.step = HookCall(world_model, model_hooks.predict).with_params
        """``(model, z_BD, action_BA, task, noise_BN)``: the world model's ``predict``."""
        self.act: Callable[[Params, Tensor, Task, Tensor], Tensor]
        self.act = HookCall(policy, hooks.predict).with_params
        """``(policy, z_BD, task, noise_BN)``: the policy's ``predict``, actions ``[B, A]``."""
        self.rollout: Callable[[Params, Tensor, AnswerAction, Task, Tensor], Rollout]
        self.rollout = HookCall(policy, hooks.rollout).with_params
        """``(policy, z_BD, answer, task, noise_HBN)``: the policy's ``rollout``."""
        self.loss: Callable[[Params, Imagined], tuple[Tensor, Metrics]]
        self.loss = HookCall(policy, hooks.loss).with_params
        """``(policy, imagined)``: the policy's ``loss``."""


def _begun(model: WorldModel, obs: Tensor, index: Tensor, mask: Tensor) -> tuple[Tensor, Task]:
    task = Task(index, mask, model.embed(index))
    return model.encode(obs, task.embedding_BE), task
