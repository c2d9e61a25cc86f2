"""Contract checks for authors of plugins; comparisons with recordings of PWM and of the tasks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fmbpo.errors import UserError
from fmbpo.plugins import GROUPS, load_plugin

if TYPE_CHECKING:
    from fmbpo.testing.contract.subject import Subject


def parametrize_checks(
    group: str,
    name: str,
    configs: Sequence[Mapping[str, Any]] = ({},),
    expected_failures: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn ``def test_contract(check): check()`` into a test for each check and configuration.

    Args:
        group: the entry-point group, ``"fmbpo.world_models"`` or ``"fmbpo.policies"``.
        name: the plugin's entry-point name.
        configs: settings to check the plugin with, on top of its own ``small`` ones.
        expected_failures: checks that fail in each of ``configs``, with the reason; if one passes,
            its test fails. If a check fails in one configuration only, give that configuration its
            own test function.

    A check that warns passes, with its message among pytest's warnings.

    Raises ``UserError`` for a group, a plugin, a setting or a check that does not exist, and for an
    empty list of configurations.
    """
    import pytest

    from fmbpo.testing.contract import (
        CHECKS,
        NEEDS_GPU,
        Seen,
        configured,
        run_check,
        subject_of,
    )
    from fmbpo.testing.contract.subject import ContractWarning

    kinds = {value: key for key, value in GROUPS.items()}
    if group not in kinds:
        raise UserError(f"no group {group!r}", remedy=f"known: {', '.join(kinds)}")
    tables = isinstance(configs, Sequence) and all(isinstance(c, Mapping) for c in configs)
    if not tables or not configs:
        what = f"`configs` is {configs!r}, which is not a list of settings"
        remedy = "write configs=[{...}, {...}], with {} for the plugin's small settings"
        raise UserError(what, where=f"checks of {name!r}", remedy=remedy)
    kind, expected = kinds[group], dict(expected_failures or {})
    if unknown := expected.keys() - CHECKS[kind].keys():
        raise UserError(
            f"no check {', '.join(sorted(unknown))}", remedy=f"known: {', '.join(CHECKS[kind])}"
        )
    component = load_plugin(kind, name)
    # A mistake in the test file is not a failure of the plugin.
    subjects = [subject_of(component, configured(component, config)) for config in configs]

    def case(subject: Subject, check: str, seen: Seen) -> Callable[[], None]:
        def run() -> None:
            outcome = run_check(subject, check, seen)
            if outcome.status == "warned":
                warnings.warn(ContractWarning(f"{check}\n{outcome.message}"), stacklevel=2)
            if outcome.status == "skipped":
                pytest.skip(outcome.message)
            broken = outcome.status in ("failed", "stopped")
            if broken and check in expected:
                pytest.xfail(expected[check])
            if outcome.status == "stopped":
                pytest.fail(f"{check} is stopped {outcome.message}", pytrace=False)
            if broken:
                pytest.fail(f"{check}\n{outcome.message}", pytrace=False)
            if check in expected:
                what = f"{check} passes, but was expected to fail: {expected[check]}"
                pytest.fail(what, pytrace=False)

        return run

    marks = {True: [pytest.mark.gpu], False: []}
    cases = [
        pytest.param(case(subject, check, seen), id=f"{check}-{i}", marks=marks[check in NEEDS_GPU])
        for i, (subject, seen) in enumerate((subject, Seen()) for subject in subjects)
        for check in CHECKS[kind]
    ]
    return pytest.mark.parametrize("check", cases)
