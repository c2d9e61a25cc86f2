"""World models that learn beside policies, one per cell (protocols finetuned and scratch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor

from fmbpo.base.metrics import of_model
from fmbpo.config.protocols import Finetuned, Scratch
from fmbpo.config.schema import Experiment, PluginTable
from fmbpo.data.sampler import Drawn, Rows, Sampler, SliceSampler, ahead
from fmbpo.data.sending import send
from fmbpo.errors import UserError
from fmbpo.hookspecs import Batch, WorldModel
from fmbpo.measure.cost import flops
from fmbpo.measure.health import learning_health, world_model_health
from fmbpo.measure.validation import Measures, Validator
from fmbpo.nn.state import warm_up
from fmbpo.pwm.optim import AdamState, Params
from fmbpo.pwm.pair import bound
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate, model_rate
from fmbpo.runs.findings import Finding
from fmbpo.training import seeding
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.dataset import Dataset, check_rewards, with_slices
from fmbpo.training.networks import build_world_model
from fmbpo.training.trees import Saved, noise, own_params, set_states, stack, to_device


def check_learning(experiment: Experiment, data: Dataset) -> None:
    """``UserError`` if world models cannot learn beside policies on this data set."""
    if not isinstance(experiment.protocol, Finetuned | Scratch):
        return
    tables = experiment.of_policies
    loss_table(experiment)
    with_slices(data.train, tables.policy_learning.horizon, "policy_learning.horizon")
    residence = data.train.residence
    if residence.kind == "stream" and not residence.plain:
        raise UserError(
            "world models that learn beside policies read slices of all episodes, each of which "
            "would decode a compressed chunk",
            where=str(residence.store.path),
            remedy="make the data set without compression, or use a machine whose memory holds it",
        )
    wanted = set(experiment.grid.tasks or data.tasks)
    for task in [task for task in data.tasks if task in wanted]:
        if not (data.held_out.task_E == data.suite.index(task)).any():
            raise UserError(
                f"the data set has no held-out episode of task {task!r} to validate its model on",
                where="grid.tasks",
                remedy="provide at least two episodes of the task, or remove it from the grid",
            )


class OwnModels:
    """The stacked world models of some cells, with their optimisers, data and noise: copies of
    ``begun_from``, or fresh ones for ``scratch``. ``check_learning`` must have passed.

    Each learns from sub-trajectories of its own cell's task, as PWM's agents do, with the world
    model's own loss. They are measured on all episodes, whatever the conventions let them see.
    """

    def __init__(
        self,
        context: Context,
        protocol: Finetuned | Scratch,
        cells: Sequence[Cell],
        begun_from: WorldModel,
    ) -> None:
        e, self.device = context.experiment, context.device
        tables, data = e.of_policies, context.policy_data
        self.protocol, self.learning = protocol, tables.policy_learning
        table = loss_table(e)
        self.module = build_world_model(table, context.data.suite, 0, self.device)
        self.module.requires_grad_(False)
        check_rewards(context.data, bound(self.module))
        self.component = table.component
        fresh = isinstance(protocol, Scratch)
        modules = [
            build_world_model(table, context.data.suite, c.seed, self.device, *c.purpose)
            if fresh
            else begun_from
            for c in cells
        ]
        stale = tables.conventions.task_embedding == "stale"
        states = [WorldModelState.initial(own_params(module), stale) for module in modules]
        self.training: WorldModelState = stack(states).laid_out(stacked=True)
        self.eager_update = WorldModelUpdate(
            self.module, self.component.loss, protocol.optimiser, stacked=True
        )
        self.update = context.prepared(self.eager_update.__call__, "the world models' update")
        tasks = [cell.task for cell in cells]
        horizon, batch = self.learning.horizon, self.learning.batch

        def sampler(cell: Cell) -> Sampler:
            rows = with_slices(data.train.of_task(data.suite.index(cell.task)), horizon)
            seed = seeding.derive(cell.seed, *cell.purpose, "slices")
            return ahead(SliceSampler(rows, horizon, batch, seed))

        self.samplers = [sampler(cell) for cell in cells]
        self.generators = [
            seeding.generator(c.seed, *c.purpose, "world model noise") for c in cells
        ]
        whole = context.data.train, context.data.held_out

        def own_rows(task: str) -> tuple[Rows, Rows]:
            index = data.suite.index(task)
            return whole[0].of_task(index), whole[1].of_task(index)

        validators = {
            task: Validator(*own_rows(task), warm_up(self.module)) for task in dict.fromkeys(tasks)
        }
        self.validators = [validators[task] for task in tasks]
        self.before: list[Measures] = []
        """Each cell's held-out measures at the first evaluation, before its model learns."""
        self.after: list[Measures] = []
        """The same at the last evaluation."""

    @property
    def params(self) -> Params:
        """Parameters, stacked along the cells."""
        return self.training.params

    def step(self, iteration: int) -> tuple[Batch, dict[str, Tensor]]:
        """Update every model before an update of the policies; returns the last batch, stacked
        along T, and the metrics of its update."""
        for _ in range(self.protocol.model_iterations):
            batch, *inputs = self._inputs(iteration)
            self.training, metrics = self.update(self.training, batch, *inputs)
        return batch, {of_model(k): v for k, v in metrics.items()}

    def count_flops(self) -> int:
        """Floating-point operations of ``step``, all models; consumes no batch and no noise."""
        saved = self.state()
        cost = flops(self.eager_update, self.training, *self._inputs(1))
        self._load_sources(saved)
        return cost * self.protocol.model_iterations

    def _inputs(self, iteration: int) -> tuple[Batch, Tensor, Tensor, Tensor]:
        drawn = [sampler.next() for sampler in self.samplers]
        shape = self.learning.horizon, self.learning.batch, self.module.loss_noise_dim
        done = (iteration - 1) / self.learning.iterations
        rate = model_rate(self.protocol.optimiser, done)
        inputs = [noise(self.generators, *shape), rate, torch.tensor(done), *stack(drawn)]
        noise_THBN, rate, share, *sent = send(inputs, self.device)
        each = zip(self.samplers, *sent, strict=True)
        batch: Batch = stack([sampler.batch(Drawn(*own)) for sampler, *own in each])
        return batch, noise_THBN, rate, share

    def evaluate(self) -> list[Measures]:
        """Each cell's held-out measures on its own task; see ``Validator``."""
        found = []
        for i, validator in enumerate(self.validators):
            self.module.load_state_dict({k: v[i] for k, v in self.params.items()})
            found.append(validator(self.module, self.component.rollout))
        self.before, self.after = self.before or found, found
        return found

    def health(self, cells: Sequence[object]) -> list[Finding]:
        """Gates that the models' last measures did not pass; ``cells`` names the models."""
        found = []
        for cell, before, after in zip(cells, self.before, self.after, strict=True):
            found += world_model_health(after, str(cell))
            found += learning_health(before, after, str(cell))
        return found

    def state(self) -> Saved:
        """Optimisers, samplers, generators."""
        return {
            "moments": tuple(self.training.adam),
            "stale": self.training.stale,
            "measures": (self.before, self.after),
            "samplers": [s.state() for s in self.samplers],
            "noise": [g.get_state() for g in self.generators],
        }

    def load(self, weights: Mapping[str, Tensor], state: Saved) -> None:
        """Continue from a checkpoint."""
        params, adam, stale = to_device(
            (dict(weights), state["moments"], state["stale"]), self.device
        )
        learnt = WorldModelState(params, AdamState(*adam), stale)
        self.training = learnt.laid_out(stacked=True)
        self.before, self.after = state["measures"]
        self._load_sources(state)

    def _load_sources(self, state: Saved) -> None:
        for sampler, saved in zip(self.samplers, state["samplers"], strict=True):
            sampler.load_state(saved)
        set_states(self.generators, state["noise"])


def loss_settings(horizon: int, discount: float) -> dict[str, str | float]:
    """PWM's released model loss, ``(Σ_t γ^t mse_t + mean γ^t (logit - r)²) / H``, as settings."""
    return {
        "reward_loss": "logit_mse",
        "consistency_coef": 1.0,
        "reward_coef": 1.0 / horizon,
        "rho": discount,
    }


def loss_table(experiment: Experiment) -> PluginTable:
    """The world model's settings for its updates during policy learning.

    Raises ``UserError`` if the conventions ask for PWM's loss and the plugin does not offer it.
    """
    table, tables = experiment.world_model, experiment.of_policies
    if tables.conventions.model_loss == "two_hot":
        return table
    known = {field.name for field in attrs.fields(type(table.config))}
    wanted = loss_settings(tables.policy_learning.horizon, tables.policy_learning.discount)
    if missing := wanted.keys() - known:
        raise UserError(
            f"world model {table.plugin!r} has no setting {', '.join(sorted(missing))}",
            where="conventions.model_loss",
            remedy='set it to "two_hot", or choose another world model',
        )
    return attrs.evolve(table, config=attrs.evolve(table.config, **wanted))
