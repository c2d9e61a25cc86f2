"""The contract."""

from fmbpo.testing import parametrize_checks


@parametrize_checks("fmbpo.policies", "fql", configs=[{}])
def test_contract(check):
    check()
