"""The contract, for the settings that change what the model computes."""

import pytest

from fmbpo.testing import parametrize_checks

CONFIGS = [
    {},
    {"parameterisation": "tangent", "tau": "logit_normal", "solver": "midpoint", "substeps": 2}
    | {"train_solver": "rk4", "train_substeps": 1, "endpoint_coef": 1.0},
    {"source": "noise", "detach_velocity": True, "substeps": 2},
    {"matching_coef": 0.0, "endpoint_coef": 1.0, "substeps": 2},
]
FURTHER = [
    {"source": "noise", "substeps": 2},
    {"detach_velocity": True, "substeps": 2},
    {"solver": "euler", "substeps": 1},
    {"solver": "rk4", "substeps": 2, "trained_from": "mixed", "endpoint_coef": 1.0},
    {"parameterisation": "logit", "trained_from": "teacher"},
]


@parametrize_checks("fmbpo.world_models", "flow", configs=CONFIGS)
def test_contract(check):
    check()


@pytest.mark.endurance
@parametrize_checks("fmbpo.world_models", "flow", configs=FURTHER)
def test_contract_of_further_settings(check):
    check()
