"""The contract as checks: plain functions, each with one subject and a message that helps.

``CHECKS[kind]`` lists them; ``run`` runs them for one plugin and configuration. No pytest needed;
``fmbpo.testing.parametrize_checks`` makes a pytest file of them.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, get_type_hints

import attrs
import torch

import fmbpo
from fmbpo.plugins import GROUPS, Component, Kind
from fmbpo.testing.contract import hooks, learning, modes, plugin, spaces
from fmbpo.testing.contract.subject import SUBJECTS, ContractError, Subject, in_one_line

Check: TypeAlias = Callable[[Any], None]
"""Takes a subject; raises ``ContractError`` if it breaks the contract."""


def _checks(kind: Kind) -> Iterator[tuple[str, Check]]:
    """The public functions of the modules above whose argument admits this kind of subject."""
    for module in (plugin, hooks, spaces, learning, modes):
        for name, check in vars(module).items():
            own = inspect.isfunction(check) and check.__module__ == module.__name__
            if not own or name.startswith("_"):
                continue
            if issubclass(SUBJECTS[kind], get_type_hints(check)["subject"]):
                yield name, check


CHECKS: dict[Kind, dict[str, Check]] = {kind: dict(_checks(kind)) for kind in GROUPS}
"""The checks of each kind of plugin by name."""
NEEDS_GPU = frozenset({"equal_on_the_gpu"})
"""Names of the checks that are skipped if there is no GPU."""


@attrs.frozen
class Outcome:
    """One check: ``ok``, ``failed`` or ``skipped``, and why."""

    check: str
    status: str
    message: str = ""


def subject_of(component: Component, config: object) -> Subject:
    """The plugin with this configuration."""
    return SUBJECTS[component.kind](component, config)


def run_check(subject: Subject, name: str) -> Outcome:
    """One check on a module of its own. An exception of the plugin is a failure."""
    if name in NEEDS_GPU and not torch.cuda.is_available():
        return Outcome(name, "skipped", "there is no GPU here")
    try:
        CHECKS[subject.component.kind][name](attrs.evolve(subject))
    except ContractError as error:
        return Outcome(name, "failed", str(error))
    except (Exception, SystemExit) as error:
        return Outcome(name, "failed", str(_raised(error)))
    return Outcome(name, "ok")


def _raised(error: BaseException) -> ContractError:
    """A raising plugin breaks the contract; the place is the last one in its own code."""
    beyond, core = (f"{Path(m.__file__ or '').parent}/" for m in (torch, fmbpo))
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if beyond not in f.filename and core not in f.filename]
    place = "compare the results of the hooks and the attributes with fmbpo/hookspecs.py"
    if own:
        place = f"see {own[-1].filename}:{own[-1].lineno}, in {own[-1].name}"
    return ContractError(
        "the plugin completes this check", f"the plugin fails: {in_one_line(error)}", place
    )


def run(component: Component, config: object) -> Iterator[Outcome]:
    """All checks of the component's kind, in order."""
    subject = subject_of(component, config)
    for name in CHECKS[component.kind]:
        yield run_check(subject, name)


def protects_from(kind: Kind) -> Mapping[str, str]:
    """The purpose of each check: its docstring in one line."""
    return {name: " ".join((c.__doc__ or "").split()) for name, c in CHECKS[kind].items()}
