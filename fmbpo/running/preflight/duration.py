"""How long a run will take on this machine: measured where an update is short, else estimated.

``rough`` has two terms::

    seconds an update = flops / (EFFICIENCY * rate) + operations * CALL

``rate``: that of a product of two square matrices, measured here; networks of the study reach a
little more than half of it. Measured paces are medians of a few real updates after a first one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import attrs
import torch

from fmbpo.measure.evaluation import Evaluator
from fmbpo.running.preflight.on_shapes import Cost
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.networks import build_world_model
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.pretraining import Pretraining

EFFICIENCY = 0.6
"""Share of the matrix products' rate that updates reach."""
CALL = 15e-6
"""Seconds of one of torch's operations in an update, autograd and ``vmap`` included."""
SHORT = 60.0
"""Seconds of updates below which a run is not worth measuring."""
MEASURABLE = 2.0
"""Seconds of an update, roughly, up to which updates are measured on a CPU."""
UPDATES, SECONDS = 3, 2.0
"""Updates of a measurement, and the seconds after which it is content with fewer."""
STEPS = 20
"""Simulated steps of a measurement."""


@attrs.frozen
class Pace:
    """Seconds an update, a validation of the world model, and a simulated step of all cells with
    one episode each. ``measured``: not ``rough``."""

    update: float
    validation: float = 0.0
    step: float = 0.0
    measured: bool = False


def rough(cost: Cost, rate: float) -> Pace:
    """An estimate from operations; evaluations are left out."""
    return Pace(cost.flops / (EFFICIENCY * rate) + cost.operations * CALL)


def matmul_rate(device: torch.device) -> float:
    """Floating-point operations a second of a matrix product: the best of five."""
    width = 512 if device.type == "cpu" else 4096
    a = torch.ones(width, width, device=device)
    return 2 * width**3 / min(_seconds(lambda: a @ a, device) for _ in range(5))


def pretraining_pace(context: Context) -> Pace:
    """Real updates at the experiment's shape, and one validation, of a model that is dropped."""
    stage = Pretraining(_eager(context))
    update = _median(lambda: stage.step(1), context.device)
    return Pace(update, _seconds(lambda: stage.evaluate(0), context.device), measured=True)


def policies_pace(context: Context, cells: Sequence[Cell], evaluator: Evaluator) -> Pace:
    """The same of policies in an untrained world model, and some steps in the simulator."""
    e, device = context.experiment, context.device
    module = build_world_model(e.world_model, e.pretrain.seed, device)
    e.world_model.component.freeze(module)
    stage = PolicyTraining("preflight", cells, _eager(context), module, evaluator)
    update = _median(lambda: stage.step(1), device)
    stage.returns(1, steps=1)  # builds the simulations
    one = _seconds(lambda: stage.returns(1, steps=1), device)
    more = _seconds(lambda: stage.returns(1, steps=STEPS), device)
    validation = _seconds(stage.models.evaluate, device) if stage.models else 0.0
    return Pace(update, validation, max(more - one, 0.0) / (STEPS - 1), measured=True)


def _eager(context: Context) -> Context:
    e = context.experiment
    system = attrs.evolve(e.system, compile=False)
    return attrs.evolve(context, experiment=attrs.evolve(e, system=system))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch with so many threads on the CPU (0: as it is), and afterwards as before."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _median(update: Callable[[], object], device: torch.device) -> float:
    first = _seconds(update, device)
    found: list[float] = []
    while len(found) < UPDATES and sum(found, first) < SECONDS:
        found.append(_seconds(update, device))
    return statistics.median(found or [first])


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
