"""A folder of numbers recorded from PWM's own code: its inputs and weights in this code's terms."""

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
from fmbpo.pwm.policy import PolicyUpdate, Start
from fmbpo.training.trees import stack

Arrays = Iterator[tuple[str, Tensor]]
"""Arrays by the record's own names."""


class Replay:
    """One golden folder in one floating-point type."""

    def __init__(self, folder: Path, config: Mapping[str, Any], dtype: torch.dtype) -> None:
        self.config, self.dtype = config, dtype

        def load(name: str) -> dict[str, Tensor]:
            with np.load(folder / f"{name}.npz") as file:
                arrays = {k: torch.from_numpy(file[k]) for k in file.files}
            return {k: v.to(dtype) if v.is_floating_point() else v for k, v in arrays.items()}

        self.inputs, self.math = load("inputs"), load("math")
        # Inputs of theirs that stand among the results.
        self.random_done = load("actor_loss_det")["tdlambda_done_random/done_mask"]
        self.epochs = load("update")["lr_schedule_epochs"]
        c, inputs = config, self.inputs
        self.obs, self.act, self.rew = inputs["obs"], inputs["act"], inputs["rew"].squeeze(-1)
        self.index = inputs["task"]
        self.mask = torch.ones_like(self.act[0])  # PWM applies none
        self.wm = load_plugin("world_model", "mlp")
        sizes = {
            "encoder_units": c["encoder_units"],
            "units": c["units"],
            "latent_dim": c["latent_dim"],
            "task_dim": c["task_dim"],
        }
        self.sizes = sizes
        self.dims = WorldModelDims(c["obs_dim"], c["act_dim"], c["num_tasks"])
        weights = renamed(load("wm_weights"))
        self.looked_up = torch.zeros(c["num_tasks"], 1, dtype=torch.bool)
        self.looked_up[self.index] = True
        self.model = self.build()
        # The look-up writes the rows that it renormalises; no other row changes.
        rows = weights["task_embedding.weight"]
        held = self.model.task_embedding.project(rows)
        weights["task_embedding.weight"] = torch.where(self.looked_up, held, rows)
        self.weights = weights
        self.model.load_state_dict(weights)
        self.wm.freeze(self.model)

        start = load("ac_init")
        self.pi = load_plugin("policy", "mlp")
        self.policy = self.build_policy()
        actor = {k.removeprefix("actor/"): v for k, v in start.items() if k.startswith("actor/")}
        raw = {ours_actor(k): v for k, v in actor.items()}
        self.actor = self.policy.project(raw)  # PWM clamps before it is used
        critics = [
            {
                ours_critic(k.split("/", 1)[1]): v
                for k, v in start.items()
                if k.startswith(f"critic{i}/")
            }
            for i in range(c["num_critics"])
        ]
        self.critics: Params = stack(critics)
        self.critic = Critic(c["latent_dim"], c["critic_units"]).to(dtype)
        self.task = Task(self.index, self.mask, self.model.embed(self.index))
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
        return self.wm.build(self.wm.Config(**self.sizes, **settings), self.dims).to(self.dtype)

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
        """A policy whose parameters stay as an update leaves them."""
        policy = self.build_policy()
        policy.project = lambda params: params
        return policy

    def policy_update(self, policy: Any = None, *, scale_returns: bool = True) -> PolicyUpdate:
        """The engine's update under PWM's released conventions."""
        pair = Pair(self.model, self.wm, policy or self.policy, self.pi)
        conventions = ConventionsConfig(bundle="pwm")
        return PolicyUpdate(
            pair, self.critic, self.learning, conventions, scale_returns=scale_returns
        )

    def start(self, obs: Tensor, noise: Tensor) -> Start:
        """Imagination from these observations with this noise."""
        nothing = noise.new_zeros(*noise.shape[:2], 0)
        return Start(obs, self.index, self.mask, noise, nothing)

    def batch(self) -> Batch:
        """The recorded sub-trajectories."""
        return Batch(self.obs, self.act, self.rew, self.index, self.mask)

    def mean(self, z: Tensor) -> Tensor:
        """The actor's output before tanh, without noise."""
        result: Tensor = HookCall(self.policy, lambda m, z: m.mean(z)).with_params(self.actor, z)
        return result


def ours_actor(name: str) -> str:
    """PWM's name of an actor's parameter -> fmbpo's."""
    return "log_std.value" if name == "logstd" else name.replace("mu_net.", "mean.")


def pwm_actor(name: str) -> str:
    """fmbpo's name of an actor's parameter -> PWM's."""
    return "logstd" if name == "log_std.value" else name.replace("mean.", "mu_net.")


def ours_critic(name: str) -> str:
    """PWM's name of a critic's parameter -> fmbpo's."""
    return name.replace("critic.", "net.")


def pwm_critics(params: Params) -> Arrays:
    """Stacked critics one by one, under PWM's names."""
    for name, value in params.items():
        for i, one in enumerate(value):
            yield f"critic{i}/{name.replace('net.', 'critic.')}", one


def pwm_model(params: Params) -> Arrays:
    """A world model's parameters under PWM's names."""
    for name, value in exported(params).items():
        yield name.replace("_encoder.state.", "_encoder."), value
