"""Training a grid of policies inside one frozen world model, stacked in one program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from fmbpo.data.sampler import StartSampler
from fmbpo.engine import seeding
from fmbpo.engine.adam import AdamState, Params, linear_decay
from fmbpo.engine.critic import Critic, ReturnScale
from fmbpo.engine.dataset import Dataset
from fmbpo.engine.evaluation import Evaluator
from fmbpo.engine.policy_update import (
    CellState,
    PolicySettings,
    Rates,
    Roles,
    Start,
    make_policy_update,
)
from fmbpo.experiment.schema import (
    CriticConfig,
    EvaluationConfig,
    PluginTable,
    PolicyLearningConfig,
)
from fmbpo.hookspecs import PolicyDims
from fmbpo.registry import Component
from fmbpo.tasks.env import EPISODE_STEPS
from fmbpo.tasks.mt30 import ACTION_WIDTH, task_info


@attrs.frozen
class Cell:
    """One policy of the grid."""

    task: str
    seed: int

    def __str__(self) -> str:
        return f"{self.task}/{self.seed}"


class PolicyTraining:
    """The stage: the policies and critics of some cells, their optimisers, their noise."""

    def __init__(
        self,
        name: str,
        cells: Sequence[Cell],
        world_model: Any,
        world_model_component: Component,
        policy: PluginTable,
        config: PolicyLearningConfig,
        critic: CriticConfig,
        evaluation: EvaluationConfig,
        evaluator: Evaluator,
        data: Dataset,
        device: torch.device,
        compiled: bool,
    ) -> None:
        self.name, self.cells, self.config, self.device = name, cells, config, device
        self.evaluation, self.evaluator = evaluation, evaluator
        self.predict = policy.component.predict
        self.tasks = [cell.task for cell in cells]
        index_T = torch.tensor([task_info(task).index for task in self.tasks], device=device)
        self.index_T, self.mask_TA = index_T, data.train.mask_KA[index_T]
        of_task = {int(i): StartSampler(data.train, int(i)) for i in index_T}
        self.starts = [of_task[int(i)] for i in index_T]
        self.generators = [seeding.generator(c.seed, c.task, "imagination") for c in cells]

        dims = PolicyDims(world_model.latent_dim, world_model.task_dim, ACTION_WIDTH)
        build, settings = policy.component.build, policy.config

        def build_critic() -> Critic:
            return Critic(world_model.latent_dim, critic.units)

        built = [
            CellState.initial(
                _params(seeding.built(lambda: build(settings, dims), c.seed, c.task, "policy")),
                _stack(
                    [
                        _params(seeding.built(build_critic, c.seed, c.task, f"critic {i}"))
                        for i in range(critic.count)
                    ]
                ),
            )
            for c in cells
        ]
        self.training: CellState = tree_map(lambda t: t.to(device), _stack(built))
        self.roles = Roles(
            world_model,
            world_model_component.predict,
            build(settings, dims).to(device),
            policy.component.rollout,
            policy.component.loss,
            build_critic().to(device),
        )
        update = make_policy_update(
            self.roles,
            PolicySettings(
                config.discount,
                config.lam,
                (config.betas[0], config.betas[1]),
                config.actor_grad_clip,
                config.critic_grad_clip,
                config.critic_iterations,
                config.critic_minibatches,
            ),
        )
        self.eager_update = update
        self.update = torch.compile(update, fullgraph=True) if compiled else update

    def step(self, iteration: int) -> dict[str, Tensor]:
        """One update of every cell on fresh starts and noise."""
        self.training, metrics = self.update(self.training, self._start(), self._rates(iteration))
        return metrics

    def example(self) -> tuple[CellState, Start, Rates]:
        """Arguments of ``update`` as the first step will see them; nothing is used up."""
        saved = [g.get_state() for g in self.generators]
        start = self._start()
        for generator, state in zip(self.generators, saved, strict=True):
            generator.set_state(state)
        return self.training, start, self._rates(1)

    def _start(self) -> Start:
        horizon, batch = self.config.horizon, self.config.batch
        obs = [s.sample(batch, g) for s, g in zip(self.starts, self.generators, strict=True)]

        def noise(width: int) -> Tensor:
            draws = [torch.randn(horizon, batch, width, generator=g) for g in self.generators]
            return torch.stack(draws).to(self.device)

        return Start(
            torch.stack(obs),
            self.index_T.unsqueeze(1).expand(-1, batch),
            self.mask_TA.unsqueeze(1).expand(-1, batch, -1),
            noise(self.roles.policy.noise_dim),
            noise(self.roles.world_model.noise_dim),
        )

    def _rates(self, iteration: int) -> Rates:
        config, done = self.config, (iteration - 1) / self.config.iterations
        rates = [
            linear_decay(start, config.final_learning_rate, done)
            for start in (config.actor_learning_rate, config.critic_learning_rate)
        ]
        return Rates(*(torch.tensor(rate, device=self.device) for rate in rates))

    def describe(self, metrics: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over the cells, then each cell's own, in one transfer."""
        values = torch.stack(list(metrics.values())).tolist()
        result = {}
        for name, row in zip(metrics, values, strict=True):
            result[name] = sum(row) / len(row)
            result.update({f"{c}/{name}": v for c, v in zip(self.cells, row, strict=True)})
        return result

    def evaluate(self, iteration: int) -> dict[str, float]:
        """Mean returns in the simulator, of all cells and of each."""
        means = self.returns(self.evaluation.episodes).mean(1)
        each = {f"{c}/return": float(v) for c, v in zip(self.cells, means, strict=True)}
        return {"return": float(means.mean()), **each}

    def returns(
        self, episodes: int, params: Params | None = None, steps: int = EPISODE_STEPS
    ) -> NDArray[np.float64]:
        """``[cells, episodes]`` returns of the deterministic policies, or of ``params``."""
        return self.evaluator.policies(
            self.roles,
            self.predict,
            params or self.training.policy,
            self.tasks,
            self.index_T,
            self.mask_TA,
            episodes,
            steps,
        )

    def weights(self) -> dict[str, Tensor]:
        """Policies and critics, stacked along the cells."""
        both = {"policy": self.training.policy, "critics": self.training.critics}
        return {f"{part}.{k}": v for part, params in both.items() for k, v in params.items()}

    def state(self) -> Any:
        """Optimisers, return scales, generators."""
        return {
            "cells": [str(cell) for cell in self.cells],
            "policy_adam": tuple(self.training.policy_adam),
            "critic_adam": tuple(self.training.critic_adam),
            "scale": tuple(self.training.scale),
            "generators": [g.get_state() for g in self.generators],
        }

    def load(self, weights: Mapping[str, Tensor], state: Any) -> None:
        """Continue from a checkpoint."""

        def part(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): v.to(self.device) for k, v in weights.items()
                    if k.startswith(f"{name}.")}  # fmt: skip

        adam = {
            name: AdamState(*tree_map_only(Tensor, lambda t: t.to(self.device), state[name]))
            for name in ("policy_adam", "critic_adam")
        }
        scale = ReturnScale(*(t.to(self.device) for t in state["scale"]))
        self.training = CellState(
            part("policy"), adam["policy_adam"], part("critics"), adam["critic_adam"], scale
        )
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved)


def _params(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def _stack(trees: Sequence[Any]) -> Any:
    return tree_map(lambda *leaves: torch.stack(leaves), *trees)
