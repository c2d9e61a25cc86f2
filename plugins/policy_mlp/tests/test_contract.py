"""The contract, for the settings that change what the policy computes."""

from fmbpo.testing import parametrize_checks

CONFIGS = [{}, {"task_embedding": True}, {"detach": False}]


@parametrize_checks("fmbpo.policies", "mlp", configs=CONFIGS)
def test_contract(check):
    check()
