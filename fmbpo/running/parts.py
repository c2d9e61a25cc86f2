"""The parts of a run in its summary: the world model and the policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fmbpo.config.schema import PluginTable
from fmbpo.hookspecs import Policy, WorldModel
from fmbpo.measure.cost import parameters
from fmbpo.measure.sizes import size_parity
from fmbpo.runs.summary import Part, WorldModelPart
from fmbpo.tasks.mt30 import SUITE
from fmbpo.tasks.suite import Suite


def suite_part(suite: Suite) -> dict[str, list[str]]:
    """The tasks of the suite in order, which fix the networks' sizes; not said for MT30."""
    return {} if suite is SUITE else {"suite": list(suite.names)}


def policy_part(table: PluginTable, module: Policy, version: str | None) -> Part:
    """``version``: of the plugin that trained it."""
    return Part(table.plugin, version, parameters(module), int(module.evaluations))


def world_model_part(
    table: PluginTable,
    module: WorldModel,
    suite: Suite,
    checkpoints: Mapping[int, Path | None],
    *trainers: str | None,
) -> WorldModelPart:
    """``checkpoints``: by replicate; ``trainers``: versions of the plugins that trained them."""
    places = {str(seed): str(path) for seed, path in checkpoints.items() if path}
    one = next(iter(places.values())) if len(set(places.values())) == 1 else None
    return WorldModelPart(
        table.plugin,
        ", ".join(dict.fromkeys(filter(None, trainers))) or None,
        parameters(module),
        int(module.evaluations),
        one,
        size_parity(table, suite),
        None if one else places or None,
    )
