"""What a plugin's module may be beside a ``WorldModel`` or a ``Policy``: optional protocols.

The engine finds them by their methods and attributes. Most plugins need none of them; shape
suffixes are those of ``fmbpo.hookspecs``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from fmbpo.hookspecs import Imagined, Module, State, Task

# -- world models and policies ---------------------------------------------------------------


@runtime_checkable
class Projects(Protocol):
    """A module whose parameters must stay in an allowed set."""

    def project(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Parameters after an update -> the nearest allowed ones; pure, as hooks are."""


# -- world models ---------------------------------------------------------------------------


@runtime_checkable
class Remembers(Protocol):
    """A world model with memory: a state grows out of all observations and actions of an episode.

    These methods are pure functions, as hooks are, but without noise: a stochastic model takes its
    posterior's mean or mode.
    """

    warm_up: int
    """Real steps that a state takes in before a policy's or a validation's imagination begins."""

    def begin(self, obs_BO: Tensor, task: Task) -> State:
        """The state at the first observation of an episode, or of a sub-trajectory."""

    def observe(self, state: State, action_BA: Tensor, obs_BO: Tensor, task: Task) -> State:
        """The state after ``action_BA`` led from ``state`` to the observation."""

    def latent(self, state: State) -> Tensor:
        """The part ``[B, D]`` of a state that policies and critics see."""


@runtime_checkable
class DecodesRewards(Protocol):
    """A world model whose rewards are no logits over the bins of ``fmbpo.nn.two_hot``."""

    reward_dim: int
    """R."""

    def decode_reward(self, reward_BR: Tensor) -> Tensor:
        """Outputs ``[..., R]`` -> expected rewards ``[...]``; a function of its argument alone."""


@runtime_checkable
class BinsRewards(Protocol):
    """A world model whose bins of rewards reach as far as its settings say."""

    reward_bound: float
    """The ``bound`` of ``fmbpo.nn.two_hot``."""


@runtime_checkable
class OnSimplex(Protocol):
    """A world model whose latents are rows of groups on the probability simplex."""

    simplex_dim: int
    """Entries per group; a divisor of D."""


@runtime_checkable
class Adopts(Protocol):
    """A world model that can start from the parameters of an MLP world model."""

    def adopt(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """This model's parameters from ``weights``. Raises ``ValueError`` if they do not fit."""


@runtime_checkable
class Curved(Protocol):
    """A world model that solves a flow and measures the curvature of its paths."""

    def curvature(self, z: Tensor, action: Tensor, task: Task, noise: Tensor) -> Tensor:
        """0-d; 0 if one Euler step is exact (``fmbpo.measure.validation``)."""


# -- policies -------------------------------------------------------------------------------


@runtime_checkable
class SeesData(Protocol):
    """A policy whose loss sees real sub-trajectories."""

    real_steps: int
    """Their steps."""


@runtime_checkable
class DrawsNoise(Protocol):
    """A policy whose loss takes noise of its own, beside that of its rollout."""

    loss_noise_dim: int
    """Standard normals per row that ``loss`` takes."""


@runtime_checkable
class HasCritic(Protocol):
    """A policy that brings its critics, members of the ensemble; the engine's are V(z)."""

    def build_critic(self, units: Sequence[int]) -> Critic:
        """A freshly initialised critic with these hidden widths, from torch's global generator."""


class Critic(Module, Protocol):
    """A critic of the policy's own: values of latents and actions."""

    def __call__(self, z_BD: Tensor, action_BA: Tensor) -> Tensor:
        """Values ``[..., B]`` of ``[..., B, D]`` and ``[..., B, A]``."""

    def error(self, z_BD: Tensor, action_BA: Tensor, target_B: Tensor) -> Tensor:
        """The loss of each value ``[..., B]`` against its target."""


@runtime_checkable
class SetsTargets(Protocol):
    """A policy that sets the targets of the critics; the engine's are those of TD(λ)."""

    def targets(
        self, imagined: Imagined, next_value_HB: Tensor, discount: float, lam: float
    ) -> Tensor:
        """Targets ``[H, B]`` for the states before each step, without gradient.
        ``next_value_HB[t]`` is the lowest value of the state after step t (and of the policy's
        action there); see ``fmbpo.nn.returns``."""


@runtime_checkable
class Grows(Protocol):
    """A policy that solves a flow and measures the growth of a gradient through its sub-steps."""

    def growth(self, z: Tensor, task: Task, noise: Tensor, vector: Tensor) -> Tensor:
        """0-d; 1 if the sub-steps keep the norm of a gradient (``fmbpo.pwm.diagnostics``)."""
