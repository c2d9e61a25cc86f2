"""What a contract check looks at: one plugin with one configuration, on small random inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import attrs
import torch
from torch import Tensor, nn

from fmbpo.hookspecs import (
    Batch,
    Imagined,
    PolicyDims,
    Prediction,
    Rollout,
    Task,
    WorldModelDims,
)
from fmbpo.nn import two_hot
from fmbpo.nn.blocks import simnorm
from fmbpo.plugins import Component, Kind

OBS, ACTION, TASKS = 5, 3, 3
LATENT, TASK = 16, 4
"""Of the world that policies are checked in."""
ROWS, HORIZON = 4, 3


class ContractError(AssertionError):
    """A plugin does not keep the contract: what was expected, what was found, how to mend it."""

    def __init__(self, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"expected: {expected}\n   found: {found}\n    mend: {remedy}")


def broken(expected: str, found: str, remedy: str) -> NoReturn:
    """Raise ``ContractError``."""
    raise ContractError(expected, found, remedy)


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class Inputs(NamedTuple):
    """What ``predict`` takes beside the module. ``action`` is None for policies."""

    z: Tensor
    action: Tensor | None
    task: Task
    noise: Tensor

    def varied(self) -> list[Tensor]:
        """The tensors that gradients flow to."""
        return [self.z] if self.action is None else [self.z, self.action]

    def with_varied(self, tensors: list[Tensor]) -> Inputs:
        """The same inputs with other tensors in their place."""
        if self.action is None:
            return self._replace(z=tensors[0])
        return self._replace(z=tensors[0], action=tensors[1])


@attrs.frozen
class Subject:
    """One plugin with one configuration; ``WorldModel`` and ``Policy`` are the two kinds."""

    component: Component
    config: Any

    @property
    def kind(self) -> Kind:
        """The role."""
        return self.component.kind

    def module(self, seed: int = 0, *, fresh: bool = False) -> Any:
        """A built module. Unless ``fresh``, every parameter is moved a little at random, so that
        layers that begin at zero pass gradients."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.build()
            if not fresh:
                with torch.no_grad():
                    for parameter in module.parameters():
                        parameter.add_(0.1 * torch.randn_like(parameter))
        return module

    def build(self) -> Any:
        """``build(config, dims)`` with small dims."""
        raise NotImplementedError

    def inputs(self, module: Any, rows: int = ROWS, seed: int = 0, scale: float = 1.0) -> Inputs:
        """Random inputs of ``predict`` in the module's precision; ``scale``: how extreme."""
        raise NotImplementedError

    def predict(self, module: Any, inputs: Inputs) -> tuple[Tensor, ...]:
        """The tensors that ``predict`` gives."""
        raise NotImplementedError

    def rollout(self, module: Any, seed: int = 0, seen: list[Any] | None = None) -> Rollout:
        """``rollout`` against a fixed partner, which notes what it is called with in ``seen``."""
        raise NotImplementedError

    def step(self, module: Any, rollout: Rollout, t: int, seed: int) -> tuple[Tensor, ...]:
        """Step t of a rollout by ``predict``: as the rollout has it, (next z, action, logits)."""
        raise NotImplementedError

    def loss(
        self, module: Any, seed: int = 0, *, copies: int = 1
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """``loss`` of a fixed example, whose rows are there ``copies`` times."""
        raise NotImplementedError


def _task(rows: int, dtype: torch.dtype, embed: Callable[[Tensor], Tensor]) -> Task:
    """Rows of different tasks, of which the first has every action dimension."""
    index = torch.arange(rows) % TASKS
    mask = (torch.arange(ACTION) < (ACTION - index).unsqueeze(1)).to(dtype)
    return Task(index, mask, embed(index))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


class WorldModel(Subject):
    """A world model on ``OBS`` observations, ``ACTION`` actions and ``TASKS`` tasks."""

    def build(self) -> Any:
        """A fresh module."""
        return self.component.build(self.config, WorldModelDims(OBS, ACTION, TASKS))

    def inputs(self, module: Any, rows: int = ROWS, seed: int = 0, scale: float = 1.0) -> Inputs:
        """Latents are encoded observations, spread by ``scale``."""
        g, dtype = _generator(seed), _dtype(module)
        obs = scale * torch.randn(rows, OBS, generator=g).to(dtype)
        action = (2 * torch.rand(rows, ACTION, generator=g) - 1).mul(scale).clamp(-1, 1).to(dtype)
        noise = scale * torch.randn(rows, module.noise_dim, generator=g).to(dtype)
        with torch.no_grad():
            task = _task(rows, dtype, module.embed)
            z = module.encode(obs, task.embedding_BE)
        return Inputs(z, action, task, noise)

    def predict(self, module: Any, inputs: Inputs) -> tuple[Tensor, ...]:
        """Next latent and reward logits."""
        found = self.component.predict(module, inputs.z, inputs.action, inputs.task, inputs.noise)
        return tuple(found)

    def noise(self, module: Any, seed: int) -> Tensor:
        """Noise of a rollout."""
        shape = (HORIZON, ROWS, module.noise_dim)
        return torch.randn(shape, generator=_generator(seed + 1)).to(_dtype(module))

    def rollout(self, module: Any, seed: int = 0, seen: list[Any] | None = None) -> Rollout:
        """The partner's actions are recorded ones, and depend on t."""
        inputs = self.inputs(module, seed=seed)
        assert inputs.action is not None
        action = inputs.action

        def choose(t: int, z: Tensor) -> Tensor:
            if seen is not None:
                seen.append((t, z))
            return action * (t + 1) / HORIZON

        rollout: Rollout = self.component.rollout(
            module, inputs.z, choose, inputs.task, self.noise(module, seed)
        )
        return rollout

    def step(self, module: Any, rollout: Rollout, t: int, seed: int) -> tuple[Tensor, ...]:
        """Its action is the rollout's own."""
        inputs = self.inputs(module, seed=seed)
        assert inputs.action is not None
        action = inputs.action * (t + 1) / HORIZON
        inputs = inputs._replace(
            z=rollout.z_HBD[t], action=action, noise=self.noise(module, seed)[t]
        )
        z, logits = self.predict(module, inputs)
        return z, action, logits

    def batch(self, module: Any, seed: int = 0, rows: int = ROWS) -> Batch:
        """Sub-trajectories of a small plant: observations turn around, the first of them is
        pushed by the first action. The reward depends on both."""
        g, dtype = _generator(seed + 2), _dtype(module)
        steps = [torch.randn(rows, OBS, generator=g).to(dtype)]
        action = (2 * torch.rand(HORIZON, rows, ACTION, generator=g) - 1).to(dtype)
        index, mask, _ = _task(rows, dtype, lambda index: index)
        push = torch.eye(OBS, dtype=dtype)[0]
        for t in range(HORIZON):
            steps.append(-steps[t].roll(1, -1) + action[t, :, :1] * push)
        obs = torch.stack(steps)
        reward = 1 + torch.tanh(0.5 * obs[:-1, :, 0] + 2 * action[..., 0])
        return Batch(obs, action, reward, index, mask)

    def loss_noise(self, module: Any, seed: int = 0, rows: int = ROWS) -> Tensor:
        """Noise of ``loss``."""
        shape = (HORIZON, rows, module.loss_noise_dim)
        return torch.randn(shape, generator=_generator(seed + 3)).to(_dtype(module))

    def loss(
        self, module: Any, seed: int = 0, *, copies: int = 1
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Of ``batch``."""
        obs, action, reward, index, mask = self.batch(module, seed)
        rows = (x.repeat_interleave(copies, 1) for x in (obs, action, reward))
        batch = Batch(*rows, *(x.repeat_interleave(copies, 0) for x in (index, mask)))
        noise = self.loss_noise(module, seed).repeat_interleave(copies, 1)
        found: tuple[Tensor, Mapping[str, Tensor]] = self.component.loss(module, batch, noise)
        return found


class Policy(Subject):
    """A policy in a small known world with simplex latents of width ``LATENT``."""

    def build(self) -> Any:
        """A fresh module."""
        return self.component.build(self.config, PolicyDims(LATENT, TASK, ACTION))

    def inputs(self, module: Any, rows: int = ROWS, seed: int = 0, scale: float = 1.0) -> Inputs:
        """Latents on the simplex, nearer to its corners for a larger ``scale``."""
        g, dtype = _generator(seed), _dtype(module)
        z = simnorm(3 * scale * torch.randn(rows, LATENT, generator=g)).to(dtype)
        noise = scale * torch.randn(rows, module.noise_dim, generator=g).to(dtype)
        table = torch.randn(TASKS, TASK, generator=g).to(dtype)
        return Inputs(z, None, _task(rows, dtype, lambda index: table[index]), noise)

    def predict(self, module: Any, inputs: Inputs) -> tuple[Tensor, ...]:
        """The action."""
        return (self.component.predict(module, inputs.z, inputs.task, inputs.noise),)

    def noise(self, module: Any, seed: int) -> Tensor:
        """Noise of a rollout."""
        shape = (HORIZON, ROWS, module.noise_dim)
        return torch.randn(shape, generator=_generator(seed + 1)).to(_dtype(module))

    def rollout(self, module: Any, seed: int = 0, seen: list[Any] | None = None) -> Rollout:
        """The partner is ``world``."""
        inputs = self.inputs(module, seed=seed)
        return self.rollout_from(module, inputs, self.noise(module, seed), seen)

    def rollout_from(
        self, module: Any, inputs: Inputs, noise: Tensor, seen: list[Any] | None = None
    ) -> Rollout:
        """From given latents."""

        def answer(t: int, z: Tensor, action: Tensor) -> Prediction:
            if seen is not None:
                seen.append((t, z, action))
            return world(t, z, action)

        rollout: Rollout = self.component.rollout(module, inputs.z, answer, inputs.task, noise)
        return rollout

    def step(self, module: Any, rollout: Rollout, t: int, seed: int) -> tuple[Tensor, ...]:
        """Its action from the rollout's latent, answered by ``world``."""
        z = rollout.z_HBD[t]
        inputs = self.inputs(module, seed=seed)
        inputs = inputs._replace(z=z, noise=self.noise(module, seed)[t])
        (action,) = self.predict(module, inputs)
        return (*(answer := world(t, z, action))[:1], action, answer[1])

    def imagined(self, rollout: Rollout, mask: Tensor) -> Imagined:
        """Paid for actions near 0.5 and for a latent that moves along."""
        near = -((rollout.action_HBA - 0.5) * mask).square().sum(-1)
        reward = near + 0.1 * rollout.z_HBD[1:, :, 0]
        value = rollout.z_HBD[-1].sum(-1)
        scale = torch.full_like(value[0], 2.0)
        return Imagined(rollout, reward, value, reward.sum(0) + value, scale)

    def loss(
        self, module: Any, seed: int = 0, *, copies: int = 1
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Of a trajectory in ``world``."""
        rollout = Rollout(*(x.repeat_interleave(copies, 1) for x in self.rollout(module, seed)))
        mask = self.inputs(module, seed=seed).task.mask_BA.repeat_interleave(copies, 0)
        found: tuple[Tensor, Mapping[str, Tensor]] = self.component.loss(
            module, self.imagined(rollout, mask)
        )
        return found


def world(t: int, z: Tensor, action: Tensor) -> Prediction:
    """A differentiable world: the action moves every latent entry, more so at later steps."""
    moved = z + 0.1 * (t + 1) * action.sum(-1, keepdim=True)
    slope = torch.linspace(-1, 1, two_hot.BINS, device=z.device, dtype=z.dtype)
    logits = action.sum(-1, keepdim=True) * slope
    return Prediction(moved, logits)


def subject(component: Component, config: Any) -> Subject:
    """The component with this configuration."""
    return (WorldModel if component.kind == "world_model" else Policy)(component, config)


@contextmanager
def fixed_seed(seed: int) -> Iterator[None]:
    """torch's global generator in a known state inside, untouched outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
