"""The contract checks as a pytest file of four lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fmbpo.errors import UserError
from fmbpo.registry import GROUPS, load_plugin


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
        expected_failures: checks that are known to fail, with the reason; one that passes is a
            failure.

    Raises ``UserError`` for a group or a check that does not exist.
    """
    import pytest
    import torch

    from fmbpo.testing.contract import CHECKS, NEEDS_GPU, run_check

    kinds = {value: key for key, value in GROUPS.items()}
    if group not in kinds:
        raise UserError(f"no group {group!r}", remedy=f"known: {', '.join(kinds)}")
    kind, expected = kinds[group], dict(expected_failures or {})
    if unknown := expected.keys() - CHECKS[kind].keys():
        raise UserError(
            f"no check {', '.join(sorted(unknown))}", remedy=f"known: {', '.join(CHECKS[kind])}"
        )

    def case(check: str, config: Mapping[str, Any]) -> Callable[[], None]:
        def run() -> None:
            component = load_plugin(kind, name)
            torch.set_num_threads(1)  # on tensors this small, threads only wait for each other
            outcome = run_check(component, component.Config(**{**component.small, **config}), check)
            if outcome.status == "skipped":
                pytest.skip(outcome.message)
            if outcome.status == "failed" and check in expected:
                pytest.xfail(expected[check])
            if outcome.status == "failed":
                pytest.fail(f"{check}\n{outcome.message}", pytrace=False)
            if check in expected:
                pytest.fail(
                    f"{check} passes, and was expected to fail: {expected[check]}", pytrace=False
                )

        return run

    marks = {True: [pytest.mark.gpu], False: []}
    cases = [
        pytest.param(case(check, config), id=f"{check}-{i}", marks=marks[check in NEEDS_GPU])
        for i, config in enumerate(configs)
        for check in CHECKS[kind]
    ]
    return pytest.mark.parametrize("check", cases)
