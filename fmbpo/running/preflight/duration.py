"""The expected duration of a run on this machine: measured if updates are short, else estimated.

``rough`` has two terms::

    seconds per update = flops / (EFFICIENCY * rate) + operations * CALL

``rate``: that of a product of two square matrices, measured here; networks of the study reach a
little more than half of it. Measured paces are medians of a few real updates after the first two.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import cache

import attrs
import torch

from fmbpo.measure.evaluation import Evaluator, threads
from fmbpo.nn.blocks import plain_mlp
from fmbpo.running.preflight.on_shapes import Cost
from fmbpo.tasks.suite import Suite
from fmbpo.training import behaviour_cloning
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.networks import build_world_model
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.pretraining import Pretraining

EFFICIENCY = 0.6
"""Share of the matrix products' rate that updates reach."""
CALL = 15e-6
"""Seconds per torch operation in an update, autograd and ``vmap`` included."""
SHORT = 60.0
"""Seconds; a shorter run is not worth measuring."""
MEASURABLE = 2.0
"""Rough seconds per update; longer updates are not measured on a CPU."""
UPDATES, SECONDS = 3, 2.0
"""Updates per measurement, and the seconds after which fewer are enough."""
STEPS = 20
"""Simulated steps per measurement."""


@attrs.frozen
class Pace:
    """Seconds per update, per validation of the world model, per simulated step of all cells with
    one episode each, and per task of behaviour cloning. ``measured``: not ``rough``."""

    update: float
    validation: float = 0.0
    step: float = 0.0
    cloning: float = 0.0
    measured: bool = False


def rough(cost: Cost, rate: float, suite: Suite) -> Pace:
    """An estimate from operation counts, without evaluations."""
    update = cost.flops / (EFFICIENCY * rate) + cost.operations * CALL
    return Pace(update, cloning=cloning_seconds(suite))


@cache
def cloning_seconds(suite: Suite) -> float:
    """Seconds of behaviour cloning per task, from a few updates on made-up rows."""
    network = plain_mlp(suite.obs_width, behaviour_cloning.UNITS, suite.action_width)
    rows = torch.ones(8, suite.obs_width), torch.ones(8, suite.action_width)

    def update() -> object:
        return behaviour_cloning.learn(network, *rows, torch.Generator(), 1)

    with threads(1):
        return behaviour_cloning.UPDATES * _median(update, torch.device("cpu"))


def matmul_rate(device: torch.device) -> float:
    """Floating-point operations per second of a matrix product: the best of five."""
    width = 512 if device.type == "cpu" else 4096
    a = torch.ones(width, width, device=device)
    return 2 * width**3 / min(_seconds(lambda: a @ a, device) for _ in range(5))


def pretraining_pace(context: Context, batch: int) -> Pace:
    """Time real updates on batches of this size, and one validation, of a discarded model."""
    e = context.experiment
    part = attrs.evolve(e, pretrain=attrs.evolve(e.pretrain, batch=batch))
    stage = Pretraining(attrs.evolve(context, experiment=part), 0)
    update = _median(lambda: stage.step(1), context.device)
    return Pace(update, _seconds(lambda: stage.evaluate(0), context.device), measured=True)


def policies_pace(context: Context, cells: Sequence[Cell], evaluator: Evaluator) -> Pace:
    """The same for policies in an untrained world model, with some steps in the simulator."""
    e, device = context.experiment, context.device
    module = build_world_model(e.world_model, context.data.suite, 0, device)
    e.world_model.component.freeze(module)
    stage = PolicyTraining("preflight", cells, context, module, evaluator)
    update = _median(lambda: stage.step(1), device)
    stage.returns(1, steps=1)  # builds the simulations
    one = _seconds(lambda: stage.returns(1, steps=1), device)
    more = _seconds(lambda: stage.returns(1, steps=STEPS), device)
    validation = _seconds(stage.models.evaluate, device) if stage.models else 0.0
    step = max(more - one, 0.0) / (STEPS - 1)
    return Pace(update, validation, step, cloning_seconds(context.data.suite), measured=True)


def _median(update: Callable[[], object], device: torch.device) -> float:
    for _ in range(2):  # in which a graph is recorded and checked
        _seconds(update, device)
    found: list[float] = []
    while not found or (len(found) < UPDATES and sum(found) < SECONDS):
        found.append(_seconds(update, device))
    return statistics.median(found)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
