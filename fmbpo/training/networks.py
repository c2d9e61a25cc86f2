"""The networks of a run, built from its seeds."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from fmbpo.config.schema import CriticConfig, PluginTable
from fmbpo.hookspecs import Policy, PolicyDims, WorldModel
from fmbpo.measure.sizes import dims_of
from fmbpo.protocols import HasCritic
from fmbpo.pwm.critic import Critic
from fmbpo.tasks.suite import Suite
from fmbpo.training import seeding
from fmbpo.training.cells import Cell
from fmbpo.training.trees import own_params, stack


def build_world_model(
    table: PluginTable, suite: Suite, seed: int, device: torch.device, *purpose: str
) -> WorldModel:
    """The plugin's module, initialised from ``seed`` and ``purpose``."""
    build, dims = table.component.build, dims_of(suite)
    made: WorldModel = seeding.built(
        lambda: build(table.config, dims), device, seed, *purpose, "world model"
    )
    return made


class CellNetworks:
    """Policies and critics for one world model, each initialised from the seed of its cell."""

    def __init__(
        self,
        table: PluginTable,
        critic: CriticConfig,
        model: WorldModel,
        suite: Suite,
        device: torch.device,
    ) -> None:
        self._table, self._critic, self._device = table, critic, device
        self._dims = PolicyDims(model.latent_dim, model.task_dim, suite.action_width)

    def policy(self, cell: Cell, purpose: str = "policy") -> Policy:
        """The plugin's module."""
        build = self._table.component.build
        made: Policy = seeding.built(
            lambda: build(self._table.config, self._dims),
            self._device, cell.seed, *cell.purpose, purpose,
        )  # fmt: skip
        return made

    def critic(self, cell: Cell, purpose: str) -> nn.Module:
        """One member of an ensemble, the engine's or the policy's own."""
        units, policy = self._critic.units, self._template

        def build() -> nn.Module:
            if not isinstance(policy, HasCritic):
                return Critic(self._dims.latent, units)
            made = policy.build_critic(units)
            assert isinstance(made, nn.Module)
            return made

        return seeding.built(build, self._device, cell.seed, *cell.purpose, purpose)

    @cached_property
    def _template(self) -> Policy:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            template: Policy = self._table.component.build(self._table.config, self._dims)
        return template

    def critics(self, cell: Cell) -> dict[str, Tensor]:
        """The parameters of an ensemble, stacked along its members."""
        members = range(self._critic.count)
        return stack([own_params(self.critic(cell, f"critic {i}")) for i in members])
