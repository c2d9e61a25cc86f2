"""Compares the sizes of networks, which must be equal between compared world models."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch

from fmbpo.base.text import counted
from fmbpo.config.schema import Experiment, PluginTable
from fmbpo.hookspecs import Policy, PolicyDims, WorldModel, WorldModelDims
from fmbpo.measure.cost import parameters
from fmbpo.measure.health import TOLERANCE
from fmbpo.nn.world_model import LatentWorldModel, WorldModelConfig
from fmbpo.tasks.suite import Suite


def dims_of(suite: Suite) -> WorldModelDims:
    """The sizes that world models of this suite are built for."""
    return WorldModelDims(obs=suite.obs_width, action=suite.action_width, tasks=len(suite))


def size_line(what: str, table: PluginTable, module: WorldModel | Policy, suite: Suite) -> str:
    """Plugin, parameters by part, network evaluations, and the size against the MLP model's."""
    counts = parameters(module)
    parts = ", ".join(f"{part} {count:,}" for part, count in counts.items())
    parity = size_parity(table, suite)
    against = "" if parity is None else f", {parity:+.2%} against the MLP model of the same widths"
    passes = counted(module.evaluations, "network evaluation")
    return (
        f"{what}: {table.plugin} {table.component.version}, {sum(counts.values()):,} parameters "
        f"({parts}){against}, {passes} per step"
    )


def sizes(experiments: Sequence[Experiment]) -> tuple[list[str], list[str]]:
    """Lines with the number of parameters per part, and warnings if world models differ too much.

    Allocates nothing: the modules are built on the meta device.
    """
    models, policies = [], []
    for e in experiments:
        sized = dims_of(e.expected_suite)
        with torch.device("meta"):
            model = e.world_model.component.build(e.world_model.config, sized)
            models.append(parameters(model))
            if e.policy is not None:
                dims = PolicyDims(model.latent_dim, model.task_dim, sized.action)
                policies.append(parameters(e.policy.component.build(e.policy.config, dims)))
    lines = [*_lines("world model", models), *(_lines("policy", policies) if policies else [])]
    totals = [sum(counts.values()) for counts in models]
    apart = max(totals) / min(totals) - 1
    if apart <= TOLERANCE:
        return lines, []
    return lines, [f"world models differ by {100 * apart:.1f} % in size; more than 2 % is a factor"]


def size_parity(table: PluginTable, suite: Suite) -> float | None:
    """Parameters of a world model over those of the MLP world model of the same widths
    (``fmbpo.nn.world_model.LatentWorldModel``), minus 1. None for a plugin without its settings."""
    config = table.config
    if not isinstance(config, WorldModelConfig):
        return None
    shared = {f.name: getattr(config, f.name) for f in attrs.fields(WorldModelConfig)}
    dims = dims_of(suite)
    with torch.device("meta"):
        own = table.component.build(config, dims)
        plain = LatentWorldModel(WorldModelConfig(**shared), dims)
    return sum(parameters(own).values()) / sum(parameters(plain).values()) - 1


def _lines(what: str, counts: Sequence[dict[str, int]]) -> list[str]:
    parts = list(dict.fromkeys(part for count in counts for part in count))
    rows = [(part, [count.get(part, 0) for count in counts]) for part in parts]
    rows.append(("all", [sum(count.values()) for count in counts]))
    return [f"{what}, {part}: {' | '.join(f'{n:,}' for n in numbers)}" for part, numbers in rows]
