"""The subject of a contract check: one plugin with one configuration, on small random inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import attrs
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from fmbpo.hookspecs import (
    AnswerAction,
    Batch,
    ChooseAction,
    Imagined,
    LossContext,
    Metrics,
    PolicyDims,
    Prediction,
    Real,
    Rollout,
    State,
    Task,
    WorldModelDims,
)
from fmbpo.nn import two_hot
from fmbpo.nn.blocks import simnorm
from fmbpo.nn.state import begin, latent
from fmbpo.plugins import Component, Kind
from fmbpo.protocols import HasCritic, Remembers, SeesData
from fmbpo.testing.outcomes import expect

ROWS, HORIZON, TASKS = 4, 3, 3
_MODEL_DIMS = WorldModelDims(obs=5, action=3, tasks=TASKS)
_POLICY_DIMS = PolicyDims(latent=16, task=4, action=3)


class ModelInputs(NamedTuple):
    """Arguments of a world model's ``predict`` after the module."""

    state: State
    action: Tensor
    task: Task
    noise: Tensor


class PolicyInputs(NamedTuple):
    """Arguments of a policy's ``predict`` after the module."""

    z: Tensor
    task: Task
    noise: Tensor


Inputs: TypeAlias = ModelInputs | PolicyInputs


@attrs.frozen(eq=False, slots=False)
class Subject(ABC):
    """One plugin with one configuration. ``attrs.evolve(subject, ...)`` builds another module."""

    component: Component
    config: object
    seed: int = 0
    fresh: bool = False
    """Whether the parameters stay as ``build`` initialises them. If not, each moves a little at
    random, so that layers initialised at zero pass gradients."""
    dtype: torch.dtype | None = None
    """Floating-point type of the parameters; None: as ``build`` makes them."""
    results: dict[str, tuple[float, ...]] = attrs.field(factory=dict)
    """Results that several checks share."""
    dims: WorldModelDims | PolicyDims = _POLICY_DIMS
    horizon: int = HORIZON
    """Steps of rollouts and of recorded trajectories."""

    @cached_property
    def module(self) -> Any:
        """The built ``WorldModel`` or ``Policy``."""
        with fixed_seed(self.seed):
            module = self.component.build(self.config, self.dims)
            built, found = isinstance(module, nn.Module), f"a {type(module).__name__}"
            expect(built, "`build` returns an nn.Module", "return one", found)
            with torch.no_grad():
                for parameter in () if self.fresh else module.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return module if self.dtype is None else module.to(self.dtype)

    @abstractmethod
    def inputs(self, seed: int = 0, rows: int = ROWS, scale: float = 1.0) -> Inputs:
        """Random inputs of ``predict`` in the module's precision; ``scale`` scales them."""

    @abstractmethod
    def partner(self, inputs: Any) -> Callable[..., Any]:
        """The fixed partner of a rollout from these inputs."""

    @abstractmethod
    def example(self, seed: int = 0, copies: int = 1) -> tuple[Any, ...]:
        """A tree of tensors for ``loss``, with ``copies`` copies of each row."""

    def predict(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """The tensors of ``predict``: the next latent, the reward, then the rest of the state and
        the extras; or the action."""
        return tensors_of(self.module, self.component.predict(self.module, *inputs))

    def rollout(
        self,
        inputs: Inputs | None = None,
        noise_HBN: Tensor | None = None,
        partner: Callable[..., Any] | None = None,
    ) -> Rollout:
        """``rollout``, by default from the fixed inputs, with fixed noise and partner."""
        inputs = inputs or self.inputs()
        noise_HBN = self.noise() if noise_HBN is None else noise_HBN
        arguments = inputs[0], partner or self.partner(inputs), inputs.task, noise_HBN
        made: Rollout = self.component.rollout(self.module, *arguments)
        return made

    def noise(self, seed: int = 0) -> Tensor:
        """Noise ``[H, B, N]`` of a rollout."""
        return self._normal(seed + 1, self.horizon, ROWS, self.module.noise_dim)

    def loss(self, example: tuple[Any, ...] | None = None) -> tuple[Tensor, Metrics]:
        """``loss`` of this example, by default of the fixed one."""
        arguments = self.of_loss(example or self.example())
        found: tuple[Tensor, Metrics] = self.component.loss(self.module, *arguments)
        return found

    def of_loss(self, example: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of ``loss`` after the module."""
        return example

    def _normal(self, seed: int | torch.Generator, *shape: int) -> Tensor:
        g = generator(seed) if isinstance(seed, int) else seed
        return torch.randn(shape, generator=g).to(next(self.module.parameters()).dtype)

    def _task(self, rows: int, embed: Callable[[Tensor], Tensor]) -> Task:
        """Rows of different tasks; the first task has every action dimension."""
        index = torch.arange(rows) % getattr(self.dims, "tasks", TASKS)
        mask = torch.arange(self.dims.action) < (self.dims.action - index).unsqueeze(1)
        return Task(index, mask.to(next(self.module.parameters()).dtype), embed(index))


@attrs.frozen(eq=False, slots=False)
class WorldModelSubject(Subject):
    """A world model."""

    dims: WorldModelDims = _MODEL_DIMS

    def inputs(self, seed: int = 0, rows: int = ROWS, scale: float = 1.0) -> ModelInputs:
        """Latents are encoded observations, spread by ``scale``."""
        g = generator(seed)
        obs = scale * self._normal(g, rows, self.dims.obs)
        action = 2 * torch.rand(rows, self.dims.action, generator=g) - 1
        action = action.mul(scale).clamp(-1, 1).to(obs.dtype)
        noise = scale * self._normal(g, rows, self.module.noise_dim)
        with torch.no_grad():
            task = self._task(rows, self.module.embed)
            state = begin(self.module, obs, task)
            if isinstance(self.module, Remembers):
                state = self.module.observe(state, action.flip(0), obs.roll(1, -1), task)
        return ModelInputs(state, action, task, noise)

    def partner(self, inputs: ModelInputs) -> ChooseAction:
        """Recorded actions, which depend on t."""
        return lambda t, _: inputs.action * (t + 1) / self.horizon

    def example(
        self, seed: int = 0, copies: int = 1, rows: int = ROWS
    ) -> tuple[Batch, Tensor, Tensor]:
        """Sub-trajectories of ``next_observation`` and ``reward_of``; noise, fraction done."""
        g = generator(seed + 2)
        steps = [self._normal(g, rows, self.dims.obs)]
        action = 2 * torch.rand(self.horizon, rows, self.dims.action, generator=g) - 1
        action = action.to(steps[0].dtype)
        for t in range(self.horizon):
            steps.append(next_observation(steps[t], action[t]))
        obs = torch.stack(steps)
        reward = reward_of(obs[:-1], action)
        index, mask, _ = self._task(rows, lambda index: index)
        noise = self._normal(seed + 3, self.horizon, rows, self.module.loss_noise_dim)
        each = torch.arange(rows).repeat_interleave(copies)
        obs, action, reward, noise = (x[:, each] for x in (obs, action, reward, noise))
        ends = torch.zeros_like(reward)
        ends[-1, each % 2 == 0] = 1.0
        batch = Batch(obs, action, reward, index[each], mask[each], ends)
        return batch, noise, obs.new_full((), 0.5)


@attrs.frozen(eq=False, slots=False)
class PolicySubject(Subject):
    """A policy in ``world``, on simplex latents."""

    dims: PolicyDims = _POLICY_DIMS

    def inputs(self, seed: int = 0, rows: int = ROWS, scale: float = 1.0) -> PolicyInputs:
        """Latents on the simplex, nearer to its corners for a larger ``scale``."""
        g = generator(seed)
        z = torch.randn(rows, self.dims.latent, generator=g)
        noise = scale * self._normal(g, rows, self.module.noise_dim)
        table = self._normal(g, TASKS, self.dims.task)
        task = self._task(rows, lambda index: table[index])
        return PolicyInputs(simnorm(3 * scale * z).to(noise.dtype), task, noise)

    def partner(self, inputs: PolicyInputs) -> AnswerAction:
        """``world``."""
        return world

    def example(
        self, seed: int = 0, copies: int = 1
    ) -> tuple[Imagined, Task, Tensor, Tensor, Tensor, *tuple[Tensor, ...]]:
        """A trajectory in ``world``, whose rewards favour actions near 0.5 and large latents; for
        the context: task, noise, fraction of training, the loss's noise and, if the policy sees
        them, real steps."""
        inputs, noise = self.inputs(seed), self.noise(seed)
        each = torch.arange(ROWS).repeat_interleave(copies)
        rollout: Rollout = tree_map(lambda x: x[:, each], self.rollout(inputs, noise))
        task = Task(*(x[each] for x in inputs.task))
        near = (rollout.action_HBA - 0.5) * inputs.task.mask_BA[each]
        reward = 0.1 * rollout.z_HBD[1:, :, 0] - near.square().sum(-1)
        value = rollout.z_HBD[-1].sum(-1)
        scale = torch.full_like(value[0], 2.0)
        total, once = reward.sum(0) + value, torch.ones_like(reward[:, :1])
        actions = rollout.action_HBA
        if isinstance(self.module, HasCritic):
            actions = torch.cat([actions, actions[:1]])
        imagined = Imagined(rollout, actions, reward, once, value, total, scale)
        real = self._real(seed, task) if isinstance(self.module, SeesData) else ()
        width = getattr(self.module, "loss_noise_dim", 0)
        own = self._normal(seed + 6, ROWS, width)[each]
        return imagined, task, noise[:, each], torch.full_like(scale, 0.5), own, *real

    def _real(self, seed: int, task: Task) -> Real:
        """Random sub-trajectories, whose first step ends row 0 and earns it 1."""
        steps, rows, width = self.module.real_steps, len(task.index_B), self.dims.latent
        g = generator(seed + 5)
        each = torch.arange(rows) // (rows // ROWS)
        z = simnorm(self._normal(g, steps + 1, ROWS, width))[:, each]
        action = (self._normal(g, steps, ROWS, self.dims.action)[:, each] * task.mask_BA).tanh()
        ends = torch.zeros_like(z[1:, :, 0])
        ends[:1, :1] = 1.0
        return Real(z, action, ends.clone(), ends)

    def of_loss(self, example: tuple[Any, ...]) -> tuple[Any, ...]:
        """With a context whose two critics value large latents."""
        imagined, task, noise, done, own, *rest = example
        real, drawn = Real(*rest) if rest else None, own if own.shape[1] else None
        values = lambda z, _: torch.stack([z.sum(-1), z.sum(-1) + 0.1])  # noqa: E731
        return imagined, LossContext(task, noise, done, values, real, drawn)


def with_return(imagined: Imagined, change: Callable[[Tensor], Tensor]) -> Imagined:
    """The trajectory with ``change`` of its rewards, value and return."""
    reward_HB, value_B, return_B = map(
        change, (imagined.reward_HB, imagined.value_B, imagined.return_B)
    )
    return imagined._replace(reward_HB=reward_HB, value_B=value_B, return_B=return_B)


def next_observation(obs: Tensor, action: Tensor) -> Tensor:
    """``[..., O]``, ``[..., A]`` -> ``[..., O]``: rolled and negated; twice the first action
    dimension, which every task has, moves the first two entries."""
    pushed = torch.arange(obs.shape[-1], device=obs.device) < 2
    return 2 * action[..., :1] * pushed - obs.roll(1, -1)


def reward_of(obs: Tensor, action: Tensor) -> Tensor:
    """``[..., O]``, ``[..., A]`` -> ``[...]``, in (0, 2)."""
    return 1 + torch.tanh(0.5 * obs[..., 0] + 2 * action[..., 0])


def world(t: int, z: Tensor, action: Tensor) -> Prediction:
    """A differentiable world: the action shifts every latent entry, and more at later steps."""
    moved = z + 0.1 * (t + 1) * action.sum(-1, keepdim=True)
    slope = torch.linspace(-1, 1, two_hot.BINS, device=z.device, dtype=z.dtype)
    return Prediction(moved, action.sum(-1, keepdim=True) * slope)


SUBJECTS: dict[Kind, type[Subject]] = {"world_model": WorldModelSubject, "policy": PolicySubject}


def tensors_of(module: Any, predicted: Tensor | Prediction) -> tuple[Tensor, ...]:
    """The result of either ``predict`` as a tuple; see ``Subject.predict``."""
    if isinstance(predicted, Tensor):
        return (predicted,)
    rest = predicted.state if isinstance(module, Remembers) else (), predicted.extras
    return latent(module, predicted.state), predicted.reward_BR, *tree_leaves(rest)


def close(a: Any, b: Any, rtol: float = 0.0, atol: float = 0.0) -> bool:
    """Whether the tensors of two trees are equal within the tolerances."""
    return all(
        torch.allclose(x, y, rtol=rtol, atol=atol)
        for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True)
    )


def near(a: object, b: object) -> bool:
    """``close`` up to the rounding of float32."""
    return close(a, b, rtol=1e-4, atol=1e-5)


def reached(total: Tensor, inputs: Iterable[Tensor]) -> list[bool]:
    """For each input, whether the 0-d ``total`` has a non-zero gradient with respect to it."""
    inputs = list(inputs)
    if not total.requires_grad:
        return [False] * len(inputs)
    grads = torch.autograd.grad(total, inputs, retain_graph=True, allow_unused=True)
    return [g is not None and bool(g.any()) for g in grads]


def varied(inputs: Inputs) -> tuple[Any, dict[str, Tensor]]:
    """The inputs with leaves that require gradients, and these leaves by name: ``latent``, or
    ``state`` with a number for each part of one; ``action``."""
    parts, spec = tree_flatten(inputs[0])
    names = [f"state {i}" for i in range(len(parts))] if len(parts) > 1 else ["latent"]
    leaves = {n: x.clone().requires_grad_() for n, x in zip(names, parts, strict=True)}
    first = tree_unflatten([*leaves.values()], spec)
    if isinstance(inputs, ModelInputs):
        leaves["action"] = inputs.action.clone().requires_grad_()
        return inputs._replace(state=first, action=leaves["action"]), leaves
    return inputs._replace(z=first), leaves


def generator(seed: int) -> torch.Generator:
    """A new generator with this seed."""
    return torch.Generator().manual_seed(seed)


@contextmanager
def fixed_seed(seed: int) -> Iterator[None]:
    """Seed torch's global generator inside, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
