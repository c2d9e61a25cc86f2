"""The contract as checks: plain functions, each of one subject.

``CHECKS[kind]`` lists them; ``check_installed`` runs them for plugins by name, without pytest.
``fmbpo.testing.parametrize_checks`` makes pytest tests of them.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, get_type_hints

import attrs
import torch

import fmbpo
from fmbpo.base.structure import Problems, structure
from fmbpo.base.text import said, text_of
from fmbpo.config import toml
from fmbpo.errors import UserError, UserErrors, did_you_mean
from fmbpo.plugins import GROUPS, Component, Kind, Listing, list_plugins, load_plugin, not_offered
from fmbpo.testing.contract import auxiliary, flows, hooks, learning, modes, optional, plugin
from fmbpo.testing.contract.subject import SUBJECTS, ContractError, ContractWarning, Subject

Check: TypeAlias = Callable[[Any], str | None]
"""Takes a subject; raises ``ContractError`` if the subject breaks the contract, and
``ContractWarning`` if it does what is a fault in most plugins. A check that measures returns what
it measured."""


def _checks(kind: Kind) -> Iterator[tuple[str, Check]]:
    """The public functions of the check modules whose argument admits this kind of subject."""
    for module in (plugin, hooks, learning, auxiliary, modes, optional, flows):
        for name, check in vars(module).items():
            own = inspect.isfunction(check) and check.__module__ == module.__name__
            public = own and not name.startswith("_")
            if public and issubclass(SUBJECTS[kind], get_type_hints(check)["subject"]):
                yield name, check


CHECKS: dict[Kind, dict[str, Check]] = {kind: dict(_checks(kind)) for kind in GROUPS}
"""The checks of each kind of plugin by name."""
NEEDS_GPU = frozenset({"equal_on_the_gpu"})
"""Names of the checks that are skipped if there is no GPU."""


@attrs.frozen
class Outcome:
    """The outcome of a check.

    ``ok``: with what it measured, if it measures. ``failed`` and ``skipped``: with the reason.
    ``warned``: with what it found, and when that is a fault; the plugin keeps the contract.
    ``stopped``: by the same error in the plugin's code as an earlier check, which is named.
    """

    check: str
    status: str
    message: str = ""


Seen: TypeAlias = dict[tuple[str, ...], str]
"""Errors of a plugin's code: kind, text and place; and the first check that each stopped."""


def subject_of(component: Component, config: object) -> Subject:
    """The plugin with this configuration."""
    return SUBJECTS[component.kind](component, config)


def run_check(subject: Subject, name: str, seen: Seen | None = None) -> Outcome:
    """Run a check on a new module. An exception raised by the plugin is a failure.

    ``seen``: errors of the plugin's earlier checks; the check is ``stopped`` by one of them, or
    adds its own.
    """
    if name in NEEDS_GPU and not torch.cuda.is_available():
        return Outcome(name, "skipped", "there is no GPU here")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
    try:
        measured = CHECKS[subject.component.kind][name](attrs.evolve(subject))
    except ContractWarning as warning:
        return Outcome(name, "warned", str(warning))
    except (Exception, SystemExit) as error:
        broken = error if isinstance(error, ContractError) else _raised(error)
        cause = _cause(error)
        if seen is not None and cause and seen.setdefault(cause, name) != name:
            return Outcome(name, "stopped", f"by the same error as {seen[cause]}")
        return Outcome(name, "failed", str(broken))
    finally:
        torch.set_num_threads(threads)
    return Outcome(name, "ok", measured or "")


def _raised(error: BaseException) -> ContractError:
    """The error of a plugin that raises; its place is the last frame in the plugin's code."""
    place = "compare the results of the hooks and the attributes with fmbpo/hookspecs.py"
    if frame := _own_frame(error):
        place = f"see {frame.filename}:{frame.lineno}, in {frame.name}"
    return ContractError(
        "the plugin completes this check", place, f"the plugin fails: {said(error)}"
    )


def _cause(error: BaseException) -> tuple[str, ...] | None:
    """What tells an error in the plugin's code from others, whatever the shapes in its text; None:
    the plugin raised nothing."""
    raised = error.__cause__ if isinstance(error, ContractError) else error
    if raised is None or not (frame := _own_frame(raised)):
        return None
    text = re.sub(r"\d+", "#", text_of(raised))
    return type(raised).__name__, text, f"{frame.filename}:{frame.lineno}"


def _own_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The last frame in the plugin's code."""
    beyond, core = (f"{Path(m.__file__ or '').parent}/" for m in (torch, fmbpo))
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if beyond not in f.filename and core not in f.filename]
    return own[-1] if own else None


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
        """A line per check, with the message of each one that failed or warned below it."""
        p = self.plugin
        yield f"{p.kind.replace('_', ' ')} {p.name} {p.version} ({p.distribution})"
        width = max(len(outcome.check) for outcome in self.outcomes)
        stopped: dict[str, list[str]] = {}
        for outcome in self.outcomes:
            if outcome.status == "stopped":
                stopped.setdefault(outcome.message, []).append(outcome.check)
                continue
            below = outcome.status in ("failed", "warned")
            beside = "" if below else f"  {outcome.message}"
            yield f"  {outcome.check.ljust(width)}  {outcome.status.ljust(7)}{beside}".rstrip()
            if below:
                yield from (f"      {line}" for line in outcome.message.splitlines())
        for reason, checks in stopped.items():
            yield f"  stopped {reason}: {', '.join(checks)}"
        statuses = ("ok", "warned", "failed", "stopped", "skipped")
        counts = {s: sum(o.status == s for o in self.outcomes) for s in statuses}
        yield "  " + ", ".join(f"{count} {status}" for status, count in counts.items() if count)


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
