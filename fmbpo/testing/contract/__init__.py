"""The contract as checks: plain functions, each with one subject and a message that helps.

``CHECKS[kind]`` lists them; ``run`` runs them for one plugin and configuration. No pytest needed;
``fmbpo.testing.parametrize_checks`` makes a pytest file of them.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import torch

import fmbpo
from fmbpo.plugins import Component, Kind
from fmbpo.testing.contract import hooks, learning, modes, plugin, spaces
from fmbpo.testing.contract.subject import ContractError, subject

Check: TypeAlias = Callable[[Any], None]
"""Raises ``ContractError`` where a subject does not keep the contract."""

_BOTH = (*plugin.CHECKS, *hooks.CHECKS, *spaces.CHECKS, *learning.CHECKS, *modes.CHECKS)
CHECKS: dict[Kind, dict[str, Check]] = {
    "world_model": {
        check.__name__: check
        for check in (
            *_BOTH,
            *hooks.WORLD_MODEL_CHECKS,
            *spaces.WORLD_MODEL_CHECKS,
            *learning.WORLD_MODEL_CHECKS,
            *modes.GPU_CHECKS,
        )
    },
    "policy": {
        check.__name__: check
        for check in (*_BOTH, *spaces.POLICY_CHECKS, *learning.POLICY_CHECKS, *modes.GPU_CHECKS)
    },
}
"""The checks of each kind of plugin by name."""
NEEDS_GPU = frozenset(check.__name__ for check in modes.GPU_CHECKS)
"""Names of those that are left out where there is no GPU."""


@attrs.frozen
class Outcome:
    """One check: ``ok``, ``failed`` or ``skipped``, and why."""

    check: str
    status: str
    message: str = ""


def run_check(component: Component, config: Any, name: str) -> Outcome:
    """One check of one plugin with one configuration; an exception of the plugin's is a failure."""
    if name in NEEDS_GPU and not torch.cuda.is_available():
        return Outcome(name, "skipped", "there is no GPU here")
    try:
        CHECKS[component.kind][name](subject(component, config))
    except ContractError as error:
        return Outcome(name, "failed", str(error))
    except (Exception, SystemExit) as error:
        return Outcome(name, "failed", str(_raised(error)))
    return Outcome(name, "ok")


def _raised(error: BaseException) -> ContractError:
    """The contract is not kept by raising; the place is the last that is the plugin's own."""
    text = (str(error).strip().splitlines() or [""])[0]
    beyond, core = (f"{Path(m.__file__ or '').parent}/" for m in (torch, fmbpo))
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if beyond not in f.filename and core not in f.filename]
    place = (
        f"see {own[-1].filename}:{own[-1].lineno}, in {own[-1].name}"
        if own
        else ("compare what the hooks and attributes give with fmbpo/hookspecs.py")
    )
    return ContractError(
        "the plugin does what this check asks of it",
        f"the plugin fails: {type(error).__name__}: {text}",
        place,
    )


def run(component: Component, config: Any) -> Iterator[Outcome]:
    """All checks of the component's kind, in order."""
    for name in CHECKS[component.kind]:
        yield run_check(component, config, name)


def protects_from(kind: Kind) -> Mapping[str, str]:
    """What each check is there for: its docstring in one line."""
    return {name: " ".join((c.__doc__ or "").split()) for name, c in CHECKS[kind].items()}
