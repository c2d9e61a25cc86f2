"""The contract."""

from fmbpo.testing import parametrize_checks


@parametrize_checks("fmbpo.world_models", "ensemble", configs=[{}, {"members": 2, "pessimism": 0}])
def test_contract(check):
    check()
