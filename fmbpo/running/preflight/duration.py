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

from fmbpo.config.schema import Experiment
from fmbpo.measure.evaluation import Evaluator
from fmbpo.running.preflight.on_shapes import Cost
from fmbpo.tasks.env import EPISODE_STEPS
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.training.cells import Cell
from fmbpo.training.dataset import Dataset, by_conventions
from fmbpo.training.own_models import learning_models
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.pretraining import Pretraining, build_world_model

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


def pretraining_pace(experiment: Experiment, data: Dataset, device: torch.device) -> Pace:
    """Real updates at the experiment's shape, and one validation, of a model that is dropped."""
    e = experiment
    stage = Pretraining(e.world_model, e.pretrain, data, device, compiled=False)
    update = _median(lambda: stage.step(1), device)
    return Pace(update, _seconds(lambda: stage.evaluate(0), device), measured=True)


def policies_pace(
    experiment: Experiment,
    cells: Sequence[Cell],
    data: Dataset,
    device: torch.device,
    runner: EpisodeRunner,
) -> Pace:
    """The same of policies in an untrained world model, and some steps in the simulator."""
    e = attrs.evolve(experiment, system=attrs.evolve(experiment.system, compile=False))
    assert e.policy_learning and e.conventions
    module = build_world_model(e.world_model, e.pretrain.seed, device)
    e.world_model.component.freeze(module)
    seen = by_conventions(data, e.conventions)
    models = learning_models(e, e.policy_learning, cells, module, seen, data, device)
    evaluator = Evaluator(runner, e.evaluation.seed)
    stage = PolicyTraining("preflight", cells, e, module, seen, evaluator, device, models)
    update = _median(lambda: stage.step(1), device)
    stage.returns(1, steps=1)  # builds the simulations
    one = _seconds(lambda: stage.returns(1, steps=1), device)
    more = _seconds(lambda: stage.returns(1, steps=STEPS), device)
    validation = _seconds(models.evaluate, device) if models else 0.0
    return Pace(update, validation, max(more - one, 0.0) / (STEPS - 1), measured=True)


def simulation(pace: Pace, episodes: float, workers: int) -> float:
    """Seconds of whole episodes of all cells, that many each, spread over ``workers``."""
    return EPISODE_STEPS * pace.step * episodes / max(workers, 1)


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
