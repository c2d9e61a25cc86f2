"""The contract between the engine and its plugins: world models and policies.

A plugin is an object that a distribution offers through an entry point in the group
``fmbpo.world_models`` or ``fmbpo.policies``; the entry point's name is the plugin's name. It has

* ``spec_version``: the version of this contract that it follows (``SPEC_VERSION``);
* ``Config``: an attrs class of all its settings, the keys of its table in an experiment file;
* ``build(config, dims)``: returns its module, a ``WorldModel`` or a ``Policy`` below, freshly
  initialised from torch's global generator;
* four hooks marked with ``@hookimpl``, the same for both kinds of plugin;
* optionally ``small``: settings of a small instance, for the contract checks.

========== ============================================= =======================================
hook       world model                                   policy
========== ============================================= =======================================
predict    state, action -> next state, reward           latent -> action
rollout    H steps; the partner chooses the actions      H steps; the partner answers the actions
loss       batch of real sub-trajectories -> scalar      imagined trajectory, context -> scalar
freeze     parameters stop learning                      the same
========== ============================================= =======================================

The state of a world model is its latent, unless the model ``Remembers``. Policies and critics see
latents only. ``fmbpo.protocols`` has what a module may offer beside the attributes here: memory,
rewards in another form, critics and targets of its own.

Every hook is a pure function of its arguments with fixed shapes. It draws no random numbers (the
engine passes standard normal ``noise``), changes no argument in place, and has no ``.item()`` and
no Python branch on data. The engine maps hooks over stacked parameters with ``torch.func.vmap``,
and records them once.

State that does not learn (averages of parameters, running statistics) is a buffer of the module,
``register_buffer``. It passes no gradient; it is stacked, saved and resumed like a parameter. The
``loss`` returns its new value among the metrics, by its name.

The convention of PWM's released model loss needs a world model whose ``Config`` has
``reward_loss``, ``consistency_coef``, ``reward_coef`` and ``rho``.

Shape suffixes: B batch, H horizon, O observation, A action, D latent, E task embedding,
R outputs of the reward head, C critics, N noise. Rewards are per agent step, in the environment's
units.
``fmbpo plugins check NAME`` checks all of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import attrs
import pluggy
from torch import Tensor, nn

SPEC_VERSION = 2
"""Version of this contract; it increases if existing plugins would stop working."""

PROJECT = "fmbpo"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@attrs.frozen
class WorldModelDims:
    """The sizes of a world model: padded widths, and the number of tasks."""

    obs: int
    action: int
    tasks: int


@attrs.frozen
class PolicyDims:
    """The sizes of a policy: its world model's latent and task embedding, and the action."""

    latent: int
    task: int
    action: int


class Module(Protocol):
    """The methods of ``torch.nn.Module`` that the engine uses."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters by name."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters without names."""

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Buffers by name."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Load parameters and buffers. Raises ``RuntimeError`` if they do not fit."""

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Set whether the parameters learn."""


State: TypeAlias = Any
"""What a world model knows of a row: a pytree of tensors ``[B, ...]`` of fixed shapes, the latent
``z_BD`` itself if the model does not remember."""

Extras: TypeAlias = Mapping[str, Tensor]
"""Further quantities of a step by name, ``[B]`` each, the same names at every step. ``CONTINUE`` is
part of the return; the engine logs the means of all of them, and losses see them."""

CONTINUE = "continue"
"""The probability, from a world model, that the episode goes on after a step."""
LOG_PROB = "log_prob"
"""The log-density of a step's action, from a policy."""


class WorldModel(Module, Protocol):
    """A world model's module. It ``Encodes`` or ``Remembers``.

    Parameters whose names begin with ``encoder.`` learn at the encoder's rate. Those of
    ``task_embedding.`` do not learn under the convention ``task_embedding = "stale"``.
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


@runtime_checkable
class Encodes(Protocol):
    """A world model without memory: an observation tells the latent."""

    def encode(self, obs_BO: Tensor, e_BE: Tensor) -> Tensor:
        """Zero-padded observations ``[B, O]`` or ``[H, B, O]`` and task embeddings -> latents
        ``[B, D]`` or ``[H, B, D]``."""


class Policy(Module, Protocol):
    """A policy's module."""

    noise_dim: int
    """Standard normals per row that ``predict`` takes."""
    evaluations: int
    """Passes through the policy's network per ``predict``."""


class Task(NamedTuple):
    """The task of each row.

    ``mask_BA`` is 1 for the task's action dimensions and 0 for padding;
    ``embedding_BE`` is the world model's ``embed(index_B)``.
    """

    index_B: Tensor
    mask_BA: Tensor
    embedding_BE: Tensor


class Prediction(NamedTuple):
    """One predicted step: the next state and the reward of the step.

    ``reward_BR`` are the logits over the bins of ``fmbpo.nn.two_hot``, unless the model
    ``DecodesRewards``. A policy's partner answers with the next latent in place of the state.
    """

    state: State
    reward_BR: Tensor
    extras: Extras = {}  # noqa: RUF012 - never changed


class Rollout(NamedTuple):
    """H predicted steps; ``z_HBD`` has H + 1 rows, of which the first is the start. Each of
    ``extras`` is ``[H, B]``."""

    z_HBD: Tensor
    action_HBA: Tensor
    reward_HBR: Tensor
    extras: Extras = {}  # noqa: RUF012 - never changed


class Batch(NamedTuple):
    """Real sub-trajectories: ``action_HBA[t]`` led from ``obs_HBO[t]`` to ``obs_HBO[t + 1]`` and
    earned ``reward_HB[t]``. ``obs_HBO`` has H + 1 rows.

    ``terminated_HB[t]`` is 1 if the step ended its episode in a terminal state, else 0. It can be 1
    in the last step only, since no slice crosses episodes, and is 0 everywhere if the data have no
    terminations.
    """

    obs_HBO: Tensor
    action_HBA: Tensor
    reward_HB: Tensor
    index_B: Tensor
    mask_BA: Tensor
    terminated_HB: Tensor


class Imagined(NamedTuple):
    """An imagined trajectory for the actor's loss, differentiable with respect to the actions.

    ``action_HBA`` are the rollout's actions and, if the critics take actions, one more: that in the
    last state. ``reward_HB`` is decoded, ``weight_HB`` (or ``[H, 1]``) is γ^t times the probability
    that the episode has not ended before step t, ``value_B`` is the critics' V(z_H), ``return_B``
    is the weighted sum of both (with the configured bootstrap weight), and ``scale`` is the divisor
    of the return normaliser (0-d, no gradient).
    """

    rollout: Rollout
    action_HBA: Tensor
    reward_HB: Tensor
    weight_HB: Tensor
    value_B: Tensor
    return_B: Tensor
    scale: Tensor


class Real(NamedTuple):
    """Real sub-trajectories from the states in which imagination begins, for a policy that
    ``SeesData``: latents ``[S + 1, B, D]``, and actions, rewards and terminations of S steps."""

    z_HBD: Tensor
    action_HBA: Tensor
    reward_HB: Tensor
    terminated_HB: Tensor


class LossContext(NamedTuple):
    """What a policy's loss may use beside the imagined trajectory.

    ``noise_HBN`` is the noise of the policy's rollout, ``loss_noise_BN`` that of its loss, if it
    ``DrawsNoise``; ``done`` (0-d) is the fraction of training that is done; ``values(z, action)``
    are those of all critics, ``[..., D]`` -> ``[C, ...]``, differentiable; the engine's own critics
    ignore the action.
    """

    task: Task
    noise_HBN: Tensor
    done: Tensor
    values: Callable[[Tensor, Tensor], Tensor]
    real: Real | None
    loss_noise_BN: Tensor | None = None


Metrics: TypeAlias = dict[str, Tensor]
"""0-d tensors by name, detached; also the new values of the module's buffers."""

ChooseAction: TypeAlias = Callable[[int, Tensor], Tensor]
"""``(t, z_BD) -> action_BA``: the partner of a world model's rollout."""

AnswerAction: TypeAlias = Callable[[int, Tensor, Tensor], Prediction]
"""``(t, z_BD, action_BA) -> Prediction``: the partner of a policy's rollout."""


class WorldModelSpec:
    """The hooks of a world model."""

    @hookspec
    def predict(
        self, module: WorldModel, state: State, action: Tensor, task: Task, noise: Tensor
    ) -> Prediction:
        """One step: state, ``action_BA``, ``noise_BN`` -> next state and reward.

        The engine calls it for every imagined step, as the partner of the policy's ``rollout``.
        Differentiable with respect to state, action and parameters. Masked action dimensions have
        no effect. The next latent is in the space of ``encode``.
        """

    @hookspec
    def rollout(
        self, module: WorldModel, state: State, partner: ChooseAction, task: Task, noise: Tensor
    ) -> Rollout:
        """H steps from a state, H = len(``noise_HBN``); ``partner(t, z)`` chooses the actions.

        Equals repeated ``predict``. Validation on held-out data calls it with recorded actions.
        """

    @hookspec
    def loss(
        self, module: WorldModel, batch: Batch, noise: Tensor, done: Tensor
    ) -> tuple[Tensor, Metrics]:
        """The training loss (0-d, mean over B) of real sub-trajectories, and metrics.

        ``noise_HBN``: standard normals, N = ``module.loss_noise_dim``; ``done`` (0-d): the fraction
        of training that is done. The world-model update differentiates it with respect to every
        parameter.
        """

    @hookspec
    def freeze(self, module: WorldModel) -> None:
        """Stop every parameter from learning; gradients still flow to the inputs. The engine calls
        it once, before policies learn in a frozen model."""


class PolicySpec:
    """The hooks of a policy."""

    @hookspec
    def predict(self, module: Policy, z: Tensor, task: Task, noise: Tensor) -> Tensor:
        """``z_BD``, ``noise_BN`` -> ``action_BA`` in [-1, 1], masked dimensions 0.

        Zero noise gives the deterministic mode. The engine calls it for every step in the
        simulator. Differentiable with respect to z and parameters.
        """

    @hookspec
    def rollout(
        self, module: Policy, z: Tensor, partner: AnswerAction, task: Task, noise: Tensor
    ) -> Rollout:
        """H steps from ``z_BD``, H = len(``noise_HBN``); ``partner(t, z, a)`` answers each.

        The policy update calls it with the world model as partner. The policy sees ``sg z`` (PWM):
        no gradient flows through its input, only through the world model. A plugin's setting
        ``detach = false`` may keep both paths.
        """

    @hookspec
    def loss(
        self, module: Policy, imagined: Imagined, context: LossContext
    ) -> tuple[Tensor, Metrics]:
        """The actor's loss (0-d, mean over B) of an imagined trajectory, and metrics.

        The policy update differentiates it with respect to the policy's parameters.
        """

    @hookspec
    def freeze(self, module: Policy) -> None:
        """Stop every parameter from learning; called once, before a policy is evaluated."""
