"""The contract."""

from fmbpo.testing import parametrize_checks


@parametrize_checks(
    "fmbpo.world_models", "mlp", configs=[{}, {"continuation_coef": 1.0, "reward_bound": 2.0}]
)
def test_contract(check):
    check()
