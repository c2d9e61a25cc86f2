"""The tables of an experiment file as classes. The defaults are the study's values.

Every key of a file is a field here or in the ``Config`` of the chosen plugin.
"""

from __future__ import annotations

import typing
from typing import Any, Literal

import attrs
from attrs import field

from fmbpo.base.cores import usable_cores
from fmbpo.config.conventions import ConventionsConfig
from fmbpo.config.protocols import Finetuned, Frozen, ModelOptimiser, Protocol
from fmbpo.config.validators import (
    betas,
    filled,
    non_negative,
    positive,
    project_name,
    unique,
    within,
)
from fmbpo.errors import UserError
from fmbpo.plugins import Component
from fmbpo.tasks.known import suite_of, task_name
from fmbpo.tasks.mt30 import SUITE
from fmbpo.tasks.suite import Suite
from fmbpo.tasks.table import GymnasiumTable


def study_names(tasks: list[str]) -> list[str]:
    """The names in the tasks' own spelling; unknown ones are left as they are."""
    return [task_name(name) for name in tasks]


@attrs.frozen(kw_only=True)
class PluginTable:
    """``[world_model]`` or ``[policy]``: ``plugin = "NAME"``, ``level`` if it is not the plugin's
    name, and the fields of its ``Config``."""

    plugin: str
    """The plugin's entry-point name."""
    level: str
    """The level of the factor: this configuration's name in tables, figures and run names."""
    config: Any
    """An instance of the plugin's ``Config``."""
    component: Component = field(eq=False, repr=False)
    """The plugin, checked and resolved."""


@attrs.frozen(kw_only=True)
class DataConfig:
    """``[data]``: the data that the world model learns from."""

    path: str = ""
    """The data store's folder, relative to the working directory; ``"embedded"``: the small store
    in the package; empty: not configured in the file."""
    tasks: list[str] = field(factory=list, converter=study_names, validator=unique)
    """Tasks to use, in the study's names; empty: all tasks of the store."""
    weights: dict[str, float] = field(factory=dict, validator=within(0.001, 1000))
    """Average number of slices per epoch and episode in pretraining, by task, from 0.001 to 1000;
    by default 1."""
    residence: Literal["auto", "device", "host", "stream"] = "auto"
    """Place of the rows that are sampled: all on the training ``"device"``, all in the ``"host"``'s
    memory, or a ``"stream"`` from the disk; ``"auto"``: the first of these that fits."""


@attrs.frozen(kw_only=True)
class PretrainConfig:
    """``[pretrain]``: training of the world model on recorded data."""

    iterations: int = field(default=200_000, validator=positive)
    """Gradient steps."""
    batch: int = field(default=256, validator=positive)
    """Sub-trajectories per step."""
    horizon: int = field(default=16, validator=positive)
    """Length of a sub-trajectory, in agent steps."""
    learning_rate: float = field(default=3e-4, validator=positive)
    """Adam's learning rate at the start."""
    encoder_learning_rate_scale: float = field(default=0.3, validator=positive)
    """The encoder's learning rate, as a multiple of ``learning_rate``."""
    final_learning_rate: float = field(default=1e-5, validator=positive)
    """Adam's learning rate at the end."""
    grad_clip: float = field(default=20.0, validator=positive)
    """Largest norm of the gradient of all parameters."""
    betas: list[float] = field(factory=lambda: [0.9, 0.999], validator=betas)
    """Adam's decay rates."""
    log_every: int = field(default=100, validator=positive)
    """Iterations between logged metrics."""
    validate_every: int = field(default=5000, validator=positive)
    """Iterations between validations on held-out data, which choose the best checkpoint."""
    checkpoint_every: int = field(default=5000, validator=positive)
    """Iterations between saved training states."""

    @property
    def optimiser(self) -> ModelOptimiser:
        """Adam's settings."""
        return ModelOptimiser(
            learning_rate=self.learning_rate,
            final_learning_rate=self.final_learning_rate,
            betas=self.betas,
            grad_clip=self.grad_clip,
            encoder_scale=self.encoder_learning_rate_scale,
        )


@attrs.frozen(kw_only=True)
class PolicyLearningConfig:
    """``[policy_learning]``: training of actor and critics in the world model's imagination."""

    iterations: int = field(default=10_000, validator=positive)
    """Gradient steps of the actor."""
    batch: int = field(default=512, validator=positive)
    """Imagined trajectories per step."""
    horizon: int = field(default=16, validator=positive)
    """Steps of an imagined trajectory."""
    discount: float = field(default=0.99, validator=within(0, 1, open_low=True))
    """γ, the discount per agent step."""
    lam: float = field(default=0.95, validator=within(0, 1))
    """λ of the critics' TD(λ) targets."""
    actor_learning_rate: float = field(default=5e-4, validator=positive)
    """Adam's learning rate for the actor at the start."""
    critic_learning_rate: float = field(default=5e-4, validator=positive)
    """Adam's learning rate for the critics at the start."""
    final_learning_rate: float = field(default=1e-5, validator=positive)
    """Both learning rates at the end."""
    betas: list[float] = field(factory=lambda: [0.7, 0.95], validator=betas)
    """Adam's decay rates for actor and critics."""
    actor_grad_clip: float = field(default=1.0, validator=positive)
    """Largest norm of the actor's gradient."""
    critic_grad_clip: float = field(default=100.0, validator=positive)
    """Largest norm of the critics' gradient."""
    critic_iterations: int = field(default=8, validator=positive)
    """Passes of the critics over the imagined states per step of the actor."""
    critic_minibatches: int = field(default=4, validator=positive)
    """Minibatches per pass; they divide the ``batch * horizon`` states equally."""
    diagnose_every: int = field(default=0, validator=non_negative)
    """Iterations between measurements of the actor's gradients: signal-to-noise ratio, norms by
    part, Jacobian norms of one step, growth through a flow policy; 0: never. Changes no result."""
    stack: int = field(default=0, validator=non_negative)
    """Largest number of policies trained in one program; 0: the whole grid."""
    log_every: int = field(default=100, validator=positive)
    """Iterations between logged metrics."""
    evaluate_every: int = field(default=2000, validator=positive)
    """Iterations between evaluations in the simulator."""
    checkpoint_every: int = field(default=1000, validator=positive)
    """Iterations between saved training states."""

    def __attrs_post_init__(self) -> None:
        states = self.batch * self.horizon
        if states % self.critic_minibatches:
            raise ValueError(
                f"batch * horizon = {states} states cannot be divided into "
                f"critic_minibatches = {self.critic_minibatches} equal parts"
            )


@attrs.frozen(kw_only=True)
class CriticConfig:
    """``[critic]``: the ensemble that estimates the values of imagined states."""

    units: list[int] = field(factory=lambda: [400, 200], validator=[filled, positive])
    """Widths of the hidden layers."""
    count: int = field(default=3, validator=positive)
    """Number of critics in the ensemble."""


@attrs.frozen(kw_only=True)
class GridConfig:
    """``[grid]``: the replicates, and the policies to train in each.

    A replicate is a world model and, for every task, ``policies_per_model`` policies trained in it.
    All replicates share the world model if ``protocol.checkpoint`` names one.
    """

    tasks: list[str] = field(factory=list, converter=study_names, validator=unique)
    """Tasks of the policies, in the study's names; empty: all tasks of the data."""
    seeds: list[int] = field(
        factory=lambda: [42, 123, 456], validator=[filled, unique, non_negative]
    )
    """Seeds of initialisation, sampling and noise, one per replicate."""
    policies_per_model: int = field(default=1, validator=positive)
    """Policies of a task in each replicate."""


@attrs.frozen(kw_only=True)
class EvaluationConfig:
    """``[evaluation]``: episodes in the simulator."""

    seed: int = field(default=10_000, validator=within(0, 2**31))
    """Seed of the initial states, which all policies share so that returns can be paired."""
    episodes: int = field(default=10, validator=positive)
    """Episodes per evaluation during training."""
    final_episodes: int = field(default=50, validator=positive)
    """Episodes of a trained policy's final evaluation."""
    planner: Literal["none", "mppi"] = "none"
    """``"mppi"``: a second final evaluation plans in the world model at every step (see
    ``[planning]``); its returns are reported beside the policy's own."""
    workers: int = field(default=0, validator=non_negative)
    """Processes that simulate; 0: one per usable core."""

    def simulators(self, processes: int = 1) -> int:
        """Processes that simulate for each of ``processes`` that train on a machine: its part of
        ``workers``, or of the usable cores for 0."""
        return (self.workers or usable_cores()) // processes


@attrs.frozen(kw_only=True)
class PlanningConfig:
    """``[planning]``: MPPI at test time (``evaluation.planner = "mppi"``). Defaults: TD-MPC2's."""

    episodes: int = field(default=10, validator=positive)
    """Episodes with planning: the first episodes of the policy's own final evaluation."""
    horizon: int = field(default=3, validator=positive)
    """H, steps planned in the model; the critics estimate the value of the last latent."""
    iterations: int = field(default=6, validator=positive)
    """Refinements per plan."""
    samples: int = field(default=512, validator=positive)
    """Action sequences drawn around the mean in each refinement."""
    elites: int = field(default=64, validator=positive)
    """Best candidates, which determine the next mean and standard deviation."""
    policy_samples: int = field(default=24, validator=positive)
    """The policy's own sequences among the candidates; the first is deterministic."""
    temperature: float = field(default=0.5, validator=within(0, 1_000_000, open_low=True))
    """Factor of the scores (an inverse temperature): a higher value favours the best more."""
    min_std: float = field(default=0.05, validator=non_negative)
    """Lower bound of the samples' standard deviation."""
    max_std: float = field(default=2.0, validator=within(0, 1000, open_low=True))
    """Upper bound of the same, and the initial value in each plan."""

    def __attrs_post_init__(self) -> None:
        if self.elites > self.samples + self.policy_samples:
            raise ValueError(f"elites must be at most samples + policy_samples: {self.elites}")
        if self.min_std > self.max_std:
            raise ValueError(f"min_std must be at most max_std: {self.min_std} > {self.max_std}")


@attrs.frozen(kw_only=True)
class WandbConfig:
    """``[wandb]``: Weights & Biases, off by default. ``WANDB_MODE`` and ``WANDB_PROJECT`` in the
    environment win over this table."""

    mode: Literal["online", "offline", "disabled"] = "disabled"
    """``"online"`` uploads, ``"offline"`` writes to the run's folder, ``"disabled"`` is off."""
    project: str = field(default="MT30-Detailed", validator=project_name)
    """Project of policy runs."""
    pretrain_project: str = field(default="WM-Pretrain", validator=project_name)
    """Project of pretraining runs."""


@attrs.frozen(kw_only=True)
class SystemConfig:
    """``[system]``: how the machine computes."""

    device: str = field(default="auto", validator=filled)
    """A torch device such as ``"cuda:0"``; ``"auto"``: the GPU if there is one."""
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    """The arithmetic of the updates' matrix products; ``"auto"``: TF32 on a GPU, float32 on a CPU.
    Parameters, validation and acting stay float32."""
    graph: Literal["auto", "on", "off"] = "auto"
    """Whether an update is recorded once and then replayed, as a CUDA graph or as a list of the
    CPU's kernels: the same results, without the cost of Python. ``"auto"``: if it can be; ``"on"``:
    or the run ends with an error."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether layer normalisation and Mish run as one kernel, which TorchInductor compiles: the
    same but for the last bits. ``"auto"``: no. It needs a C++ compiler, or a GPU with Triton."""
    threads: int = field(default=0, validator=within(0, 1024))
    """torch's CPU threads, shared by all processes on a machine; 0: torch's default, at most one
    per usable core."""


@attrs.frozen(kw_only=True)
class Experiment:
    """One experiment, resolved and checked. ``kind`` determines its tables.

    ``"pretrain"`` trains a world model; ``"policy"`` trains a grid of policies in one.
    """

    name: str = field(validator=filled)
    """The name; by default the file's name without its extension."""
    phase: str = ""
    """Phase of the study; results of different phases are not ranked against each other."""
    kind: Literal["pretrain", "policy"]
    description: str = ""
    """A one-line description."""
    aliases: list[str] = field(factory=list, validator=unique)
    """Older names of the experiment."""
    scale: str
    """``"paper"`` for the file as it is, or the name of the scale that overrides it."""
    scale_reason: str = ""
    """The reason for this scale."""
    tasks: dict[str, GymnasiumTable] = field(factory=dict)
    """Tasks of your own, by name."""
    data: DataConfig = field(factory=DataConfig)
    world_model: PluginTable
    pretrain: PretrainConfig = field(factory=PretrainConfig)
    protocol: Protocol | None = None
    conventions: ConventionsConfig | None = None
    policy: PluginTable | None = None
    policy_learning: PolicyLearningConfig | None = None
    critic: CriticConfig | None = None
    grid: GridConfig = field(factory=GridConfig)
    evaluation: EvaluationConfig = field(factory=EvaluationConfig)
    planning: PlanningConfig = field(factory=PlanningConfig)
    wandb: WandbConfig = field(factory=WandbConfig)
    system: SystemConfig = field(factory=SystemConfig)
    origin: dict[str, str] = field(factory=dict, eq=False, repr=False)
    """Origin of each value by key path; the other values are defaults."""

    @property
    def of_policies(self) -> PolicyTables:
        """The tables of a ``"policy"`` experiment that a ``"pretrain"`` experiment lacks."""
        assert self.kind == "policy"
        return PolicyTables(*(getattr(self, name) for name in POLICY_TABLES))

    @property
    def expected_suite(self) -> Suite:
        """The suite of ``data.tasks``, before the data are known. By default all own tasks; without
        any, MT30."""
        names = self.data.tasks or list(self.tasks)
        return suite_of(names, self.tasks) if names else SUITE

    @property
    def needs_pretraining(self) -> bool:
        """Whether each replicate takes its world model from a pretraining run, or is one."""
        pretrained = isinstance(self.protocol, Frozen | Finetuned) and not self.protocol.checkpoint
        return pretrained or self.policy is None

    @grid.validator
    def _in_data(self, _: object, grid: GridConfig) -> None:
        for task in grid.tasks if self.data.tasks else ():
            if task not in self.data.tasks:
                raise UserError(f"the task {task!r} is not among data.tasks", remedy="add it there")

    def __attrs_post_init__(self) -> None:
        if getattr(self.world_model.config, "reward_loss", "two_hot") != "two_hot":
            raise ValueError(
                "world_model.reward_loss cannot be set here; set conventions.model_loss, which "
                "does not affect pretraining"
            )


def tables() -> dict[str, type[Any]]:
    """The class of each table of an experiment, by the table's name."""
    hints = typing.get_type_hints(Experiment)
    return {
        name: cls
        for name, hint in hints.items()
        for cls in (hint, *typing.get_args(hint))
        if typing.get_origin(hint) is not dict and isinstance(cls, type) and attrs.has(cls)
    }


@attrs.frozen
class PolicyTables:
    """The tables that every ``"policy"`` experiment has, and no other."""

    protocol: Protocol
    conventions: ConventionsConfig
    policy: PluginTable
    policy_learning: PolicyLearningConfig
    critic: CriticConfig


POLICY_TABLES = tuple(field.name for field in attrs.fields(PolicyTables))
"""Tables that only a ``"policy"`` experiment has."""

DEFAULTED_TABLES = ("conventions", "policy_learning", "critic")
"""Those of ``POLICY_TABLES`` that a file may leave out."""
