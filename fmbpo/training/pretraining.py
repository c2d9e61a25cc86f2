"""World-model training on recorded data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from fmbpo.base.metrics import SCORE, Row, held_out
from fmbpo.config.schema import PretrainConfig
from fmbpo.data.sampler import Drawn
from fmbpo.data.sending import send
from fmbpo.data.stream import slice_sampler
from fmbpo.distributed.group import ALONE, Group
from fmbpo.distributed.shares import shares
from fmbpo.hookspecs import Batch
from fmbpo.measure.cost import flops
from fmbpo.measure.health import world_model_health
from fmbpo.measure.validation import OVERALL, Measures, Validator
from fmbpo.nn.state import warm_up
from fmbpo.pwm.optim import AdamState, Params, flatten, unflatten
from fmbpo.pwm.pair import bound
from fmbpo.pwm.world_model import WorldModelState, WorldModelUpdate, model_rate
from fmbpo.runs.findings import Finding
from fmbpo.training import seeding
from fmbpo.training.context import Context
from fmbpo.training.dataset import check_rewards, with_slices
from fmbpo.training.networks import build_world_model
from fmbpo.training.trees import Saved, own_params, part, to_device

SMALLEST = 512
"""Rows (steps times batch) in the smallest part of a batch that is shared. The leader learns from
smaller ones alone, with the threads of all processes on its machine: exchanging gradients would
take longer (``docs/processes.md``)."""


def sharing(config: PretrainConfig, group: Group) -> Group:
    """The processes that share each batch: the whole group, or this one."""
    smallest = shares(config.batch, group.size)[-1]
    enough = config.horizon * (smallest.stop - smallest.start) >= SMALLEST
    return group if enough or group.size == 1 else ALONE


class Pretraining:
    """The pretraining stage: one world model, its optimiser, its data."""

    name = "pretrain"

    def __init__(self, context: Context, replicate: int) -> None:
        """``replicate``: the seed of initialisation, sampling and noise."""
        table, config = context.experiment.world_model, context.experiment.pretrain
        data, self.device = context.data, context.device
        train = with_slices(data.train, config.horizon)
        self.config, self.component = config, table.component
        self.group = sharing(config, context.group)
        self.group.order("pretrain", replicate)
        self.part = self.group.share(config.batch)
        self.share: float = (self.part.stop - self.part.start) / config.batch
        """This process's part of each batch, and its size as a fraction of the batch."""
        self.module = build_world_model(table, context.data.suite, replicate, self.device)
        check_rewards(data, bound(self.module))
        seed = seeding.derive(replicate, "slices")
        self.sampler = slice_sampler(
            train, config.horizon, config.batch, seed, data.weight_K, self.part
        )
        self.noise = seeding.generator(replicate, "world model noise")
        self.validator = Validator(data.train, data.held_out, warm_up(self.module))
        self.eager_update = WorldModelUpdate(self.module, self.component.loss, config.optimiser)
        self.update = context.prepared(self.eager_update.__call__, "the world model's update")
        if self.group.size > 1:
            self.first_half = context.prepared(
                partial(_first_half, self.eager_update), "the world model's gradient"
            )
            self.second_half = context.prepared(self.eager_update.step, "the world model's step")
        self.best: Params = own_params(self.module)
        self.training = WorldModelState.initial(self.best).laid_out()
        self.best_score, self.best_step = math.inf, 0
        self.measures: Measures = {}
        self.last: Measures = {}

    def step(self, iteration: int) -> dict[str, Tensor]:
        """One update on the next batch."""
        self.group.order_step(iteration)
        inputs = self._inputs(iteration)
        update = self.update if self.group.size == 1 else self._update_together
        self.training, metrics = update(self.training, *inputs)
        return metrics

    def _update_together(
        self,
        state: WorldModelState,
        batch: Batch,
        noise: Tensor,
        learning_rate: Tensor,
        done: Tensor,
    ) -> tuple[WorldModelState, dict[str, Tensor]]:
        """``update`` on the whole batch, of which each process has a part: the loss is a mean over
        the batch, so its gradient and metrics are weighted means over the parts."""
        flat, like = self.first_half(state.params, batch, noise, done)
        whole = unflatten(self.group.mean(flat, self.share), like)
        halves = part("gradient", whole), part("metric", whole)
        return self.second_half(state, *halves, learning_rate)

    def example(self) -> tuple[WorldModelState, Batch, Tensor, Tensor, Tensor]:
        """Arguments of ``update`` in the first step; consumes no batch and no noise."""
        saved = self.sampler.state(), self.noise.get_state()
        inputs = self._inputs(1)
        self.sampler.load_state(saved[0])
        self.noise.set_state(saved[1])
        return (self.training, *inputs)

    def count_flops(self) -> int:
        """Floating-point operations of one update on the whole batch: matrix products, whose cost
        is proportional to the batch."""
        return round(flops(self.eager_update, *self.example()) / self.share)

    def _inputs(self, iteration: int) -> tuple[Batch, Tensor, Tensor, Tensor]:
        config, done = self.config, (iteration - 1) / self.config.iterations
        rate = model_rate(config.optimiser, done)
        shape = (config.horizon, config.batch, self.module.loss_noise_dim)
        drawn = self.sampler.next()
        own_noise = torch.randn(shape, generator=self.noise)[:, self.part]
        inputs = [own_noise, rate, torch.tensor(done), *drawn]
        noise, rate, share, *sent = send(inputs, self.device)
        return self.sampler.batch(Drawn(*sent)), noise, rate, share

    def describe(self, metrics: Mapping[str, Tensor]) -> list[Row]:
        """The metrics as numbers, in one transfer from the device."""
        values = torch.stack(list(metrics.values())).tolist()
        return [Row(dict(zip(metrics, values, strict=True)))]

    def evaluate(self, iteration: int) -> list[Row]:
        """Held-out measures; keeps the parameters with the best score."""
        self.module.load_state_dict(self.training.params)
        measures = self.last = self.validator(self.module, self.component.rollout)
        score = measures[OVERALL][SCORE]
        if score < self.best_score and iteration:
            self.best_score, self.best_step = score, iteration
            self.best, self.measures = self.training.params, measures
        return [Row({held_out(name): value for name, value in measures[OVERALL].items()})]

    def health(self) -> list[Finding]:
        """Gates that the last measures did not pass."""
        return world_model_health(self.last)

    def diagnose(self) -> list[Row]:
        """None: diagnostics are for the actor's gradients."""
        return []

    def weights(self) -> dict[str, Tensor]:
        """Parameters after the last update."""
        return self.training.params

    def state(self) -> Saved:
        """Optimiser, sampler, generator, and the best parameters so far."""
        return {
            "moments": tuple(self.training.adam),
            "sampler": self.sampler.state(),
            "noise": self.noise.get_state(),
            "best": (self.best_score, self.best_step, self.best, self.measures),
        }

    def load(self, weights: Mapping[str, Tensor], state: Saved) -> None:
        """Continue from a checkpoint."""
        self.group.order("load", weights, state)
        params, adam = to_device((dict(weights), state["moments"]), self.device)
        self.training = WorldModelState(params, AdamState(*adam), {}).laid_out()
        self.sampler.load_state(state["sampler"])
        self.noise.set_state(state["noise"])
        self.best_score, self.best_step, best, self.measures = state["best"]
        self.best = to_device(best, self.device)


def _first_half(
    update: WorldModelUpdate, params: Params, batch: Batch, noise: Tensor, done: Tensor
) -> tuple[Tensor, Params]:
    """Gradient and metrics as one vector, and their shapes."""
    grads, metrics = update.gradient(params, batch, noise, done)
    own = {f"gradient.{k}": v for k, v in grads.items()}
    own |= {f"metric.{k}": v for k, v in metrics.items()}
    return flatten(own), own
