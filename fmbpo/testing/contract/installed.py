"""The contract checks of installed plugins, by name, as a table or as JSON."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch

from fmbpo.base.structure import Problems, structure
from fmbpo.config import toml
from fmbpo.errors import UserError, UserErrors
from fmbpo.plugins import Component, Kind, Listing, list_plugins, load_plugin, not_offered
from fmbpo.testing.contract import Outcome, run


@attrs.frozen
class Checked:
    """A plugin and the outcomes of its checks."""

    plugin: Listing
    outcomes: list[Outcome]

    def to_json(self) -> dict[str, object]:
        """For machines."""
        plugin = attrs.asdict(self.plugin, filter=lambda field, _: field.name != "value")
        return {**plugin, "checks": [attrs.asdict(outcome) for outcome in self.outcomes]}

    def table(self) -> Iterator[str]:
        """One line per check; the message of a failed one follows it."""
        p = self.plugin
        yield f"{p.kind.replace('_', ' ')} {p.name} {p.version} ({p.distribution})"
        width = max(len(outcome.check) for outcome in self.outcomes)
        for outcome in self.outcomes:
            reason = f"  {outcome.message}" if outcome.status == "skipped" else ""
            yield f"  {outcome.check.ljust(width)}  {outcome.status}{reason}"
            if outcome.status == "failed":
                yield from (f"      {line}" for line in outcome.message.splitlines())
        counts = {s: sum(o.status == s for o in self.outcomes) for s in ("ok", "failed", "skipped")}
        yield "  " + ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def check_installed(
    name: str | None, kind: Kind | None, overrides: Sequence[str], say: Callable[[str], None]
) -> list[Checked]:
    """Check the plugins of this name, of one kind or of both; without a name, every plugin.

    ``overrides``: ``key=value`` settings on top of the plugin's small ones. A plugin that cannot
    be loaded has one failed check, ``loads``, and the others are checked all the same. The output
    of a plugin goes to stderr. Raises ``UserError`` if nothing of the name is installed, or if it
    has no such setting.
    """
    plugins = {
        (item.kind, item.name): item
        for item in list_plugins()
        if name in (None, item.name) and kind in (None, item.kind)
    }
    if not plugins:
        if name:
            raise not_offered(name, kind)
        raise UserError("no plugin is installed", remedy="pip install -e plugins/NAME")
    settings = _settings(overrides)
    with contextlib.redirect_stdout(sys.stderr):
        return [Checked(item, _outcomes(item, settings, say)) for item in plugins.values()]


def configured(component: Component, settings: Mapping[str, object]) -> Any:
    """The plugin's ``Config`` with these settings on top of its small ones.

    Raises ``UserError`` that names each unknown setting and each wrong value.
    """
    try:
        return structure({**component.small, **settings}, component.Config)
    except Problems as error:
        raise UserErrors(
            UserError(str(item), where=f"settings of {component.name!r}", remedy=item.remedy)
            for item in error.problems
        ) from None


def _outcomes(
    item: Listing, settings: Mapping[str, object], say: Callable[[str], None]
) -> list[Outcome]:
    try:
        component = load_plugin(item.kind, item.name)
    except UserError as error:
        return [Outcome("loads", "failed", str(error))]
    try:
        config = configured(component, settings)
    except UserError as error:
        if settings:  # the user's mistake, not the plugin's
            raise
        return [Outcome("loads", "failed", str(error))]
    say(f"checking {item.kind.replace('_', ' ')} {item.name}: {config}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
    try:
        return list(run(component, config))
    finally:
        torch.set_num_threads(threads)


def _settings(overrides: Sequence[str]) -> dict[str, object]:
    settings: dict[str, object] = {}
    for text in overrides:
        (*tables, key), value = toml.parse_override(text)
        if tables:
            raise UserError(
                "a plugin's settings have no tables",
                where=f"-o {text}",
                remedy="write -o KEY=VALUE",
            )
        settings[key] = value
    return settings
