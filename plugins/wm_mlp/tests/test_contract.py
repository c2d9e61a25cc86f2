"""The contract."""

from fmbpo.testing import parametrize_checks


@parametrize_checks("fmbpo.world_models", "mlp")
def test_contract(check):
    check()
