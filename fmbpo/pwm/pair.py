"""The pair of plugins that an update composes, their hooks as functions of parameters."""

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
    """Lets ``functional_call`` put given parameters into a hook's module."""

    def __init__(self, module: Module, hook: Callable[..., Any]) -> None:
        super().__init__()
        assert isinstance(module, nn.Module)
        self.module, self.hook = module, hook

    def forward(self, *args: Any) -> Any:
        """The hook's result with ``self.module`` as its module."""
        return self.hook(self.module, *args)

    def with_params(self, params: Params, *args: Any) -> Any:
        """The hook's result with ``params`` in place of the module's own parameters of the same
        names; with none, the module's own."""
        if not params:
            return self.hook(self.module, *args)
        return functional_call(self, {f"module.{k}": v for k, v in params.items()}, args)


class Pair:
    """A world model and a policy. Their parameters are arguments: ``model`` and ``policy``.

    An empty ``model`` stands for the module's own parameters, which stacked cells then share.
    """

    def __init__(
        self, world_model: WorldModel, model_hooks: Component, policy: Policy, hooks: Component
    ) -> None:
        self.world_model, self.policy = world_model, policy
        self._begin = HookCall(world_model, _begun)
        self._step = HookCall(world_model, model_hooks.predict)
        self._act = HookCall(policy, hooks.predict)
        self._rollout = HookCall(policy, hooks.rollout)
        self._loss = HookCall(policy, hooks.loss)

    def begin(
        self, model: Params, obs_BO: Tensor, index_B: Tensor, mask_BA: Tensor
    ) -> tuple[Tensor, Task]:
        """Latents ``[B, D]`` of observations, and their task."""
        begun: tuple[Tensor, Task] = self._begin.with_params(model, obs_BO, index_B, mask_BA)
        return begun

    def step(
        self, model: Params, z_BD: Tensor, action_BA: Tensor, task: Task, noise_BN: Tensor
    ) -> Prediction:
        """The world model's ``predict``."""
        made: Prediction = self._step.with_params(model, z_BD, action_BA, task, noise_BN)
        return made

    def act(self, policy: Params, z_BD: Tensor, task: Task, noise_BN: Tensor) -> Tensor:
        """The policy's ``predict``: actions ``[B, A]``."""
        action: Tensor = self._act.with_params(policy, z_BD, task, noise_BN)
        return action

    def rollout(
        self, policy: Params, z_BD: Tensor, answer: AnswerAction, task: Task, noise_HBN: Tensor
    ) -> Rollout:
        """The policy's ``rollout``."""
        made: Rollout = self._rollout.with_params(policy, z_BD, answer, task, noise_HBN)
        return made

    def loss(self, policy: Params, imagined: Imagined) -> tuple[Tensor, Metrics]:
        """The policy's ``loss``."""
        found: tuple[Tensor, Metrics] = self._loss.with_params(policy, imagined)
        return found


def _begun(model: WorldModel, obs: Tensor, index: Tensor, mask: Tensor) -> tuple[Tensor, Task]:
    task = Task(index, mask, model.embed(index))
    return model.encode(obs, task.embedding_BE), task
