"""The contract."""

from fmbpo.testing import parametrize_checks


@parametrize_checks("fmbpo.world_models", "shortcut", configs=[{}])
def test_contract(check):
    check()
