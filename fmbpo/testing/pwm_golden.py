"""The inputs and weights of a folder of numbers recorded from PWM's code, in this code's terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.schema import PolicyLearningConfig
from fmbpo.hookspecs import Batch, PolicyDims, Task, WorldModelDims
from fmbpo.interop.tdmpc2 import exported, renamed
from fmbpo.plugins import load_plugin
from fmbpo.pwm.critic import Critic
from fmbpo.pwm.optim import Params
from fmbpo.pwm.pair import HookCall, Pair
from fmbpo.pwm.policy import CellState, PolicyUpdate
from fmbpo.pwm.start import Start
from fmbpo.training.trees import stack

Arrays = Iterator[tuple[str, Tensor]]
"""Arrays by their recorded names."""


class Replay:
    """One golden folder in one floating-point type."""

    def __init__(self, folder: Path, config: Mapping[str, Any], dtype: torch.dtype) -> None:
        self.config, self.dtype, c = config, dtype, config

        def load(name: str) -> dict[str, Tensor]:
            with np.load(folder / f"{name}.npz") as file:
                arrays = {k: torch.from_numpy(file[k]) for k in file.files}
            return {k: v.to(dtype) if v.is_floating_point() else v for k, v in arrays.items()}

        self.inputs, self.math = load("inputs"), load("math")
        # PWM's recording has these inputs among its results.
        self.random_done = load("actor_loss_det")["tdlambda_done_random/done_mask"]
        self.epochs = load("update")["lr_schedule_epochs"]
        self.obs, self.act = self.inputs["obs"], self.inputs["act"]
        self.index = self.inputs["task"]
        mask = torch.ones_like(self.act[0])  # PWM applies no mask
        reward = self.inputs["rew"].squeeze(-1)
        none = torch.zeros_like(reward)  # PWM's data have no terminations
        self.batch = Batch(self.obs, self.act, reward, self.index, mask, none)
        self.none = self.obs.new_zeros(len(self.act), len(self.index), 0)
        """Noise of a model that takes no noise."""
        self.begun = self.obs.new_zeros(())

        self.wm = load_plugin("world_model", "mlp")
        weights = renamed(load("wm_weights"))
        self.looked_up = torch.zeros(c["num_tasks"], 1, dtype=torch.bool)
        self.looked_up[self.index] = True
        self.model = self.build()
        # A look-up renormalises the rows that it reads, in place; no other row changes.
        rows = weights["task_embedding.weight"]
        held = self.model.task_embedding.project(rows)
        self.weights = self.with_rows(weights, held, rows)
        self.model.load_state_dict(self.weights)
        self.wm.freeze(self.model)
        self.task = Task(self.index, mask, self.model.embed(self.index))
        self.z0 = self.model.encode(self.obs[0], self.task.embedding_BE)

        start = load("ac_init")
        self.pi = load_plugin("policy", "mlp")
        self.policy = self.build_policy()

        def part(of: str) -> Params:
            return {ours(k.removeprefix(of)): v for k, v in start.items() if k.startswith(of)}

        self.actor = self.policy.project(part("actor/"))  # PWM clamps it before use
        self.critics: Params = stack([part(f"critic{i}/") for i in range(c["num_critics"])])
        self.cell = CellState.initial(self.actor, self.critics)
        self.critic = Critic(c["latent_dim"], c["critic_units"]).to(dtype)
        self.conventions = ConventionsConfig(bundle="pwm")
        self.learning = PolicyLearningConfig(
            batch=len(self.index),
            horizon=len(self.act),
            discount=c["gamma"],
            lam=c["lam"],
            betas=c["betas"],
            actor_grad_clip=c["actor_grad_norm"],
            critic_grad_clip=c["critic_grad_norm"],
            critic_iterations=c["critic_iterations"],
            critic_minibatches=c["critic_batches"],
        )

    def build(self, **settings: Any) -> Any:
        """A world model of the folder's sizes."""
        c = self.config
        widths = {k: c[k] for k in ("encoder_units", "units", "latent_dim", "task_dim")}
        dims = WorldModelDims(c["obs_dim"], c["act_dim"], c["num_tasks"])
        return self.wm.build(self.wm.Config(**widths, **settings), dims).to(self.dtype)

    def build_policy(self, **settings: Any) -> Any:
        """A policy of the folder's sizes."""
        c = self.config
        config = self.pi.Config(
            units=c["actor_units"],
            init_log_std=c["init_logstd"],
            min_log_std=c["min_logstd"],
            **settings,
        )
        dims = PolicyDims(c["latent_dim"], c["task_dim"], c["act_dim"])
        return self.pi.build(config, dims).to(self.dtype)

    def unclamped(self) -> Any:
        """A policy without ``project``: its parameters stay as Adam leaves them."""
        policy = self.build_policy()
        policy.project = lambda params: params
        return policy

    def policy_update(self, policy: Any = None, *, scale_returns: bool = True) -> PolicyUpdate:
        """The engine's update under PWM's released conventions."""
        pair = Pair(self.model, self.wm, policy or self.policy, self.pi)
        return PolicyUpdate(
            pair, self.critic, self.learning, self.conventions, scale_returns=scale_returns
        )

    def start(self, obs: Tensor, noise: Tensor) -> Start:
        """Imagination from these observations with this noise."""
        return Start(obs, self.index, self.task.mask_BA, noise, self.none, self.begun)

    def act_without_noise(self, z: Tensor) -> Tensor:
        """The actor's deterministic action."""
        call = HookCall(self.policy, self.pi.predict)
        action: Tensor = call.with_params(self.actor, z, self.task, torch.zeros_like(self.act[0]))
        return action

    def mean(self, z: Tensor) -> Tensor:
        """The actor's output before tanh, without noise."""
        result: Tensor = HookCall(self.policy, lambda m, z: m.mean(z)).with_params(self.actor, z)
        return result

    def with_rows(self, weights: Params, seen: Tensor, unseen: Tensor) -> Params:
        """The weights with the embeddings ``seen`` of looked-up tasks, ``unseen`` of the others."""
        rows = torch.where(self.looked_up, seen, unseen)
        return {**weights, "task_embedding.weight": rows}


def ours(name: str) -> str:
    """PWM's name of an actor's or a critic's parameter -> fmbpo's name."""
    if name == "logstd":
        return "log_std.value"
    return name.replace("mu_net.", "mean.").replace("critic.", "net.")


def pwm_actor(params: Params) -> Arrays:
    """An actor's parameters under PWM's names."""
    for name, value in params.items():
        yield "logstd" if name == "log_std.value" else name.replace("mean.", "mu_net."), value


def pwm_critics(params: Params) -> Arrays:
    """The parameters of stacked critics, one critic after the other, under PWM's names."""
    for name, value in params.items():
        for i, one in enumerate(value):
            yield f"critic{i}/{name.replace('net.', 'critic.')}", one


def pwm_model(params: Params) -> Arrays:
    """A world model's parameters under PWM's names."""
    for name, value in exported(params).items():
        yield name.replace("_encoder.state.", "_encoder."), value


def under(prefix: str, arrays: Arrays) -> Arrays:
    """The arrays, with a prefix added to their names."""
    yield from ((prefix + name, value) for name, value in arrays)
