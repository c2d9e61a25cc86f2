"""Plugins that are broken on purpose, each with the contract check that is there to catch it.

A mutant is a subclass of one of the four plugins of this repository with one fault, the smallest
that a plugin's author could make: those of both kinds of plugin in ``shared_mutants.py``, those of
one kind alone in ``world_model_mutants.py`` and ``policy_mutants.py``, and those of the terms of a
policy's loss beside the return in ``auxiliary_mutants.py``.
"""

from collections.abc import Callable
from typing import Any

import attrs
from torch import nn

from fmbpo.nn.world_model import LatentWorldModel
from fmbpo.plugins import Component
from fmbpo_policy_flow import FlowPolicy, FlowPolicyPlugin
from fmbpo_policy_mlp import GaussianPlugin, GaussianPolicy
from fmbpo_wm_flow import FlowPlugin
from fmbpo_wm_flow.model import FlowWorldModel
from fmbpo_wm_mlp import MLPWorldModel


class Built:
    """Builds ``Module``, so that a mutant can bring its own."""

    Module: type[nn.Module]

    def build(self, config, dims):
        return self.Module(config, dims)


class WM(Built, MLPWorldModel):
    Module = LatentWorldModel


class FlowWM(Built, FlowPlugin):
    Module = FlowWorldModel


class P(Built, GaussianPlugin):
    Module = GaussianPolicy


class FlowP(Built, FlowPolicyPlugin):
    Module = FlowPolicy


HOOKS = ("build", "predict", "rollout", "loss", "freeze")


def component(plugin: Any) -> Component:
    """The plugin object as the registry would resolve it."""
    return Component(
        kind="world_model" if isinstance(plugin, MLPWorldModel | FlowPlugin) else "policy",
        name=type(plugin).__name__,
        version="0",
        distribution="mutants",
        value="",
        Config=plugin.Config,
        small=plugin.small,
        **{hook: getattr(plugin, hook) for hook in HOOKS},
    )


@attrs.frozen
class Mutant:
    """``check`` is meant to catch it, and to say ``says``; ``settings`` bring out the fault."""

    name: str
    plugin: type[Any]
    check: str
    says: str
    settings: dict[str, Any]


MUTANTS: list[Mutant] = []


def mutant(check: str, says: str, **settings: Any) -> Callable[[type[Any]], type[Any]]:
    """Note the class as a mutant that ``check`` is to catch, with ``says`` in the message."""

    def note(cls: type[Any]) -> type[Any]:
        MUTANTS.append(Mutant(cls.__name__, cls, check, says, settings))
        return cls

    return note


def both(check: str, says: str) -> Callable[[type[Any]], type[Any]]:
    """The same for a fault that is mixed into a world model and into a policy."""

    def note(cls: type[Any]) -> type[Any]:
        for base in (WM, P):
            mutant(check, says)(type(f"{cls.__name__}-{base.__name__}", (cls, base), {}))
        return cls

    return note
