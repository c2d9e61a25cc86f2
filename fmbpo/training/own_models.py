"""World models that learn beside policies, one a cell (protocols finetuned and scratch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.protocols import Finetuned, Scratch
from fmbpo.config.schema import Experiment, PluginTable, PolicyLearningConfig
from fmbpo.data.residence import Stored
from fmbpo.data.sampler import SliceSampler, ahead
from fmbpo.errors import UserError
from fmbpo.hookspecs import Batch
from fmbpo.measure.cost import flops
from fmbpo.measure.health import learning_health, world_model_health
from fmbpo.measure.validation import Validator
from fmbpo.pwm.optim import AdamState, Params, linear_decay
from fmbpo.pwm.world_model import (
    WorldModelSettings,
    WorldModelState,
    make_world_model_update,
)
from fmbpo.runs.findings import Finding
from fmbpo.runs.metrics import of_model
from fmbpo.tasks.mt30 import task_info
from fmbpo.training import seeding
from fmbpo.training.dataset import Dataset, check_horizon
from fmbpo.training.pretraining import build_world_model
from fmbpo.training.trees import own_params, stack, to_device


def learning_models(
    experiment: Experiment,
    learning: PolicyLearningConfig,
    cells: Sequence[Any],
    module: Any,
    data: Dataset,
    whole: Dataset,
    device: torch.device,
) -> ModelLearning | None:
    """The protocol's learning world models: copies of ``module``, or fresh ones; None: frozen.

    They learn from ``data`` and are measured on ``whole``, whose episodes no convention chose;
    ``check_learning`` has passed.
    """
    e = experiment
    protocol = e.protocol
    if not isinstance(protocol, Finetuned | Scratch):
        return None
    assert e.conventions
    table = loss_table(e.world_model, e.conventions, learning)
    if isinstance(protocol, Scratch):
        modules = [build_world_model(table, c.seed, device, c.task) for c in cells]
    else:
        modules = [module] * len(cells)
    template = build_world_model(table, 0, device)
    template.requires_grad_(False)
    return ModelLearning(
        [(c.task, c.seed) for c in cells],
        template,
        table,
        [own_params(m) for m in modules],
        protocol,
        e.conventions,
        learning,
        data,
        whole,
        device,
        e.system.compile,
    )


def check_learning(experiment: Experiment, data: Dataset) -> None:
    """``UserError`` for what keeps world models from learning beside policies on these data."""
    e = experiment
    if not isinstance(e.protocol, Finetuned | Scratch) or not (e.policy_learning and e.conventions):
        return
    try:
        loss_table(e.world_model, e.conventions, e.policy_learning)
    except ValueError as error:
        raise UserError(
            str(error),
            where="conventions.model_loss",
            remedy='set it to "two_hot", or choose another world model',
        ) from error
    check_horizon(data.train, e.policy_learning.horizon, "policy_learning.horizon")
    residence = data.train.residence
    if isinstance(residence, Stored) and not residence.plain:
        raise UserError(
            "world models that learn beside policies read slices of all episodes, each of which "
            "would decode a compressed chunk",
            where=str(residence.store.path),
            remedy="make the data set without compression, or use a machine whose memory holds it",
        )
    for task in e.grid.tasks if e.grid and e.grid.tasks else data.tasks:
        if not (data.held_out.task_E == task_info(task).index).any():
            raise UserError(
                f"the data set has no held-out episode of task {task!r} to validate its model on",
                where="grid.tasks",
                remedy="give at least two episodes of the task, or leave it out of the grid",
            )


class ModelLearning:
    """The world models of some cells, stacked, with their optimisers, data and noise.

    Each learns from sub-trajectories of its own cell's task, as PWM's agents do, with the world
    model's own loss.
    """

    def __init__(
        self,
        cells: Sequence[tuple[str, int]],
        module: Any,
        table: PluginTable,
        initial: Sequence[Params],
        protocol: Finetuned | Scratch,
        conventions: ConventionsConfig,
        learning: PolicyLearningConfig,
        data: Dataset,
        whole: Dataset,
        device: torch.device,
        compiled: bool,
    ) -> None:
        self.module, self.component, self.device = module, table.component, device
        self.protocol, self.iterations, self.horizon = (
            protocol,
            learning.iterations,
            learning.horizon,
        )
        stale = conventions.task_embedding == "stale"
        states = [WorldModelState.initial(params, stale) for params in initial]
        self.training: WorldModelState = stack(states)
        settings = WorldModelSettings(
            (protocol.model_betas[0], protocol.model_betas[1]),
            protocol.model_grad_clip,
            protocol.model_encoder_scale,
            stale,
        )
        update = make_world_model_update(module, self.component.loss, settings, stacked=True)
        self.eager_update = update
        self.update = torch.compile(update, fullgraph=True) if compiled else update
        rows = {task: data.train.of_task(task_info(task).index) for task, _ in cells}
        seeds = [(t, seeding.derive(s, t, "slices")) for t, s in cells]
        self.samplers = [
            ahead(SliceSampler(rows[t], self.horizon, learning.batch, seed), rows[t])
            for t, seed in seeds
        ]
        self.generators = [seeding.generator(s, t, "world model noise") for t, s in cells]
        validators = {
            task: Validator(
                *(part.of_task(task_info(task).index) for part in (whole.train, whole.held_out))
            )
            for task in rows
        }
        self.validators = [validators[task] for task, _ in cells]
        self.before: list[dict[str, float]] = []
        """Each cell's held-out measures at the first evaluation, before its model learns here."""
        self.after: list[dict[str, float]] = []
        """The same at the last evaluation."""

    @property
    def params(self) -> Params:
        """Parameters, stacked along the cells."""
        return self.training.params

    def step(self, iteration: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The updates of every model before one of the policies: the first observations
        ``[T, B, O]`` and the metrics of the last."""
        for _ in range(self.protocol.model_iterations):
            batch, noise, rate = self._inputs(iteration)
            self.training, metrics = self.update(self.training, batch, noise, rate)
        return batch.obs_HBO[:, 0], {of_model(k): v for k, v in metrics.items()}

    def count_flops(self) -> int:
        """Floating-point operations of ``step``, all models; nothing is used up."""
        saved = self.state()
        cost = flops(self.eager_update, self.training, *self._inputs(1))
        self._load_sources(saved)
        return cost * self.protocol.model_iterations

    def _inputs(self, iteration: int) -> tuple[Batch, Tensor, Tensor]:
        batch: Batch = stack([s.sample() for s in self.samplers])
        shape = self.horizon, batch.index_B.shape[1], int(self.module.loss_noise_dim)
        noise = torch.stack([torch.randn(shape, generator=g) for g in self.generators])
        rate = linear_decay(
            self.protocol.model_learning_rate,
            self.protocol.model_final_learning_rate,
            (iteration - 1) / self.iterations,
        )
        return batch, noise.to(self.device), torch.tensor(rate, device=self.device)

    def evaluate(self) -> list[dict[str, float]]:
        """Each cell's held-out measures on its own task; see ``Validator``."""
        found = []
        for i, validator in enumerate(self.validators):
            self.module.load_state_dict({k: v[i] for k, v in self.params.items()})
            found.append(validator(self.module, self.component.rollout))
        self.before, self.after = self.before or found, found
        return found

    def health(self, cells: Sequence[object]) -> list[Finding]:
        """What is wrong with the models as they were last measured; ``cells`` names them."""
        found = []
        for cell, before, after in zip(cells, self.before, self.after, strict=True):
            found += world_model_health(after, str(cell))
            found += learning_health(before, after, str(cell))
        return found

    def state(self) -> Any:
        """Optimisers, samplers, generators."""
        return {
            "adam": tuple(self.training.adam),
            "stale": self.training.stale,
            "measures": (self.before, self.after),
            "samplers": [s.state() for s in self.samplers],
            "noise": [g.get_state() for g in self.generators],
        }

    def load(self, weights: Mapping[str, Tensor], state: Any) -> None:
        """Continue from a checkpoint."""
        params, adam, stale = to_device((dict(weights), state["adam"], state["stale"]), self.device)
        self.training = WorldModelState(params, AdamState(*adam), stale)
        self.before, self.after = state["measures"]
        self._load_sources(state)

    def _load_sources(self, state: Any) -> None:
        for sampler, saved in zip(self.samplers, state["samplers"], strict=True):
            sampler.load_state(saved)
        for generator, saved in zip(self.generators, state["noise"], strict=True):
            generator.set_state(saved)


def loss_settings(horizon: int, discount: float) -> dict[str, Any]:
    """PWM's released model loss, ``(Σ_t γ^t mse_t + mean γ^t (logit - r)²) / H``, as settings."""
    return {
        "reward_loss": "logit_mse",
        "consistency_coef": 1.0,
        "reward_coef": 1.0 / horizon,
        "rho": discount,
    }


def loss_table(
    table: PluginTable, conventions: ConventionsConfig, learning: PolicyLearningConfig
) -> PluginTable:
    """The world model's settings for its updates during policy learning.

    Raises ``ValueError`` where the plugin does not offer PWM's.
    """
    if conventions.model_loss == "two_hot":
        return table
    known = {field.name for field in attrs.fields(type(table.config))}
    wanted = loss_settings(learning.horizon, learning.discount)
    if missing := wanted.keys() - known:
        raise ValueError(
            f"world model {table.plugin!r} has no setting {', '.join(sorted(missing))}"
        )
    return attrs.evolve(table, config=attrs.evolve(table.config, **wanted))
