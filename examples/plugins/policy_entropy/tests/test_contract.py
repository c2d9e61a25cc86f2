"""The contract."""

from fmbpo.testing import parametrize_checks


@parametrize_checks("fmbpo.policies", "entropy", configs=[{}, {"learned": False}])
def test_contract(check):
    check()
