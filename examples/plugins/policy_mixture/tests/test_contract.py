"""The contract."""

from fmbpo.testing import parametrize_checks


@parametrize_checks("fmbpo.policies", "mixture", configs=[{}, {"temperature": 0.1}])
def test_contract(check):
    check()
