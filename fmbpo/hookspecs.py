"""The contract between the engine and its plugins: four hooks that mean the same in both roles.

========== ============================================= =======================================
hook       world model                                   policy
========== ============================================= =======================================
predict    latent, action -> next latent, reward logits  latent -> action
rollout    H steps; the partner chooses the actions      H steps; the partner answers the actions
loss       batch of real sub-trajectories -> scalar      imagined trajectory -> scalar
freeze     parameters stop learning                      the same
========== ============================================= =======================================

A distribution offers a plugin by an entry point in the group ``fmbpo.world_models`` or
``fmbpo.policies``. The entry point's name is the plugin's name; it gives an object with

* ``spec_version``: the version of this contract that it was written for (``SPEC_VERSION``);
* ``Config``: an attrs class, the plugin's table in an experiment file, every setting in it;
* ``build(config, dims)``: an ``nn.Module``, freshly initialised from torch's global generator;
* the four hooks below, marked with ``@hookimpl``;
* optionally ``small``: settings of a small instance, which the contract checks use.

The module that ``build`` returns is a ``WorldModel`` or a ``Policy``, protocols that stand below
the hooks' arguments. It may also offer ``OnSimplex``, ``Adopts``, ``Curved``, ``Grows`` and
``Projects``. A world model whose ``Config`` has ``reward_loss``,
``consistency_coef``, ``reward_coef`` and ``rho`` can be trained with PWM's released loss.
Checkpoints hold parameters alone: no buffers.

Rules for every hook: pure functions of their arguments, fixed shapes, no randomness of their own
(the engine hands in standard normal ``noise``), no in-place change of an argument, no ``.item()``,
no Python branch on data. The engine compiles them with ``fullgraph=True`` and maps them over
stacked parameters with ``torch.func.vmap``.

Shape suffixes: B batch, H horizon, O observation, A action, D latent, E task embedding,
R reward bins, N noise. Rewards are per agent step, in the environment's units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import attrs
import pluggy
from torch import Tensor, nn

SPEC_VERSION = 1
"""Version of this contract; raised when a plugin that followed it would stop working."""

PROJECT = "fmbpo"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@attrs.frozen
class WorldModelDims:
    """Sizes that a world model is built for: padded widths and the number of tasks."""

    obs: int
    action: int
    tasks: int


@attrs.frozen
class PolicyDims:
    """Sizes that a policy is built for: its world model's latent and embedding, the action."""

    latent: int
    task: int
    action: int


class Task(NamedTuple):
    """Which task each row belongs to.

    ``mask_BA`` is 1 where the task has the action dimension and 0 where it is padding;
    ``embedding_BE`` is the world model's own ``embed(index)``.
    """

    index_B: Tensor
    mask_BA: Tensor
    embedding_BE: Tensor


class Prediction(NamedTuple):
    """One predicted step: the next latent and the logits over the two-hot reward bins."""

    z_BD: Tensor
    reward_logits_BR: Tensor


class Rollout(NamedTuple):
    """H predicted steps; ``z_HBD`` has H + 1 rows, the first being the start."""

    z_HBD: Tensor
    action_HBA: Tensor
    reward_logits_HBR: Tensor


class Batch(NamedTuple):
    """Real sub-trajectories: ``action_HBA[t]`` led from ``obs_HBO[t]`` to ``obs_HBO[t + 1]`` and
    earned ``reward_HB[t]``; ``obs_HBO`` has H + 1 rows."""

    obs_HBO: Tensor
    action_HBA: Tensor
    reward_HB: Tensor
    index_B: Tensor
    mask_BA: Tensor


class Imagined(NamedTuple):
    """An imagined trajectory as the actor's loss sees it, differentiable to the actions.

    ``reward_HB`` is decoded, ``value_B`` the critics' V(z_H), ``return_B`` the discounted sum of
    both (with the configured bootstrap weight), ``scale`` the return normaliser's divisor
    (no gradient).
    """

    rollout: Rollout
    reward_HB: Tensor
    value_B: Tensor
    return_B: Tensor
    scale: Tensor


Metrics: TypeAlias = dict[str, Tensor]
"""0-d tensors by name, detached."""

ChooseAction: TypeAlias = Callable[[int, Tensor], Tensor]
"""``(t, z_BD) -> action_BA``: the partner of a world model's rollout."""

AnswerAction: TypeAlias = Callable[[int, Tensor, Tensor], Prediction]
"""``(t, z_BD, action_BA) -> Prediction``: the partner of a policy's rollout."""


class Module(Protocol):
    """Of ``torch.nn.Module``, which every module is, the part that the engine uses."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take over parameters; ``RuntimeError`` if they do not fit."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The same without names."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Whether the parameters learn."""
        ...


class WorldModel(Module, Protocol):
    """A world model's module.

    Parameters whose names begin with ``encoder.`` learn at the encoder's own rate; those of
    ``task_embedding.`` are the task embedding, of which one convention speaks.
    """

    latent_dim: int
    """D."""
    task_dim: int
    """E."""
    noise_dim: int
    """Standard normals per row that ``predict`` takes; 0 for a deterministic model."""
    loss_noise_dim: int
    """Standard normals per row and step that ``loss`` takes."""
    evaluations: int
    """Passes through the dynamics network per ``predict``."""

    def embed(self, index_B: Tensor) -> Tensor:
        """Task indices (int64) -> embeddings ``[B, E]``."""
        ...

    def encode(self, obs_BO: Tensor, e_BE: Tensor) -> Tensor:
        """Observations, zero-padded, and task embeddings -> latents ``[B, D]``."""
        ...


class Policy(Module, Protocol):
    """A policy's module."""

    noise_dim: int
    """Standard normals per row that ``predict`` takes."""
    evaluations: int
    """Passes through the policy's network per ``predict``."""


@runtime_checkable
class OnSimplex(Protocol):
    """A world model whose latents are rows of groups on the probability simplex."""

    simplex_dim: int
    """Entries per group."""


@runtime_checkable
class Adopts(Protocol):
    """A world model that can begin with an MLP world model's parameters."""

    def adopt(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Its own parameters from those; ``ValueError`` if they do not fit."""
        ...


@runtime_checkable
class Curved(Protocol):
    """A world model that solves a flow, and can say how bent its paths are."""

    def curvature(self, z: Tensor, action: Tensor, task: Task, noise: Tensor) -> Tensor:
        """0-d; 0 if one Euler step is exact (``fmbpo.measure.validation``)."""
        ...


@runtime_checkable
class Grows(Protocol):
    """A policy that solves a flow, and can say how its sub-steps stretch a gradient."""

    def growth(self, z: Tensor, task: Task, noise: Tensor, vector: Tensor) -> Tensor:
        """0-d; 1 if the sub-steps leave a gradient's norm alone (``fmbpo.pwm.diagnostics``)."""
        ...


@runtime_checkable
class Projects(Protocol):
    """A module whose parameters must stay in an allowed set."""

    def project(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Updated parameters put back into it; pure, so that it can be mapped over models."""
        ...


class WorldModelSpec:
    """The hooks of a world model."""

    @hookspec
    def predict(
        self, module: WorldModel, z: Tensor, action: Tensor, task: Task, noise: Tensor
    ) -> Prediction:
        """One step: ``z_BD``, ``action_BA``, ``noise_BN`` -> next latent and reward logits.

        Called by the engine for every imagined step, by way of the policy's ``rollout``.
        Differentiable to z, action and parameters. Masked action dimensions have no effect. The
        result lies in the space that ``encode`` maps to.
        """

    @hookspec
    def rollout(
        self, module: WorldModel, z: Tensor, partner: ChooseAction, task: Task, noise: Tensor
    ) -> Rollout:
        """H steps from ``z_BD``, H = len(``noise_HBN``), actions chosen by ``partner(t, z)``.

        Called by the held-out validation with the recorded actions. Equals repeated ``predict``.
        """

    @hookspec
    def loss(self, module: WorldModel, batch: Batch, noise: Tensor) -> tuple[Tensor, Metrics]:
        """The training loss (0-d, mean over B) of real sub-trajectories, and metrics.

        ``noise_HBN``: standard normals, N = ``module.loss_noise_dim``. Called by the world-model
        update, which differentiates it to every parameter.
        """

    @hookspec
    def freeze(self, module: WorldModel) -> None:
        """Stop every parameter from learning; gradients still flow to the inputs.

        Called once, when a policy is to be trained inside a frozen model.
        """


class PolicySpec:
    """The hooks of a policy."""

    @hookspec
    def predict(self, module: Policy, z: Tensor, task: Task, noise: Tensor) -> Tensor:
        """``z_BD``, ``noise_BN`` -> ``action_BA`` in [-1, 1], masked dimensions 0.

        Noise of zeros gives the deterministic mode. Called for every imagined step and every
        step in the simulator. Differentiable to z and parameters.
        """

    @hookspec
    def rollout(
        self, module: Policy, z: Tensor, partner: AnswerAction, task: Task, noise: Tensor
    ) -> Rollout:
        """H steps from ``z_BD``, H = len(``noise_HBN``), each answered by ``partner(t, z, a)``.

        Called by the policy update with the world model as partner. The policy sees ``sg z`` unless
        it is told otherwise: the path through its own input is cut, the path through the world
        model is not (PWM).
        """

    @hookspec
    def loss(self, module: Policy, imagined: Imagined) -> tuple[Tensor, Metrics]:
        """The actor's loss (0-d, mean over B) of an imagined trajectory, and metrics.

        Called by the policy update, which differentiates it to the policy's parameters.
        """

    @hookspec
    def freeze(self, module: Policy) -> None:
        """Stop every parameter from learning; gradients still flow to the inputs.

        Called once, before a trained policy is evaluated.
        """
