"""The cost of an update in computation and memory, counted on shapes alone.

The real stages are built on torch's ``meta`` device at the experiment's full shape and make one
step. ``Tally`` sees every operation: it counts floating-point operations by torch's table of
formulas, and the bytes of each result while its storage lives. So it counts, for any plugin, the
activations that autograd keeps through an imagined rollout, the gradients, Adam's temporaries, and
the old and the new state side by side.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping, Sequence
from functools import partial

import attrs
import numpy as np
import torch
from torch import Tensor, UntypedStorage
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from fmbpo.config.schema import Experiment
from fmbpo.data.residence import Stored
from fmbpo.data.sampler import Rows
from fmbpo.data.store_format import layout_of
from fmbpo.errors import UserError
from fmbpo.hookspecs import Task, WorldModel
from fmbpo.measure.evaluation import Evaluator
from fmbpo.measure.validation import Validator
from fmbpo.nn.state import begin, latents
from fmbpo.plugins import Component
from fmbpo.tasks.known import suite_of
from fmbpo.tasks.vector import EpisodeRunner
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.dataset import Dataset
from fmbpo.training.networks import build_world_model
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.pretraining import Pretraining

META = torch.device("meta")
BLOCK = 512
"""Bytes to which CUDA's allocator rounds up (and more than the CPU's)."""


class _Shapes(Stored):
    """Rows that have only shapes."""

    def __init__(self, row_width: int) -> None:
        self.kind, self.device, self.worker, self.row_width = "device", META, None, row_width

    def on_host(self, row_B: Tensor, horizon: int) -> Tensor:
        """The rows' numbers."""
        return row_B

    def on_device(self, sent: Tensor, horizon: int) -> Tensor:
        """Slices of ``horizon`` + 1 rows: ``[H + 1, B, row_width]``."""
        return torch.empty(horizon + 1, len(sent), self.row_width, device=META)


def _context(experiment: Experiment, tasks: Sequence[str]) -> Context:
    """The experiment on a data set of shapes: four episodes per task, two of them held out."""
    e = experiment
    horizons = [e.pretrain.horizon, e.policy_learning.horizon if e.policy_learning else 0]
    suite = suite_of(tasks, e.tasks)
    length = max(suite.episode_steps, *horizons) + 2
    task_E = torch.tensor([suite.index(task) for task in tasks]).repeat(4)
    ends = length * np.arange(1, len(task_E) + 1)
    rows = Rows(ends, _Shapes(layout_of(suite).row_width), task_E, suite)
    kept = torch.arange(len(task_E)) < 2 * len(tasks)
    data = Dataset("shapes", suite, list(tasks), rows.select(kept), rows.select(~kept), {})
    system = attrs.evolve(e.system, precision="float32")
    return Context(attrs.evolve(e, system=system), data, META)


_KNOWN: dict[Hashable, tuple[int, object]] = {}
"""An operation's floating-point operations and result, with a function in place of each tensor, by
the shapes of its arguments. An update repeats most of them, and torch takes 0.1 ms for each shape.
"""


def _maker(made: Tensor) -> partial[Tensor]:
    """A function that makes a tensor of the same shape."""
    shape = tuple(made.shape)
    return partial(torch.empty_strided, shape, made.stride(), dtype=made.dtype, device=META)


def _key(func: OpOverload, args: object, kwargs: Mapping[str, object]) -> Hashable:
    """An operation and the shapes of its arguments; empty for one that makes nothing new (a view, a
    change in place)."""
    schema = func._schema
    if schema.is_mutable or any(made.alias_info is not None for made in schema.returns):
        return ()

    def known(x: object) -> Hashable:
        if isinstance(x, Tensor):
            return x.shape, x.stride(), x.dtype, x.device.type
        if isinstance(x, list | tuple):
            return tuple(map(known, x))
        return type(x), x  # otherwise 1, 1.0 and True are one key

    return (func, known(args), tuple((name, known(x)) for name, x in kwargs.items()))


MOST_OPERATIONS = 500_000
"""An update of more is not counted: counting would take minutes. The study's largest has 62,000."""


class Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations, floating-point operations and live bytes on ``meta``.

    Sampling draws its indices on the CPU, as in a run; that is not counted.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.flops = self.operations = self.peak = self._calls = 0
        self._seen: dict[int, weakref.ref[UntypedStorage]] = {}

    def begin(self) -> None:
        """Start the counts again; the live bytes stay counted."""
        self.flops, self.operations, self.peak = 0, 0, self.live

    @property
    def ran(self) -> tuple[int, int, int]:
        """Since ``begin``: floating-point operations, operations, most live bytes."""
        return self.flops, self.operations, self.peak

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run ``func`` and count it."""
        self._calls += 1
        if self._calls > MOST_OPERATIONS:
            what = f"an update takes more than {MOST_OPERATIONS:,} operations of torch"
            remedy = "lower the horizon, the critics' number or passes, or the steps of a plugin"
            raise UserError(what, remedy=remedy)
        kwargs = kwargs or {}
        key = _key(func, args, kwargs)
        if known := _KNOWN.get(key):
            flops, makers = known
            out = tree_map_only(partial, lambda make: make(), makers)
        else:
            out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not all(leaf.is_meta for leaf in made):
            return out
        if known is None:
            count = flop_registry.get(func._overloadpacket)
            flops = int(count(*args, **kwargs, out_val=out)) if count else 0
            if key:
                _KNOWN[key] = flops, tree_map_only(Tensor, _maker, out)
        self.operations += 1
        self.flops += flops
        for leaf in made:
            self._hold(leaf.untyped_storage())
        return out

    def _hold(self, storage: UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK

        def drop(_: object) -> None:
            del self._seen[key]
            self.live -= size

        self._seen[key] = weakref.ref(storage, drop)
        self.live += size
        self.peak = max(self.peak, self.live)


@attrs.frozen
class Cost:
    """The cost of one iteration of a stage; in bytes, except the first two."""

    flops: int
    """Floating-point operations (matrix products; a multiply-add counts as two)."""
    operations: int
    """Calls of torch operations; each takes microseconds even on small tensors."""
    state: int
    """Kept from one iteration to the next: modules, parameters, Adam's moments, critics."""
    update: int
    """In addition at the peak of an update: batch, activations, gradients, the new state."""
    evaluation: int
    """In addition to the state at the peak of a validation on held-out data; 0 without one."""
    weights: int
    """A checkpoint's weights."""
    training: int
    """A checkpoint's training state."""

    @property
    def replayed(self) -> Cost:
        """That of a stage whose update runs as a graph. Its memory, not packed quite as closely,
        stays while the stage is evaluated, and is recorded beside the inputs of the call and the
        result that it is checked against."""
        graph = int(1.25 * self.update)
        recorded = graph + 2 * (self.weights + self.training)
        evaluation = graph + self.evaluation if self.evaluation else 0
        return attrs.evolve(self, update=recorded, evaluation=evaluation)

    def of_share(self, share: float, *, stacked: bool) -> Cost:
        """That of a process with this share of the ``stacked`` cells, or of a batch. A checkpoint
        stays whole."""
        names = ["flops", "update", *(["state", "evaluation"] if stacked else [])]
        return attrs.evolve(self, **{name: int(share * getattr(self, name)) for name in names})


def pretraining_cost(experiment: Experiment, tasks: Sequence[str]) -> Cost:
    """The cost of pretraining a world model on data of these tasks."""
    with Tally() as tally:
        stage = Pretraining(_context(experiment, tasks), 0)
        # The parameters with the best score so far soon differ from the last ones.
        beside = size(stage.best)
        return _cost(tally, stage, stage.validator, stage.module, stage.component, beside)


def policies_cost(experiment: Experiment, cells: Sequence[Cell]) -> Cost:
    """The cost of policy learning with stacked cells. An iteration includes the updates of the
    world models that learn beside them."""
    context = _context(experiment, list(dict.fromkeys(cell.task for cell in cells)))
    table = experiment.world_model
    with Tally() as tally:
        model = build_world_model(table, context.data.suite, 0, META)
        table.component.freeze(model)
        evaluator = Evaluator(EpisodeRunner(0, context.data.suite), 0)
        stage = PolicyTraining("shapes", cells, context, model, evaluator)
        validator = stage.models.validators[0] if stage.models else None
        return _cost(tally, stage, validator, model, table.component)


def _cost(
    tally: Tally,
    stage: Pretraining | PolicyTraining,
    validator: Validator | None,
    module: WorldModel,
    component: Component,
    beside: int = 0,
) -> Cost:
    """``beside``: bytes of the state that the tally does not include yet."""
    held = tally.live
    tally.begin()
    stage.step(1)
    flops, operations, peak = tally.ran
    return Cost(
        flops=flops,
        operations=operations,
        state=held + beside,
        update=peak - held,
        evaluation=_validation(tally, validator, module, component) if validator else 0,
        weights=size(stage.weights()),
        training=size(stage.state()),
    )


def size(tree: object) -> int:
    """Bytes of all tensors in a tree."""
    return sum(t.numel() * t.element_size() for t in tree_leaves(tree) if isinstance(t, Tensor))


def _validation(
    tally: Tally, validator: Validator, module: WorldModel, component: Component
) -> int:
    """Bytes at the peak of a validation, in addition to those that are held.

    Counts its two large parts, the latents that fit the read-out and the held-out rollout, then the
    regression and the singular values: three double-precision copies of the largest matrix. (The
    validator itself looks at values, which shapes do not have.)
    """
    held, batch, fit = tally.live, validator.batch, validator.fit
    tally.begin()
    with torch.no_grad():
        task = Task(batch.index_B, batch.mask_BA, module.embed(batch.index_B))
        state = begin(module, batch.obs_HBO[0], task)
        noise = torch.empty(*batch.reward_HB.shape, module.noise_dim, device=META)
        found = component.rollout(module, state, lambda t, _: batch.action_HBA[t], task, noise)
        known = Task(fit.index_B, fit.mask_BA, module.embed(fit.index_B))
        latents(module, fit.obs_HBO, fit.action_HBA, known)
        z_HBD = latents(module, batch.obs_HBO, batch.action_HBA, task).double()
        copies = [torch.empty_like(z_HBD) for _ in range(3)]
    del found, copies
    return tally.ran[2] - held
