"""Contract checks for authors of plugins and tasks; comparisons with recordings of PWM and MT30."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fmbpo.errors import UserError
from fmbpo.plugins import GROUPS, load_plugin

if TYPE_CHECKING:
    from fmbpo.testing.outcomes import Outcome


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
        configured,
        run_check,
        subject_of,
    )
    from fmbpo.testing.outcomes import Seen

    kinds = {value: key for key, value in GROUPS.items()}
    if group not in kinds:
        raise UserError(f"no group {group!r}", remedy=f"known: {', '.join(kinds)}")
    tables = isinstance(configs, Sequence) and all(isinstance(c, Mapping) for c in configs)
    if not tables or not configs:
        what = f"`configs` is {configs!r}, which is not a list of settings"
        remedy = "write configs=[{...}, {...}], with {} for the plugin's small settings"
        raise UserError(what, where=f"checks of {name!r}", remedy=remedy)
    kind, expected = kinds[group], dict(expected_failures or {})
    _know(expected, CHECKS[kind])
    component = load_plugin(kind, name)
    # A mistake in the test file is not a failure of the plugin.
    subjects = [subject_of(component, configured(component, config)) for config in configs]

    marks = {True: [pytest.mark.gpu], False: []}
    cases = [
        pytest.param(
            _case(check, partial(run_check, subject, check, seen), expected),
            id=f"{check}-{i}",
            marks=marks[check in NEEDS_GPU],
        )
        for i, (subject, seen) in enumerate((subject, Seen()) for subject in subjects)
        for check in CHECKS[kind]
    ]
    return pytest.mark.parametrize("check", cases)


def parametrize_task_checks(
    name: str, expected_failures: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn ``def test_tasks(check): check()`` into a test for each task and check.

    Args:
        name: the name of an installed suite, or of one of its tasks.
        expected_failures: checks that fail for each of these tasks, with the reason; if one passes,
            its test fails. If a check fails for one task only, give this task its own test
            function.

    Raises ``UserError`` for a name or a check that does not exist.
    """
    import pytest

    from fmbpo.testing.outcomes import Seen
    from fmbpo.testing.task_contract import CHECKS, run_check, subjects

    expected = dict(expected_failures or {})
    _know(expected, CHECKS)
    cases = [
        pytest.param(
            _case(check, partial(run_check, subject, check, seen), expected),
            id=f"{check}-{subject.task.name}",
        )
        for subject, seen in ((subject, Seen()) for subject in subjects([name]))
        for check in CHECKS
    ]
    return pytest.mark.parametrize("check", cases)


def _know(expected: Mapping[str, str], checks: Iterable[str]) -> None:
    """``UserError`` for an expected failure of a check that does not exist."""
    if unknown := expected.keys() - set(checks):
        raise UserError(
            f"no check {', '.join(sorted(unknown))}", remedy=f"known: {', '.join(checks)}"
        )


def _case(
    check: str, outcome_now: Callable[[], Outcome], expected: Mapping[str, str]
) -> Callable[[], None]:
    """A test of one check."""
    import pytest

    from fmbpo.testing.outcomes import ContractWarning

    def run() -> None:
        outcome = outcome_now()
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
