"""Training a grid of policies inside world models, stacked in one program."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.schema import Experiment, PolicyLearningConfig
from fmbpo.data.sampler import start_samplers
from fmbpo.hookspecs import PolicyDims
from fmbpo.measure.cost import flops
from fmbpo.measure.evaluation import Evaluator
from fmbpo.pwm.critic import Critic, ReturnScale
from fmbpo.pwm.diagnostics import diagnose
from fmbpo.pwm.imagination import PolicySettings, Roles, Start, make_losses
from fmbpo.pwm.mppi import PlannerSettings, planning_act
from fmbpo.pwm.optim import AdamState, Params, linear_decay
from fmbpo.pwm.policy import CellState, Rates, make_policy_update
from fmbpo.runs.findings import Finding
from fmbpo.runs.metrics import DIAGNOSTICS_SECONDS, RETURN, Row, held_out
from fmbpo.tasks.env import EPISODE_STEPS
from fmbpo.tasks.mt30 import ACTION_WIDTH, task_info
from fmbpo.training import seeding
from fmbpo.training.cells import Cell
from fmbpo.training.dataset import Dataset
from fmbpo.training.own_models import ModelLearning
from fmbpo.training.trees import own_params, stack, to_device


class PolicyTraining:
    """The stage: the policies and critics of some cells, their optimisers, their noise."""

    def __init__(
        self,
        name: str,
        cells: Sequence[Cell],
        experiment: Experiment,
        world_model: Any,
        data: Dataset,
        evaluator: Evaluator,
        device: torch.device,
        models: ModelLearning | None = None,
    ) -> None:
        """``world_model``: the module that all cells share; ``models``: where each has its own,
        their parameters take the place of the module's."""
        e = experiment
        assert e.policy and e.policy_learning and e.critic and e.conventions
        policy, config, critic = e.policy, e.policy_learning, e.critic
        self.name, self.cells, self.config, self.device = name, cells, config, device
        self.evaluation, self.evaluator, self.models = e.evaluation, evaluator, models
        self.predict = policy.component.predict
        self.tasks = [cell.task for cell in cells]
        index_T = torch.tensor([task_info(task).index for task in self.tasks], device=device)
        self.index_T, self.mask_TA = index_T, data.train.mask_KA[index_T]
        of_task = start_samplers(data.train, torch.unique(index_T).tolist())
        self.starts = [of_task[int(i)] for i in index_T]
        self.generators = [seeding.generator(c.seed, c.task, "imagination") for c in cells]

        dims = PolicyDims(world_model.latent_dim, world_model.task_dim, ACTION_WIDTH)
        build, own = policy.component.build, policy.config

        def build_critic() -> Critic:
            return Critic(world_model.latent_dim, critic.units)

        built = [
            CellState.initial(
                own_params(seeding.built(lambda: build(own, dims), c.seed, c.task, "policy")),
                stack(
                    [
                        own_params(seeding.built(build_critic, c.seed, c.task, f"critic {i}"))
                        for i in range(critic.count)
                    ]
                ),
            )
            for c in cells
        ]
        self.training: CellState = to_device(stack(built), device)
        # Their parameters give way to the cells'; `fmbpo check` looks at them, so they are seeded.
        module, one_critic = (
            seeding.built(make, cells[0].seed, cells[0].task, "template")
            for make in (lambda: build(own, dims), build_critic)
        )
        self.roles = Roles(
            world_model,
            e.world_model.component.predict,
            module.to(device),
            policy.component.rollout,
            policy.component.loss,
            one_critic.to(device),
        )
        self.planning = PlannerSettings(
            e.planning, config.discount, e.conventions.imagined_reward == "symlog"
        )
        settings = policy_settings(config, e.conventions)
        self.losses = make_losses(self.roles, settings)
        update = make_policy_update(self.roles, settings)
        self.eager_update = update
        self.update = torch.compile(update, fullgraph=True) if e.system.compile else update

    def step(self, iteration: int) -> dict[str, Tensor]:
        """One update of every cell on fresh starts and noise, after one of its own model."""
        if self.models is None:
            start = self._start()
            self.training, metrics = self.update(self.training, start, self._rates(iteration))
            return metrics
        obs, model_metrics = self.models.step(iteration)
        self.training, metrics = self.update(
            self.training, self._start(obs), self._rates(iteration), self.models.params
        )
        return {**metrics, **model_metrics}

    def example(self) -> tuple[Any, ...]:
        """Arguments of ``update`` as the first step will see them; nothing is used up."""
        saved = [g.get_state() for g in self.generators]
        start = self._start()
        for generator, state in zip(self.generators, saved, strict=True):
            generator.set_state(state)
        models = (self.models.params,) if self.models else ()
        return self.training, start, self._rates(1), *models

    def initial(self) -> tuple[Params, Params]:
        """The parameters now, of the policies and of the world models that are their own."""
        return self.training.policy, self.models.params if self.models else {}

    def count_flops(self) -> int:
        """Floating-point operations of one update of all cells."""
        return flops(self.eager_update, *self.example()) + (
            self.models.count_flops() if self.models else 0
        )

    def _start(self, obs_TBO: Tensor | None = None) -> Start:
        horizon, batch = self.config.horizon, self.config.batch
        if obs_TBO is None:
            both = zip(self.starts, self.generators, strict=True)
            obs_TBO = torch.stack([sampler.sample(batch, g) for sampler, g in both])

        def noise(width: int) -> Tensor:
            draws = [torch.randn(horizon, batch, width, generator=g) for g in self.generators]
            return torch.stack(draws).to(self.device)

        return Start(
            obs_TBO,
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

    def describe(self, metrics: Mapping[str, Tensor]) -> list[Row]:
        """Means over the cells, then each cell's own, in one transfer."""
        values = torch.stack(list(metrics.values())).tolist()
        means = {name: sum(row) / len(row) for name, row in zip(metrics, values, strict=True)}
        own = zip(self.cells, zip(*values, strict=True), strict=True)
        cells = [Row(dict(zip(metrics, v, strict=True)), c.task, c.seed) for c, v in own]
        return [Row(means), *cells]

    def evaluate(self, iteration: int) -> list[Row]:
        """Mean returns in the simulator, of all cells and of each."""
        means = self.returns(self.evaluation.episodes).mean(1)
        rows = [Row({RETURN: float(means.mean())})]
        measured = self.models.evaluate() if self.models else [{}] * len(self.cells)
        for cell, mean, measures in zip(self.cells, means, measured, strict=True):
            values = {RETURN: float(mean), **{held_out(k): v for k, v in measures.items()}}
            rows.append(Row(values, cell.task, cell.seed))
        return rows

    def health(self) -> list[Finding]:
        """What is wrong with the cells' own world models as they were last measured."""
        return self.models.health(self.cells) if self.models else []

    def diagnose(self) -> list[Row]:
        """The actor's gradients (``fmbpo.pwm.diagnostics``), on the starts that the next update
        will have."""
        began = time.monotonic()
        state, start, *_ = self.example()
        models = self.models.params if self.models else {}
        measures = diagnose(
            self.roles, self.losses, self.predict, state, start, models, self.cells[0].seed
        )
        means, *cells = self.describe(measures)
        seconds = {DIAGNOSTICS_SECONDS: time.monotonic() - began}
        return [Row({**means.values, **seconds}), *cells]

    def returns(
        self,
        episodes: int,
        params: tuple[Params, Params] | None = None,
        steps: int = EPISODE_STEPS,
    ) -> NDArray[np.float64]:
        """``[cells, episodes]`` returns of the deterministic policies, or of those that were
        ``initial``."""
        policies, models = params or self.initial()
        return self.evaluator.policies(
            self.roles,
            self.predict,
            policies,
            self.tasks,
            self.index_T,
            self.mask_TA,
            episodes,
            steps,
            models,
        )

    def planned_returns(
        self, progress: Callable[[int, int], None], steps: int = EPISODE_STEPS
    ) -> NDArray[np.float64]:
        """``[cells, planning.episodes]`` returns of planning in the world models at every step,
        each plan begun by the policy."""
        act = planning_act(
            self.roles,
            self.predict,
            self.planning,
            self.training.policy,
            self.training.critics,
            self.models.params if self.models else {},
            self.index_T,
            self.mask_TA,
            self.evaluation.seed,
        )
        episodes = self.planning.planning.episodes
        return self.evaluator.run(act, self.tasks, episodes, steps, progress)

    def weights(self) -> dict[str, Tensor]:
        """Policies and critics, and world models of their own, stacked along the cells."""
        parts = {"policy": self.training.policy, "critics": self.training.critics}
        if self.models is not None:
            parts["world_model"] = self.models.params
        return {f"{part}.{k}": v for part, params in parts.items() for k, v in params.items()}

    def state(self) -> Any:
        """Optimisers, return scales, generators."""
        return {
            "policy_adam": tuple(self.training.policy_adam),
            "critic_adam": tuple(self.training.critic_adam),
            "scale": tuple(self.training.scale),
            "generators": [g.get_state() for g in self.generators],
            "models": self.models and self.models.state(),
        }

    def load(self, weights: Mapping[str, Tensor], state: Any) -> None:
        """Continue from a checkpoint."""

        def part(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): v.to(self.device) for k, v in weights.items()
                    if k.startswith(f"{name}.")}  # fmt: skip

        adam = {
            name: AdamState(*to_device(state[name], self.device))
            for name in ("policy_adam", "critic_adam")
        }
        scale = ReturnScale(*to_device(state["scale"], self.device))
        self.training = CellState(
            part("policy"), adam["policy_adam"], part("critics"), adam["critic_adam"], scale
        )
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved)
        if self.models is not None:
            self.models.load(part("world_model"), state["models"])


def policy_settings(config: PolicyLearningConfig, conventions: ConventionsConfig) -> PolicySettings:
    """What of the two tables stays constant over the updates."""
    return PolicySettings(
        config.discount,
        config.lam,
        (config.betas[0], config.betas[1]),
        config.actor_grad_clip,
        config.critic_grad_clip,
        config.critic_iterations,
        config.critic_minibatches,
        one_step_targets=conventions.critic_targets == "one_step",
        late_bootstrap=conventions.bootstrap == "horizon_plus_one",
        symlog_reward=conventions.imagined_reward == "symlog",
    )
