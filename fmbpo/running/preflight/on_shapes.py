"""Updates on shapes alone: what they would compute and hold, without computing or holding it.

Modules, states and batches are built on torch's ``meta`` device at the experiment's full shape, and
the engine's own update runs on them. ``Tally`` looks at every operation: floating-point operations
by torch's table of formulas, live bytes from when a result's storage is made until it is dropped.
So the activations that autograd keeps through an imagined rollout, the gradients, Adam's
temporaries, and the old and the new state side by side are counted where they arise, for any
plugin.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from fmbpo.config import Finetuned, Scratch
from fmbpo.config.schema import (
    Experiment,
    PluginTable,
    PolicyLearningConfig,
    PretrainConfig,
)
from fmbpo.hookspecs import Batch, PolicyDims, Task
from fmbpo.measure.sizes import DIMS
from fmbpo.measure.validation import FIT_SLICES, HORIZONS, SLICES
from fmbpo.pwm.critic import Critic
from fmbpo.pwm.imagination import Roles, Start
from fmbpo.pwm.optim import Params
from fmbpo.pwm.policy import CellState, Rates, make_policy_update
from fmbpo.pwm.world_model import (
    WorldModelSettings,
    WorldModelState,
    make_world_model_update,
)
from fmbpo.tasks.mt30 import ACTION_WIDTH, OBS_WIDTH
from fmbpo.training.own_models import loss_table
from fmbpo.training.policies import policy_settings

BLOCK = 512
"""Bytes to which CUDA's allocator rounds up (and more than the CPU's)."""


@attrs.frozen
class _Made:
    """A tensor that an operation makes."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @staticmethod
    def of(made: Tensor) -> _Made:
        return _Made(tuple(made.shape), made.stride(), made.dtype)

    def again(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


@attrs.frozen
class _Known:
    """What an operation takes and makes, the same wherever its arguments have these shapes."""

    flops: int
    result: Any


_KNOWN: dict[Hashable, _Known] = {}
"""An update does the same operation on the same shapes over and over, and torch works out a shape
in a tenth of a millisecond."""


def _key(func: Any, args: Any, kwargs: Any) -> Hashable:
    """Names an operation and the shapes it is given; empty for one that makes nothing new (a view,
    a change in place)."""
    schema = func._schema
    if schema.is_mutable or any(made.alias_info is not None for made in schema.returns):
        return ()

    def known(x: Any) -> Hashable:
        if isinstance(x, Tensor):
            return x.shape, x.stride(), x.dtype
        if isinstance(x, list | tuple):
            return tuple(map(known, x))
        return type(x), x  # 1, 1.0 and True are one key

    return (func, known(args), tuple((name, known(x)) for name, x in kwargs.items()))


class Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, floating-point operations and live bytes of what runs inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.flops = self.operations = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def begin(self) -> None:
        """Count anew; what lives stays counted among the live bytes."""
        self.flops, self.operations, self.peak = 0, 0, self.live

    @property
    def ran(self) -> tuple[int, int, int]:
        """Since ``begin``: floating-point operations, operations, most live bytes."""
        return self.flops, self.operations, self.peak

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run ``func`` and take note of it."""
        kwargs = kwargs or {}
        self.operations += 1
        key = _key(func, args, kwargs)
        known = _KNOWN.get(key) if key else None
        if known is not None:
            out = tree_map_only(_Made, _Made.again, known.result)
            self.flops += known.flops
        else:
            out = func(*args, **kwargs)
            count = flop_registry.get(func._overloadpacket)
            flops = int(count(*args, **kwargs, out_val=out)) if count else 0
            self.flops += flops
            if key:
                _KNOWN[key] = _Known(flops, tree_map_only(Tensor, _Made.of, out))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._hold(leaf.untyped_storage())
        return out

    def _hold(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK

        def drop(_: Any) -> None:
            del self._seen[key]
            self.live -= size

        self._seen[key] = weakref.ref(storage, drop)
        self.live += size
        self.peak = max(self.peak, self.live)


@attrs.frozen
class Cost:
    """What one iteration of a stage takes; bytes but for the first two."""

    flops: int
    """Floating-point operations (matrix products; a multiply-add counts as two)."""
    operations: int
    """Calls of torch's operations, each of which costs microseconds however small it is."""
    state: int
    """Kept from one iteration to the next: modules, parameters, Adam's moments, critics."""
    update: int
    """Beyond that at the peak of an update: batch, activations, gradients, the new state."""
    evaluation: int
    """Beyond the state at the peak of a validation on held-out data; 0 where there is none."""
    weights: int
    """A checkpoint's weights."""
    training: int
    """A checkpoint's training state."""


def pretraining_cost(experiment: Experiment, tasks: int) -> Cost:
    """The pretraining of a world model on data of so many ``tasks``."""
    config, table = experiment.pretrain, experiment.world_model
    with on_shapes() as tally:
        module = _world_model(table)
        state = WorldModelState.initial(_parameters(module))
        best = _like(state.params)
        held = tally.live
        batch, noise = _batch(config.batch, config.horizon), _loss_noise(module, config)
        update = make_world_model_update(module, table.component.loss, _settings())
        tally.begin()
        update(state, batch, noise, torch.empty(()))
        ran = tally.ran
        del batch, noise
        evaluation = _validation(tally, module, table, tasks)
    training = size([state.adam, best])
    return Cost(*ran[:2], held, ran[2] - held, evaluation, size(state.params), training)


def policies_cost(experiment: Experiment, cells: int) -> Cost:
    """Policy learning of so many stacked ``cells``, with the world models that learn beside them.

    The cost of an iteration is that of all model updates before it and of the policies' own.
    """
    e = experiment
    assert e.policy and e.policy_learning and e.critic and e.conventions
    config, protocol = e.policy_learning, e.protocol
    learns = protocol if isinstance(protocol, Finetuned | Scratch) else None
    with on_shapes() as tally:
        model = _world_model(e.world_model)
        e.world_model.component.freeze(model)
        dims = PolicyDims(model.latent_dim, model.task_dim, ACTION_WIDTH)
        policy = e.policy.component.build(e.policy.config, dims)
        critic = Critic(model.latent_dim, e.critic.units)
        critics = _stacked(_stacked(_parameters(critic), e.critic.count), cells)
        state: CellState = torch.func.vmap(CellState.initial)(
            _stacked(_parameters(policy), cells), critics
        )
        roles = Roles(
            model,
            e.world_model.component.predict,
            policy,
            e.policy.component.rollout,
            e.policy.component.loss,
            critic,
        )
        models, evaluation = None, 0
        if learns is not None:
            stale = e.conventions.task_embedding == "stale"
            table = loss_table(e.world_model, e.conventions, config)
            models = torch.func.vmap(lambda p: WorldModelState.initial(p, stale))(
                _stacked(_parameters(model), cells)
            )
        held = tally.live
        flops = operations = peak = 0
        if learns is not None and models is not None:
            settings = _settings(stale)
            loss = table.component.loss
            learn = make_world_model_update(_world_model(table), loss, settings, stacked=True)
            batch = _stacked(_batch(config.batch, config.horizon), cells)
            noise = _stacked(_loss_noise(model, config), cells)
            tally.begin()
            learn(models, batch, noise, torch.empty(()))
            flops, operations = (n * learns.model_iterations for n in tally.ran[:2])
            peak = tally.ran[2]
            del batch, noise
            evaluation = _validation(tally, model, table, 1)
        start = _start(cells, config.batch, config.horizon, policy, model)
        update = make_policy_update(roles, policy_settings(config, e.conventions))
        tally.begin()
        update(state, start, Rates(torch.empty(()), torch.empty(())), models and models.params)
        ran = tally.ran
    weights = size([state.policy, state.critics, models and models.params])
    training = size([state.policy_adam, state.critic_adam, models and models[1:]])
    return Cost(
        flops + ran[0],
        operations + ran[1],
        held,
        max(peak, ran[2]) - held,
        evaluation,
        weights,
        training,
    )


@contextmanager
def on_shapes() -> Iterator[Tally]:
    """Everything inside is made on the ``meta`` device and counted; no generator is used up."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"), Tally() as tally:
        yield tally


def size(tree: Any) -> int:
    """Bytes of all tensors of a tree."""
    return sum(t.numel() * t.element_size() for t in tree_leaves(tree) if isinstance(t, Tensor))


def _world_model(table: PluginTable) -> Any:
    return table.component.build(table.config, DIMS)


def _parameters(module: torch.nn.Module) -> Params:
    own: Params = _like(dict(module.named_parameters()))
    return own


def _like(tree: Any) -> Any:
    return tree_map_only(Tensor, lambda t: torch.empty_like(t, requires_grad=False), tree)


def _stacked(tree: Any, count: int) -> Any:
    return tree_map_only(Tensor, lambda t: t.new_empty((count, *t.shape)), tree)


def _settings(stale: bool = False) -> WorldModelSettings:
    """The numbers in it have no part in what an update takes."""
    return WorldModelSettings((0.9, 0.999), 1.0, 1.0, stale)


def _batch(batch: int, horizon: int) -> Batch:
    return Batch(
        torch.empty(horizon + 1, batch, OBS_WIDTH),
        torch.empty(horizon, batch, ACTION_WIDTH),
        torch.empty(horizon, batch),
        torch.empty(batch, dtype=torch.int64),
        torch.empty(batch, ACTION_WIDTH),
    )


def _loss_noise(module: Any, config: PretrainConfig | PolicyLearningConfig) -> Tensor:
    return torch.empty(config.horizon, config.batch, int(module.loss_noise_dim))


def _start(cells: int, batch: int, horizon: int, policy: Any, model: Any) -> Start:
    return Start(
        torch.empty(cells, batch, OBS_WIDTH),
        torch.empty(cells, batch, dtype=torch.int64),
        torch.empty(cells, batch, ACTION_WIDTH),
        torch.empty(cells, horizon, batch, int(policy.noise_dim)),
        torch.empty(cells, horizon, batch, int(model.noise_dim)),
    )


def _validation(tally: Tally, module: Any, table: PluginTable, tasks: int) -> int:
    """Bytes at the peak of ``fmbpo.measure.validation.Validator`` beyond those that are held.

    Its two large parts: the latents that the read-out is fitted on (two rows of ``FIT_SLICES`` a
    task) and the held-out rollout; then the regression and the singular values, in double
    precision, with three copies of the largest matrix.
    """
    held = tally.live
    tally.begin()
    with torch.no_grad():
        fit, held_out = _batch(FIT_SLICES * tasks, 1), _batch(SLICES, HORIZONS[-1])
        embedding = module.embed(held_out.index_B)
        task = Task(held_out.index_B, held_out.mask_BA, embedding)
        z = module.encode(held_out.obs_HBO[0], embedding)
        noise = torch.empty(HORIZONS[-1], SLICES, int(module.noise_dim))
        found = table.component.rollout(module, z, lambda t, _: held_out.action_HBA[t], task, noise)
        module.encode(fit.obs_HBO, module.embed(fit.index_B))
        latents = module.encode(held_out.obs_HBO, embedding).double()
        copies = [torch.empty_like(latents) for _ in range(3)]
    del found, copies
    return tally.ran[2] - held
