"""The contract checks for an installed plugin, by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch

from fmbpo.errors import UserError
from fmbpo.experiment import toml
from fmbpo.experiment.structure import Problems, structure
from fmbpo.registry import GROUPS, Component, Kind, list_plugins, load_plugin
from fmbpo.testing.contract import Outcome, run


@attrs.frozen
class Checked:
    """A plugin and what became of each check."""

    component: Component
    outcomes: list[Outcome]

    @property
    def title(self) -> str:
        """Kind, name, version, distribution."""
        c = self.component
        return f"{c.kind.replace('_', ' ')} {c.name} {c.version} ({c.distribution})"

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        c = self.component
        return {
            "kind": c.kind,
            "name": c.name,
            "version": c.version,
            "distribution": c.distribution,
            "checks": [attrs.asdict(outcome) for outcome in self.outcomes],
        }


def check_installed(
    name: str, kind: Kind | None, overrides: Sequence[str], say: Callable[[str], None]
) -> list[Checked]:
    """Check the plugins of this name, of one kind or of both.

    ``overrides``: ``key=value`` settings on top of the plugin's small ones. Raises ``UserError``
    where no plugin of the name can be loaded, or where it has no such setting.
    """
    offered = [item.kind for item in list_plugins() if item.name == name]
    kinds = [kind] if kind else list(dict.fromkeys(offered)) or [next(iter(GROUPS))]
    found = []
    for one in kinds:
        component = load_plugin(one, name)
        config = _config(component, overrides)
        say(f"checking {one.replace('_', ' ')} {name}: {config}")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
        found.append(Checked(component, list(run(component, config))))
        torch.set_num_threads(threads)
    return found


def _config(component: Component, overrides: Sequence[str]) -> Any:
    settings = dict(component.small)
    for text in overrides:
        (*tables, key), value = toml.parse_override(text)
        if tables:
            raise UserError(
                "a plugin's settings have no tables",
                where=f"-o {text}",
                remedy="write -o KEY=VALUE",
            )
        settings[key] = value
    try:
        return structure(settings, component.Config)
    except Problems as error:
        first = error.problems[0]
        key = ".".join(map(str, first.path))
        raise UserError(
            f"{key}: {first.what}", where=f"settings of {component.name!r}", remedy=first.remedy
        ) from None
