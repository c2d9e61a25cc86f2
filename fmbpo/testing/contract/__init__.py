"""The contract as checks: plain functions, each of one subject.

``CHECKS[kind]`` lists them; ``check_installed`` runs them for plugins by name, without pytest.
``fmbpo.testing.parametrize_checks`` makes pytest tests of them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, get_type_hints

import attrs
import torch

from fmbpo.base.structure import Problems, structure
from fmbpo.config import toml
from fmbpo.errors import UserError, UserErrors, did_you_mean
from fmbpo.plugins import GROUPS, Component, Kind, Listing, list_plugins, load_plugin, not_offered
from fmbpo.testing.contract import auxiliary, flows, hooks, learning, modes, optional, plugin
from fmbpo.testing.contract.subject import SUBJECTS, Subject
from fmbpo.testing.outcomes import Check, Outcome, Seen, outcome_of, public_functions, rows


def _checks(kind: Kind) -> Iterator[tuple[str, Check]]:
    """The public functions of the check modules whose argument admits this kind of subject."""
    for module in (plugin, hooks, learning, auxiliary, modes, optional, flows):
        for name, check in public_functions(module):
            if issubclass(SUBJECTS[kind], get_type_hints(check)["subject"]):
                yield name, check


CHECKS: dict[Kind, dict[str, Check]] = {kind: dict(_checks(kind)) for kind in GROUPS}
"""The checks of each kind of plugin by name."""
NEEDS_GPU = frozenset({"equal_on_the_gpu"})
"""Names of the checks that are skipped if there is no GPU."""


def subject_of(component: Component, config: object) -> Subject:
    """The plugin with this configuration."""
    return SUBJECTS[component.kind](component, config)


def run_check(subject: Subject, name: str, seen: Seen | None = None) -> Outcome:
    """Run a check on a new module; see ``outcome_of``."""
    if name in NEEDS_GPU and not torch.cuda.is_available():
        return Outcome(name, "skipped", "there is no GPU here")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
    try:
        check = CHECKS[subject.component.kind][name]
        new = attrs.evolve(subject)
        return outcome_of(name, lambda: check(new), "plugin", "fmbpo/hookspecs.py", seen)
    finally:
        torch.set_num_threads(threads)


def run(component: Component, config: object, names: Collection[str] = ()) -> Iterator[Outcome]:
    """The named checks of the component's kind, in order; all of them if none is named."""
    subject, seen = subject_of(component, config), Seen()
    for name in CHECKS[component.kind]:
        if name in names or not names:
            yield run_check(subject, name, seen)


@attrs.frozen
class Checked:
    """A plugin and the outcomes of its checks."""

    plugin: Listing
    outcomes: list[Outcome]

    def to_json(self) -> dict[str, object]:
        """The plugin and its outcomes as JSON values."""
        own = attrs.asdict(self.plugin, filter=lambda field, _: field.name != "value")
        return {**own, "checks": [attrs.asdict(outcome) for outcome in self.outcomes]}

    def table(self) -> Iterator[str]:
        """The plugin, and the rows of its outcomes."""
        p = self.plugin
        yield f"{p.kind.replace('_', ' ')} {p.name} {p.version} ({p.distribution})"
        yield from rows(self.outcomes)


def check_installed(
    name: str | None,
    kind: Kind | None,
    overrides: Sequence[str],
    say: Callable[[str], None],
    checks: Sequence[str] = (),
) -> list[Checked]:
    """Check the plugins of this name and kind; None admits every name, or both kinds.

    ``checks``: only these, on the plugins of the kinds that have one of them; none: every check.
    ``overrides``: ``key=value`` settings on top of the plugin's small ones. A plugin that cannot
    be loaded has one failed check, ``loads``. The output of plugins goes to stderr. Raises
    ``UserError`` if no such plugin is installed, or if it has no such setting or check.
    """
    plugins = {
        (item.kind, item.name): item
        for item in list_plugins()
        if name in (None, item.name) and kind in (None, item.kind)
    }
    if not plugins:
        raise not_offered(name or "", kind)
    known = {check: None for item in plugins.values() for check in CHECKS[item.kind]}
    for check in checks:
        if check not in known:
            what, where = f"no check {check!r}", f"plugins check {name or ''}".rstrip()
            raise UserError(what, where=where, remedy=did_you_mean(check, known))
    if checks:
        plugins = {k: p for k, p in plugins.items() if not CHECKS[p.kind].keys().isdisjoint(checks)}
    settings = toml.Document()
    toml.apply_overrides(settings, overrides)
    with contextlib.redirect_stdout(sys.stderr):
        return [
            Checked(item, _outcomes(item, settings.tree, say, checks)) for item in plugins.values()
        ]


def configured(component: Component, settings: Mapping[str, object]) -> Any:
    """The plugin's ``Config`` with these settings on top of its small ones.

    Raises ``UserErrors`` for unknown settings and wrong values.
    """
    try:
        return structure({**component.small, **settings}, component.Config)
    except Problems as error:
        where = f"settings of {component.name!r}"
        raise UserErrors(
            UserError(str(item), where=where, remedy=item.remedy) for item in error.problems
        ) from None


def _outcomes(
    item: Listing,
    settings: Mapping[str, object],
    say: Callable[[str], None],
    checks: Sequence[str],
) -> list[Outcome]:
    try:
        component = load_plugin(item.kind, item.name)
        configured(component, {})
    except UserError as error:
        return [Outcome("loads", "failed", str(error))]
    config = configured(component, settings)
    say(f"checking {item.kind.replace('_', ' ')} {item.name}: {config}")
    return list(run(component, config, checks))
